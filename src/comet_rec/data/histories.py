"""Histories N(u) and N(i): the rows that a model reads, their order and their padding.

Training, evaluation and serving all build their histories here. The module also closes two leaks of
the label (ADR 0003). A batch's own positives are left out of the histories of users and items. Some
other rows are left out at random, because a missing row alone would reveal the positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.interactions import Interactions, row_places, row_starts
from comet_rec.data.sampling import distinct_integers
from comet_rec.random import generator

HistoryPolicy = Literal["sampled", "recent", "causal"]
"""Rules that choose the rows of a padded history; `HistorySettings` describes them."""
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

BLOCK = 1 << 16
"""Number of histories that are computed at a time, to limit memory."""


@dataclass(frozen=True, kw_only=True)
class HistorySettings:
    """Settings of the histories that a model reads.

    Parameters
    ----------
    length : int
        Largest number of rows in a padded history, N.
    policy : {"sampled", "recent", "causal", "full"}
        - ``"sampled"``: a random subset, new in each training step and fixed at evaluation.
        - ``"recent"``: the latest rows.
        - ``"causal"``: for users, the rows just before each positive in training, and the latest
          rows at evaluation; for items, a random subset.
        - ``"full"``: all of N(u) as ragged rows, without N(i). `length` is ignored, and the model
          itself leaves each pair's own item out.
    exclude_target : bool
        Leave the positives of a training batch out of its histories.
    dropout : float
        Largest share of a history's rows that a training step leaves out, in addition to the
        batch's positives. The share is drawn uniformly from [0, dropout] for each history.
    shuffle : bool
        Put the rows in a random order.
    items : bool
        Whether the model reads N(i), the users of each item.
    steps : int
        For causal histories, the largest number of a user's consecutive rows that a model encodes
        in one pass. Training batches are then pieces of sequences (`data.sequences`). With 0 every
        positive has a padded history of its own.
    context : int
        Largest number of rows before such a piece that its histories contain. With N rows, every
        history is as in evaluation. With fewer, early rows of a piece have shorter histories.
    """

    length: int
    policy: Literal["sampled", "recent", "causal", "full"]
    exclude_target: bool
    dropout: float
    shuffle: bool = False
    items: bool = True
    steps: int = 0
    context: int = 0


FULL = HistorySettings(length=0, policy="full", exclude_target=False, dropout=0.0)
"""Settings of models that read all of N(u), the items of a user, and do not read N(i)."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in one tensor; row r is ``values[starts[r]:starts[r + 1]]``.

    Parameters
    ----------
    values : int64 [R]
    starts : int64 [n + 1]
        Start of each row in `values`; the last entry is R.
    """

    values: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Tensor:
        """Length of each row, int64 [n]."""
        return self.starts.diff()

    @property
    def rows(self) -> Tensor:
        """For each entry of `values`, the number of the row that it belongs to, int64 [R]."""
        return torch.arange(len(self), device=self.starts.device).repeat_interleave(self.counts)

    def __getitem__(self, rows: slice | Tensor) -> Ragged:
        """Ragged rows of a slice, or of row numbers [m]; row numbers need tensors on the CPU."""
        if isinstance(rows, slice):
            starts = self.starts[rows.start : rows.stop + 1]
            return Ragged(self.values[starts[0] : starts[-1]], starts - starts[0])
        # numpy uses one thread here: a background thread makes batches while others compute.
        places, counts = row_places(self.starts.numpy(), rows.numpy())
        return Ragged.of_arrays(self.values.numpy()[places], row_starts(counts))

    def to(self, device: torch.device) -> Ragged:
        """The same ragged rows with tensors on `device`."""
        return Ragged(self.values.to(device), self.starts.to(device))

    @staticmethod
    def of_arrays(values: Int64, starts: Int64) -> Ragged:
        """Ragged rows as tensors that share the memory of the numpy arrays."""
        return Ragged(torch.from_numpy(values), torch.from_numpy(starts))

    @staticmethod
    def of_rows(rows: list[Int64]) -> Ragged:
        """Ragged rows from a list that holds one array for each row."""
        values = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        return Ragged.of_arrays(values, row_starts(np.array([len(row) for row in rows], np.int64)))


@dataclass(frozen=True, eq=False)
class HistoryIndex:
    """Histories on one side of a log: the items of each user, or the users of each item.

    The owner of a history is the user whose items, or the item whose users, the history holds. The
    members are those items or users.

    Parameters
    ----------
    starts : int64 [n + 1]
        Start of each owner's history in `members`; n is the number of owners.
    members : int32 [R]
        Members of all histories, in time order if the log's times allow it, otherwise in the order
        of indices.
    rows : int64 [R] or None
        Row of the log for each entry of `members`; None if both have the same order.
    pad : int
        Index that means "no row": the number of possible members.
    timed : bool
        Whether the members are in time order. If not, the policy "recent" takes a random subset.
    """

    starts: Int64
    members: Int32
    rows: Int64 | None
    pad: int
    timed: bool

    def counts(self, owners: Int64) -> Int64:
        """Number of rows in the history of each owner in `owners`."""
        return np.asarray(self.starts[owners + 1] - self.starts[owners])

    def before(self, rows: Int64, owners: Int64, length: int) -> Int32:
        """The `length` members before each given row in its owner's history, int32 [B, length].

        Rows with fewer earlier members are padded in front.

        Parameters
        ----------
        rows : int64 [B]
            Positions in `members`.
        owners : int64 [B]
            Owner of the history that each row belongs to.
        """
        places = rows[:, None] + np.arange(-length, 0)  # [B, length]
        earlier = places >= self.starts[owners, None]  # otherwise a row of the previous owner
        return np.where(earlier, self.members[np.maximum(places, 0)], np.int32(self.pad))

    def full(self) -> Ragged:
        """Histories of all owners with all their rows."""
        return Ragged.of_arrays(self.members.astype(np.int64), self.starts)

    def newest(self, owners: Int64, length: int) -> Int32:
        """The latest `length` members of each owner, padded in front, int32 [U, length]."""
        return self._newest(owners, length, length)

    def shown(self, settings: HistorySettings, rng: np.random.Generator) -> Tensor | LatestRows:
        """Padded histories of all owners for evaluation and serving, int32 [n, N].

        They are made on demand if no draw decides them, and if they are larger than the log.
        """
        larger = (len(self.starts) - 1) * settings.length > 3 * len(self.members)
        if larger and self._latest(settings) and not settings.shuffle:
            return LatestRows(self, settings.length)
        return torch.from_numpy(self.fixed(settings, rng))

    def fixed(self, settings: HistorySettings, rng: np.random.Generator) -> Int32:
        """Padded histories of all owners, int32 [n, N].

        `rng` draws the random subsets of long histories, if the policy needs them.
        """
        padded = self._fixed(settings, rng)
        return shuffled(padded, self.pad, rng) if settings.shuffle else padded

    def _fixed(self, settings: HistorySettings, rng: np.random.Generator) -> Int32:
        owners = np.arange(len(self.starts) - 1)
        padded = np.empty((len(owners), settings.length), dtype=np.int32)
        for first in range(0, len(owners), BLOCK):
            block = owners[first : first + BLOCK]
            padded[block] = self._newest(block, settings.length, settings.length)
        if self._latest(settings):
            return padded
        # A history of at most N rows is complete already. Longer ones need a random subset.
        long = owners[self.counts(owners) > settings.length]
        if len(long) > 0:
            places = distinct_integers(self.counts(long), settings.length, rng)
            padded[long] = self.members[self.starts[long, None] + places]
        return padded

    def _latest(self, settings: HistorySettings) -> bool:
        """Whether evaluation reads the latest rows of a long history, not a random subset."""
        if settings.policy == "causal":
            return self.rows is None  # the user side, whose order is that of the log
        return settings.policy == "recent" and self.timed

    def drawn(
        self,
        owners: Int64,
        masked: Bool | None,
        settings: HistorySettings,
        rng: np.random.Generator,
    ) -> Int32:
        """Draw padded histories of `owners` for one training step, int32 [U, N].

        Parameters
        ----------
        owners : int64 [U]
            Distinct owners.
        masked : bool [rows of the log] or None
            True for the batch's positives, which the histories leave out; None leaves nothing out.
        """
        share = rng.random(len(owners)) * settings.dropout if settings.exclude_target else None
        if settings.policy == "recent" and self.timed:
            padded = self._newest(owners, settings.length, 2 * settings.length, masked, share, rng)
        else:
            padded = self._sampled(owners, settings.length, masked, share, rng)
        return shuffled(padded, self.pad, rng) if settings.shuffle else padded

    def _open(self, places: Int64, masked: Bool | None) -> Bool:
        """Whether the row at each position in `members` is not masked, shaped like `places`."""
        if masked is None:
            return np.ones(places.shape, dtype=bool)
        return np.asarray(~masked[places if self.rows is None else self.rows[places]])

    def _newest(
        self,
        owners: Int64,
        length: int,
        window: int,
        masked: Bool | None = None,
        share: Float64 | None = None,
        rng: np.random.Generator | None = None,
    ) -> Int32:
        """The latest unmasked members of each owner, int32 [U, length].

        They are taken from the latest `window` rows of the history. `share` is the share of rows
        that history dropout leaves out, for each owner; None switches it off.
        """
        if len(self.members) == 0:
            return np.full((len(owners), length), self.pad, dtype=np.int32)
        # Positions counted back from the end of each history, kept if not before its start.
        places = self.starts[owners + 1, None] + np.arange(-window, 0)  # [U, window]
        keep = places >= self.starts[owners, None]
        places = np.maximum(places, 0)  # a valid index, though it is not kept
        available = keep.sum(axis=1)
        keep &= self._open(places, masked)
        if share is not None and rng is not None:
            targets = available - keep.sum(axis=1)
            left = available - masked_number(available, targets, share, rng)
            keep = random_subset(keep, np.maximum(left, 0), rng)
        return right_aligned(self.members[places], keep, length, self.pad)

    def _sampled(
        self,
        owners: Int64,
        length: int,
        masked: Bool | None,
        share: Float64 | None,
        rng: np.random.Generator,
    ) -> Int32:
        """A random subset of each owner's unmasked members, in history order, int32 [U, length].

        `share` is the share of rows that history dropout leaves out, for each owner; None switches
        it off.
        """
        counts = self.counts(owners)
        window = 2 * length
        padded = np.full((len(owners), length), self.pad, dtype=np.int32)
        # Short histories first, then long ones: this order of the draws determines the numbers.
        for is_long in (False, True):
            group = np.flatnonzero((counts > window) == is_long)
            if len(group) == 0 or len(self.members) == 0:
                continue
            group_counts = counts[group, None]
            if is_long:
                # More than 2 N rows: draw 2 N positions with replacement, then drop the repeats.
                place = np.sort(rng.integers(0, group_counts, size=(len(group), window)), axis=1)
                keep = np.ones(place.shape, dtype=bool)
                keep[:, 1:] = place[:, 1:] > place[:, :-1]
            else:
                # All rows of the history are candidates.
                place = np.broadcast_to(np.arange(window), (len(group), window))
                keep = place < group_counts
                place = np.where(keep, place, 0)
            # `minimum`: the start of an empty history at the end of the log is past the last row.
            places = np.minimum(self.starts[owners[group], None] + place, len(self.members) - 1)
            is_open = self._open(places, masked)
            left = group_counts[:, 0]
            if share is not None:
                # A long history has enough rows even if some are masked, so its targets need not
                # be counted.
                targets = np.zeros_like(left) if is_long else (keep & ~is_open).sum(axis=1)
                left = left - masked_number(left, targets, share[group], rng)
            keep = random_subset(keep & is_open, np.clip(left, 0, length), rng)
            padded[group] = right_aligned(self.members[places], keep, length, self.pad)
        return padded


@dataclass(frozen=True, eq=False)
class LatestRows:
    """The latest rows of every history, padded in front when they are asked for.

    All histories together may be many times as large as the log.

    Parameters
    ----------
    index : HistoryIndex
    length : int
        N.
    """

    index: HistoryIndex
    length: int

    def __len__(self) -> int:
        return len(self.index.starts) - 1

    def __getitem__(self, owners: Tensor) -> Tensor:
        """Padded histories of owners, int32 [B, N]."""
        return torch.from_numpy(self.index.newest(owners.numpy(), self.length))


UserHistories = Tensor | Ragged | LatestRows
"""Histories of users: padded int32 [U, N], as a tensor or made on demand, or full ragged rows."""


class Histories:
    """Histories of a log: the items N(u) of every user, and the users N(i) of every item.

    N(i) is computed at its first use.

    Parameters
    ----------
    log : Interactions
        The rows that histories may hold.
    """

    def __init__(self, log: Interactions) -> None:
        self._log = log
        self.users = HistoryIndex(log.user_starts, log.items, None, log.n_items, timed=True)

    @cached_property
    def items(self) -> HistoryIndex:
        """Histories of items: the users N(i) of every item."""
        log = self._log
        timed = log.time_scope == "global" and log.times is not None
        if timed:
            rows = np.lexsort((log.users, log.times, log.items))  # type: ignore[arg-type]
        else:
            # Times of different users are not comparable, so users stand in the order of indices.
            rows = np.argsort(log.items, kind="stable")
        starts = row_starts(np.bincount(log.items, minlength=log.n_items))
        return HistoryIndex(starts, log.users[rows], rows, log.n_users, timed=timed)


def input_histories(
    log: Interactions, settings: HistorySettings | None
) -> tuple[UserHistories | None, Tensor | LatestRows | None]:
    """Histories N(u) of all users and N(i) of all items in `log`, for evaluation and serving.

    Random subsets are drawn from a fixed seed, so every run on this log gets the same histories.

    Returns
    -------
    users : int32 [m, N], LatestRows, Ragged or None
        None if the model reads no histories.
    items : int32 [n, N], LatestRows or None
        None if the model does not read N(i).
    """
    if settings is None:
        return None, None
    histories = Histories(log)
    if settings.policy == "full":
        return histories.users.full(), None
    users = histories.users.shown(settings, generator(0, "shown.users"))
    if not settings.items:
        return users, None
    return users, histories.items.shown(settings, generator(0, "shown.items"))


def input_history(log: Interactions, settings: HistorySettings, user: int) -> Tensor:
    """Row of `input_histories` for one user, with its padding."""
    if settings.policy == "sampled" or settings.shuffle:  # drawn for all users together
        histories, _ = input_histories(log, settings)
    else:
        histories, user = fold_in([log.items_of(user)], settings, log.n_items), 0
    assert histories is not None
    rows = histories[torch.tensor([user])]
    return rows.values if isinstance(rows, Ragged) else rows[0]


def fold_in(histories: list[Int64], settings: HistorySettings, pad: int) -> Tensor | Ragged:
    """Input histories of users that are not in the log.

    They are int32 [U, N], cut and padded; or ragged rows with all items for the policy "full".

    Each array in `histories` holds distinct item indices of one user. Random choices depend only on
    the length of a history, so a user gets the same rows alone and in a batch.
    """
    if settings.policy == "full":
        return Ragged.of_rows(histories)
    padded = np.full((len(histories), settings.length), pad, dtype=np.int32)
    for row, members in enumerate(histories):
        kept = members
        if len(members) > settings.length and settings.policy == "sampled":
            rng = generator(0, "shown.new", len(members))
            kept = members[np.sort(rng.permutation(len(members))[: settings.length])]
        kept = kept[-settings.length :]
        if settings.shuffle:
            kept = generator(0, "shown.new.order", len(kept)).permutation(kept)
        if len(kept) > 0:  # an index of -0 would select the whole row
            padded[row, -len(kept) :] = kept
    return torch.from_numpy(padded)


def masked_number(counts: Int64, targets: Int64, share: Float64, rng: np.random.Generator) -> Int64:
    """Number of rows that each history leaves out in a training step, int64 [U]; at least one.

    The number is drawn without regard to `targets`, the batch's positives in each history. The
    positives count towards it. Otherwise the length of a history would reveal whether a positive is
    missing.
    """
    drawn = 1 + np.floor(counts * share + rng.random(len(counts))).astype(np.int64)
    return np.maximum(targets, drawn)


def random_subset(keep: Bool, sizes: Int64, rng: np.random.Generator) -> Bool:
    """Keep `sizes[r]` random positions among the true positions of row r; bool like `keep`.

    A row with fewer true positions keeps all of them.
    """
    # The positions with the smallest random keys are a uniform subset. Keys lie in [0, 1), so a
    # key of 2 puts positions that are not kept behind all others.
    keys = rng.random(keep.shape, dtype=np.float32)
    keys[~keep] = 2.0
    ordered = np.sort(keys, axis=1)
    last = np.take_along_axis(ordered, np.maximum(sizes - 1, 0)[:, None], axis=1)
    return np.asarray(keep & (keys <= last) & (sizes > 0)[:, None])


def right_aligned(values: Int32, keep: Bool, length: int, pad: int) -> Int32:
    """The last `length` values of each row where `keep` is true, with `pad` in front."""
    # 1 for the last kept value of a row, 2 for the one before it, and so on.
    from_end = np.cumsum(keep[:, ::-1], axis=1)[:, ::-1]
    row, column = np.nonzero(keep & (from_end <= length))
    aligned = np.full((len(values), length), pad, dtype=np.int32)
    aligned[row, length - from_end[row, column]] = values[row, column]
    return aligned


def shuffled(rows: Int32, pad: int, rng: np.random.Generator) -> Int32:
    """Each row in a random order; the padding stays in front."""
    keys = rng.random(rows.shape, dtype=np.float32)
    keys[rows == pad] = -1  # below all random keys; the stable sort keeps padding together
    return np.asarray(np.take_along_axis(rows, np.argsort(keys, axis=1, kind="stable"), axis=1))

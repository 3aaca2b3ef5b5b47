"""Histories N(u) and N(i): which rows a model sees, in which order, and how they are padded.

Training, evaluation and serving all take their histories from here. Two leaks of the label are
closed here as well (ADR 0003). A training batch's own positives are left out of the histories of
both sides. Random other rows are left out too, and their number does not depend on the positives:
otherwise a missing row would give the answer away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.interactions import Interactions, row_starts
from comet_rec.data.ragged import Ragged
from comet_rec.data.sampling import distinct_integers
from comet_rec.random import generator

HistoryPolicy = Literal["sampled", "recent", "causal"]
"""Policies for padded histories."""
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

BLOCK = 1 << 16
"""Histories that are padded at a time."""


@dataclass(frozen=True, kw_only=True)
class HistorySettings:
    """Which histories a model needs.

    Parameters
    ----------
    length : int
        Most rows of a padded history, N.
    policy : {"sampled", "recent", "causal", "full"}
        - ``"sampled"``: a random subset, new in each training step and fixed at evaluation.
        - ``"recent"``: the latest rows.
        - ``"causal"``: for users, in training the rows just before each positive and at
          evaluation the latest; for items a random subset.
        - ``"full"``: all of N(u) as ragged rows and nothing of N(i). `length` is not used, and
          the model itself leaves each pair's own item out.
    exclude_target : bool
        Leave a training batch's positives out of its histories.
    dropout : float
        Largest share of a history's other rows that a training step leaves out. Each history
        draws its own share uniformly from [0, dropout].
    shuffle : bool
        Put the rows in a random order.
    items : bool
        Whether the model reads N(i).
    """

    length: int
    policy: Literal["sampled", "recent", "causal", "full"]
    exclude_target: bool
    dropout: float
    shuffle: bool = False
    items: bool = True


FULL = HistorySettings(length=0, policy="full", exclude_target=False, dropout=0.0)
"""All of N(u), nothing of N(i)."""


UserHistories = Tensor | Ragged
"""Histories of users: padded int32 [U, N], or full."""


@dataclass(frozen=True, eq=False)
class HistoryIndex:
    """Where each user's items stand, or each item's users: one side of a log.

    "Owner" is the user whose items, or the item whose users, a history holds.

    Parameters
    ----------
    starts : int64 [n + 1]
        Where each owner's rows begin.
    members : int32 [R]
        Items of a user, or users of an item: in time order where the log's times allow it,
        otherwise in the order of indices.
    rows : int64 [R] or None
        Row of the log at each place; None where the place itself is the row.
    pad : int
        Index that means "no row": the number of possible members.
    timed : bool
        Whether the rows are in time order. If not, "recent" has no meaning and a random subset
        takes its place.
    """

    starts: Int64
    members: Int32
    rows: Int64 | None
    pad: int
    timed: bool

    def counts(self, owners: Int64) -> Int64:
        """Number of rows in each owner's history."""
        return np.asarray(self.starts[owners + 1] - self.starts[owners])

    def before(self, rows: Int64, owners: Int64, length: int) -> Int32:
        """The `length` latest members before each row, int32 [B, length], padded in front.

        Parameters
        ----------
        rows : int64 [B]
            Places in `members`.
        owners : int64 [B]
            Owner of each row.
        """
        places = rows[:, None] + np.arange(-length, 0)  # [B, length]
        earlier = places >= self.starts[owners, None]  # the others belong to the owner before
        return np.where(earlier, self.members[np.maximum(places, 0)], np.int32(self.pad))

    def full(self) -> Ragged:
        """All histories without a limit of length."""
        return Ragged.of_arrays(self.members.astype(np.int64), self.starts)

    def fixed(self, settings: HistorySettings, rng: np.random.Generator) -> Int32:
        """Histories of all owners for evaluation and serving, int32 [n, N]."""
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
        # A history that fits is complete already. Only longer ones need a random subset.
        long = owners[self.counts(owners) > settings.length]
        if len(long) > 0:
            places = distinct_integers(self.counts(long), settings.length, rng)
            padded[long] = self.members[self.starts[long, None] + places]
        return padded

    def _latest(self, settings: HistorySettings) -> bool:
        """Whether evaluation takes the latest rows."""
        if settings.policy == "causal":
            return self.rows is None  # only the user side stands in the order of the log
        return settings.policy == "recent" and self.timed

    def drawn(
        self,
        owners: Int64,
        masked: Bool | None,
        settings: HistorySettings,
        rng: np.random.Generator,
    ) -> Int32:
        """Histories for one training step, int32 [U, N], padded in front.

        Parameters
        ----------
        owners : int64 [U]
            Distinct owners.
        masked : bool [rows of the log] or None
            The batch's positives; None leaves nothing out.
        """
        share = rng.random(len(owners)) * settings.dropout if settings.exclude_target else None
        if settings.policy == "recent" and self.timed:
            padded = self._newest(owners, settings.length, 2 * settings.length, masked, share, rng)
        else:
            padded = self._sampled(owners, settings.length, masked, share, rng)
        return shuffled(padded, self.pad, rng) if settings.shuffle else padded

    def _open(self, places: Int64, masked: Bool | None) -> Bool:
        """Whether the row at each place may be an input, bool shaped like `places`."""
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
        """Latest `length` open rows out of the latest `window`, int32 [U, length]."""
        if len(self.members) == 0:
            return np.full((len(owners), length), self.pad, dtype=np.int32)
        # Places counted back from the end of each history; those before its start are not kept.
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
        """Random subset of at most `length` open rows in the order of the history, [U, length]."""
        counts = self.counts(owners)
        window = 2 * length
        padded = np.full((len(owners), length), self.pad, dtype=np.int32)
        # Short histories first, then long ones: the order of the draws is part of the numbers.
        for is_long in (False, True):
            group = np.flatnonzero((counts > window) == is_long)
            if len(group) == 0 or len(self.members) == 0:
                continue
            group_counts = counts[group, None]
            if is_long:
                # Far more rows than needed: draw twice as many with repeats, drop the repeats.
                place = np.sort(rng.integers(0, group_counts, size=(len(group), window)), axis=1)
                keep = np.ones(place.shape, dtype=bool)
                keep[:, 1:] = place[:, 1:] > place[:, :-1]
            else:
                # All rows of the history are candidates.
                place = np.broadcast_to(np.arange(window), (len(group), window))
                keep = place < group_counts
                place = np.where(keep, place, 0)
            # `minimum`: an empty history at the end of the log would point past the last row.
            places = np.minimum(self.starts[owners[group], None] + place, len(self.members) - 1)
            is_open = self._open(places, masked)
            left = group_counts[:, 0]
            if share is not None:
                # A long history fills `length` rows however many are masked, so its targets
                # need not be counted.
                targets = np.zeros_like(left) if is_long else (keep & ~is_open).sum(axis=1)
                left = left - masked_number(left, targets, share[group], rng)
            keep = random_subset(keep & is_open, np.clip(left, 0, length), rng)
            padded[group] = right_aligned(self.members[places], keep, length, self.pad)
        return padded


class Histories:
    """Both sides of a log: N(u) for every user, N(i) for every item (sorted when first used).

    Parameters
    ----------
    log : Interactions
        The rows that may be inputs.
    """

    def __init__(self, log: Interactions) -> None:
        self._log = log
        self.users = HistoryIndex(log.user_starts, log.items, None, log.n_items, timed=True)

    @cached_property
    def items(self) -> HistoryIndex:
        """N(i) of every item."""
        log = self._log
        timed = log.time_scope == "global" and log.times is not None
        if timed:
            rows = np.lexsort((log.users, log.times, log.items))  # type: ignore[arg-type]
        else:
            # Times of different users do not compare: their order of indices takes over.
            rows = np.argsort(log.items, kind="stable")
        starts = row_starts(np.bincount(log.items, minlength=log.n_items))
        return HistoryIndex(starts, log.users[rows], rows, log.n_users, timed=timed)


def input_histories(
    log: Interactions, settings: HistorySettings | None
) -> tuple[UserHistories | None, Tensor | None]:
    """All N(u) and N(i) for evaluation and serving: one fixed draw, the same for every seed.

    Returns
    -------
    users : int32 [m, N], Ragged or None
        None where the model reads no histories.
    items : int32 [n, N] or None
    """
    if settings is None:
        return None, None
    histories = Histories(log)
    if settings.policy == "full":
        return histories.users.full(), None
    users = torch.from_numpy(histories.users.fixed(settings, generator(0, "shown.users")))
    if not settings.items:
        return users, None
    return users, torch.from_numpy(histories.items.fixed(settings, generator(0, "shown.items")))


def fold_in(histories: list[Int64], settings: HistorySettings, pad: int) -> UserHistories:
    """Histories of users that the log does not hold, padded int32 [U, N] or full.

    Each history has distinct items in the order given. How it is cut and shuffled depends on its
    length alone, so a batch gives the same as one user at a time.
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
        if len(kept) > 0:  # [-0:] would be the whole row
            padded[row, -len(kept) :] = kept
    return torch.from_numpy(padded)


def masked_number(counts: Int64, targets: Int64, share: Float64, rng: np.random.Generator) -> Int64:
    """Number of rows that each history leaves out, int64 [U]: at least one, targets or not.

    The number is drawn without regard to the targets, which then count into it. So the length of
    a history does not tell whether it had a target: of items, only those with a positive do.
    """
    drawn = 1 + np.floor(counts * share + rng.random(len(counts))).astype(np.int64)
    return np.maximum(targets, drawn)


def random_subset(keep: Bool, sizes: Int64, rng: np.random.Generator) -> Bool:
    """Random `sizes[r]` of the kept places of row r; all of them where fewer are kept."""
    # The places with the smallest random keys are a uniform subset. Keys lie in [0, 1), so 2
    # puts places that are not kept behind all others.
    keys = rng.random(keep.shape, dtype=np.float32)
    keys[~keep] = 2.0
    ordered = np.sort(keys, axis=1)
    last = np.take_along_axis(ordered, np.maximum(sizes - 1, 0)[:, None], axis=1)
    return np.asarray(keep & (keys <= last) & (sizes > 0)[:, None])


def right_aligned(values: Int32, keep: Bool, length: int, pad: int) -> Int32:
    """Last `length` kept values of each row at the end of the row, `pad` in front."""
    # 1 for the last kept value of a row, 2 for the one before it, …
    from_end = np.cumsum(keep[:, ::-1], axis=1)[:, ::-1]
    row, column = np.nonzero(keep & (from_end <= length))
    aligned = np.full((len(values), length), pad, dtype=np.int32)
    aligned[row, length - from_end[row, column]] = values[row, column]
    return aligned


def shuffled(rows: Int32, pad: int, rng: np.random.Generator) -> Int32:
    """Members of each row in a random order, the padding still in front."""
    keys = rng.random(rows.shape, dtype=np.float32)
    keys[rows == pad] = -1  # below all random keys; the stable sort keeps padding together
    return np.asarray(np.take_along_axis(rows, np.argsort(keys, axis=1, kind="stable"), axis=1))

"""Histories N(u) and N(i): who is in them, which rows are shown, how they are padded.

One place for training, evaluation and serving. The two label leaks are closed here (ADR 0003):
a batch's own positives are left out of the shown histories on both sides, and so are random
other rows, their number drawn without regard to the targets; else what is missing from a short
history would name the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.bags import Bags
from comet_rec.data.choosing import hidden_number, random_subset, right_aligned, shuffled
from comet_rec.data.interactions import Interactions
from comet_rec.data.randomness import generator
from comet_rec.data.sampling import distinct_integers

HistoryPolicy = Literal["sampled", "recent", "causal"]
"""Policies of a history that is cut to a length."""
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class HistorySettings:
    """Settings of the input history of a model.

    Parameters
    ----------
    length : int
        Most rows shown, N.
    policy : {"sampled", "recent", "causal", "whole"}
        A random subset (fresh each training step, one fixed draw at evaluation); the latest; in
        training what came just before each positive and at evaluation the latest, for users,
        and a random subset for items; or all of N(u), as `Bags`, and nothing of N(i): `length`
        means nothing then, and the model leaves each pair's own target out.
    exclude_target : bool
        Leave the batch's positives out of the histories shown in training.
    leave_out : float
        Largest share of a history's other rows hidden in a training step; each history draws
        its own share uniformly from [0, leave_out].
    shuffle : bool
        Put the shown rows in a random order.
    items : bool
        Show N(i) at all.
    """

    length: int
    policy: Literal["sampled", "recent", "causal", "whole"]
    exclude_target: bool
    leave_out: float
    shuffle: bool = False
    items: bool = True


BLOCK = 1 << 16  # owners whose latest rows are looked for at a time

WHOLE = HistorySettings(length=0, policy="whole", exclude_target=False, leave_out=0.0)
"""All of N(u), nothing of N(i)."""


@dataclass(frozen=True, eq=False)
class Side:
    """Histories of all users, or of all items.

    Parameters
    ----------
    starts : int64 [n + 1]
        Where each owner's rows begin.
    members : int32 [R]
        Members of the rows: items of a user, or users of an item; in time order where the log's
        time allows, else in the order of indices.
    rows : int64 [R] or None
        Row of the log behind each place; None where that is the place itself.
    pad : int
        Index that stands for "no row": the number of possible members.
    timed : bool
        Whether the rows are in time order; where they are not, "recent" means nothing and a
        sample is shown.
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
        """Latest `length` members before each row of its owner, int32 [len(rows), length].

        Parameters
        ----------
        rows : int64 [B]
            Places in `members`.
        owners : int64 [B]
            Owners of the rows.
        """
        places = rows[:, None] + np.arange(-length, 0)
        earlier = places >= self.starts[owners, None]
        return np.where(earlier, self.members[np.maximum(places, 0)], np.int32(self.pad))

    def whole(self) -> Bags:
        """All histories."""
        return Bags(self.members.astype(np.int64), self.starts)

    def fixed(self, settings: HistorySettings, rng: np.random.Generator) -> Int32:
        """The history that evaluation and serving show, for every owner, int32 [n, N]."""
        out = self._fixed(settings, rng)
        return shuffled(out, self.pad, rng) if settings.shuffle else out

    def _latest(self, settings: HistorySettings) -> bool:
        """Whether evaluation shows the latest rows."""
        if settings.policy == "causal":
            return self.rows is None  # the side of users
        return settings.policy == "recent" and self.timed

    def _fixed(self, settings: HistorySettings, rng: np.random.Generator) -> Int32:
        owners = np.arange(len(self.starts) - 1)
        out = np.empty((len(owners), settings.length), dtype=np.int32)
        for first in range(0, len(owners), BLOCK):
            some = owners[first : first + BLOCK]
            out[some] = self._newest(some, settings.length, settings.length)
        if self._latest(settings):
            return out
        long = owners[self.counts(owners) > settings.length]
        if len(long) > 0:
            places = distinct_integers(self.counts(long), settings.length, rng)
            out[long] = self.members[self.starts[long, None] + places]
        return out

    def drawn(
        self,
        owners: Int64,
        hidden: Bool | None,
        settings: HistorySettings,
        rng: np.random.Generator,
    ) -> Int32:
        """Histories for one training step, int32 [len(owners), N], padded in front.

        Parameters
        ----------
        owners : int64 [U]
            Distinct owners.
        hidden : bool [rows of the log] or None
            The batch's positives; None shows them.
        """
        share = rng.random(len(owners)) * settings.leave_out if settings.exclude_target else None
        if settings.policy == "recent" and self.timed:
            out = self._newest(owners, settings.length, 2 * settings.length, hidden, share, rng)
        else:
            out = self._sampled(owners, settings.length, hidden, share, rng)
        return shuffled(out, self.pad, rng) if settings.shuffle else out

    def _open(self, places: Int64, hidden: Bool | None) -> Bool:
        if hidden is None:
            return np.ones(places.shape, dtype=bool)
        return np.asarray(~hidden[places if self.rows is None else self.rows[places]])

    def _newest(
        self,
        owners: Int64,
        length: int,
        window: int,
        hidden: Bool | None = None,
        share: npt.NDArray[np.float64] | None = None,
        rng: np.random.Generator | None = None,
    ) -> Int32:
        """Latest `length` shown rows out of the latest `window`."""
        places = self.starts[owners + 1, None] + np.arange(-window, 0)
        keep = places >= self.starts[owners, None]
        places = np.maximum(places, 0)
        if len(self.members) == 0:
            return np.full((len(owners), length), self.pad, dtype=np.int32)
        inside = keep.sum(axis=1)
        keep &= self._open(places, hidden)
        if share is not None and rng is not None:
            left = inside - hidden_number(inside, inside - keep.sum(axis=1), share, rng)
            keep = random_subset(keep, np.maximum(left, 0), rng)
        return right_aligned(self.members[places], keep, length, self.pad)

    def _sampled(
        self,
        owners: Int64,
        length: int,
        hidden: Bool | None,
        share: npt.NDArray[np.float64] | None,
        rng: np.random.Generator,
    ) -> Int32:
        """Random subset of at most `length` shown rows, in the order of the history."""
        counts = self.counts(owners)
        window = 2 * length
        out = np.full((len(owners), length), self.pad, dtype=np.int32)
        for long in (False, True):
            group = np.flatnonzero((counts > window) == long)
            if len(group) == 0 or len(self.members) == 0:
                continue
            n = counts[group, None]
            if long:
                # Far more rows than are shown: draws with repeats, the repeats struck out.
                place = np.sort(rng.integers(0, n, size=(len(group), window)), axis=1)
                keep = np.ones(place.shape, dtype=bool)
                keep[:, 1:] = place[:, 1:] > place[:, :-1]
            else:
                place = np.broadcast_to(np.arange(window), (len(group), window))
                keep = place < n
                place = np.where(keep, place, 0)
            places = np.minimum(self.starts[owners[group], None] + place, len(self.members) - 1)
            is_open = self._open(places, hidden)
            left = n[:, 0]
            if share is not None:
                # A long history shows `length` rows whatever is hidden, but for a few repeats.
                targets = np.zeros_like(left) if long else (keep & ~is_open).sum(axis=1)
                left = left - hidden_number(left, targets, share[group], rng)
            shown = np.clip(left, 0, length)
            keep = random_subset(keep & is_open, shown, rng)
            out[group] = right_aligned(self.members[places], keep, length, self.pad)
        return out


class Histories:
    """Both sides of a log: N(u) for every user, N(i) for every item, sorted when asked for.

    Parameters
    ----------
    log : Interactions
        The part of a log that may be shown.
    """

    def __init__(self, log: Interactions) -> None:
        self._log = log
        self.users = Side(log.user_starts, log.items, None, log.n_items, timed=True)

    @cached_property
    def items(self) -> Side:
        """N(i)."""
        log = self._log
        timed = log.time_scope == "global" and log.times is not None
        if timed:
            rows = np.lexsort((log.users, log.times, log.items))  # type: ignore[arg-type]
        else:
            # Times do not compare across users: the order of users stands in.
            rows = np.argsort(log.items, kind="stable")
        counts = np.bincount(log.items, minlength=log.n_items)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return Side(starts, log.users[rows], rows, log.n_users, timed=timed)


def shown(
    log: Interactions, settings: HistorySettings | None
) -> tuple[Int32 | Bags | None, Int32 | None]:
    """Every N(u) and N(i) for evaluation and serving: one fixed draw, whatever the seed.

    int32 [m, N] and [n, N]; bags and None for the policy "whole".
    """
    if settings is None:
        return None, None
    histories = Histories(log)
    if settings.policy == "whole":
        return histories.users.whole(), None
    of_users = histories.users.fixed(settings, generator(0, "shown.users"))
    return (
        of_users,
        histories.items.fixed(settings, generator(0, "shown.items")) if settings.items else None,
    )


def fold_in(histories: list[Int64], settings: HistorySettings, pad: int) -> Int32 | Bags:
    """Histories of users that the log never saw, int32 [len(histories), N] or bags.

    Each is in the order given, without repeats; cut and shuffled by its length alone, as the policy
    has it, so a batch gives what each alone gives.
    """
    if settings.policy == "whole":
        return Bags.of(histories)
    out = np.full((len(histories), settings.length), pad, dtype=np.int32)
    for row, members in enumerate(histories):
        kept = members
        if len(members) > settings.length and settings.policy == "sampled":
            rng = generator(0, "shown.new", len(members))
            kept = members[np.sort(rng.permutation(len(members))[: settings.length])]
        kept = kept[-settings.length :]
        if settings.shuffle:
            kept = generator(0, "shown.new.order", len(kept)).permutation(kept)
        if len(kept) > 0:
            out[row, -len(kept) :] = kept
    return out

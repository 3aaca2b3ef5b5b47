"""Draws of items: uniform over what a user has not touched, or by popularity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from comet_rec.data.interactions import Interactions

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
BLOCK = 16_384
"""Users at a time."""


class Complement:
    """For each user the items that are *not* in a set of pairs, ready for uniform draws.

    The r-th missing item of a user is found by one binary search over `item − position`, so a
    draw is exact and never repeated, however few items are missing.

    Parameters
    ----------
    users, items : int [R]
        The pairs; repeats are allowed, order is free.
    n_users, n_items : int
        Sizes of the two sides.
    """

    def __init__(
        self,
        users: npt.NDArray[np.integer],
        items: npt.NDArray[np.integer],
        n_users: int,
        n_items: int,
    ) -> None:
        keys = users.astype(np.int64) * n_items + items
        if not np.all(keys[1:] > keys[:-1]):
            keys = np.sort(keys, kind="stable")  # merges runs; np.unique hashes them
            keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        owner, item = np.divmod(keys, n_items)
        counts = np.bincount(owner, minlength=n_users)
        self.n_items = n_items
        self._keys = keys
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        position = np.arange(len(keys)) - self._starts[owner]
        self._missing_before = owner * (n_items + 1) + item - position

    def size(self, users: npt.NDArray[np.integer]) -> Int64:
        """Number of missing items, int64 shaped like `users`."""
        return np.asarray(self.n_items - (self._starts[users + 1] - self._starts[users]))

    def pick(self, users: npt.NDArray[np.integer], ranks: npt.NDArray[np.integer]) -> Int64:
        """The `ranks`-th missing item of each user, counted from 0 in the order of indices."""
        key = users.astype(np.int64) * (self.n_items + 1) + ranks
        passed = np.searchsorted(self._missing_before, key, side="right") - self._starts[users]
        return np.asarray(ranks + passed, dtype=np.int64)

    def touched(
        self, users: npt.NDArray[np.integer], items: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """Whether each pair is in the set, bool [P]."""
        keys = users.astype(np.int64) * self.n_items + items
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[at] == keys)

    def lists(self) -> tuple[Int64, Int64]:
        """The set itself: items, user by user and ascending, and where each user's begin."""
        return self._keys % self.n_items, self._starts

    def draw(
        self, users: npt.NDArray[np.integer], per_user: int, rng: np.random.Generator
    ) -> Int64:
        """Independent uniform draws with replacement, int64 [len(users), per_user].

        A user without a missing item gets −1.
        """
        sizes = self.size(users)[:, None]
        ranks = rng.integers(0, np.maximum(sizes, 1), size=(len(users), per_user))
        drawn = self.pick(np.broadcast_to(users[:, None], ranks.shape), ranks)
        return np.where(sizes > 0, drawn, -1)

    def draw_distinct(
        self, users: npt.NDArray[np.integer], per_user: int, rng: np.random.Generator
    ) -> Int32:
        """Uniform draws without replacement, sorted, int32 [len(users), per_user].

        A user with fewer missing items gets all of them; the rest of the row is `n_items`.
        """
        sizes = self.size(users)
        out = np.full((len(users), per_user), self.n_items, dtype=np.int32)
        few = sizes <= per_user
        for row in np.flatnonzero(few):
            ranks = np.arange(sizes[row])
            out[row, : sizes[row]] = self.pick(np.full(len(ranks), users[row]), ranks)
        many = np.flatnonzero(sizes >= 2 * per_user)
        if len(many) > 0:
            ranks = distinct_integers(sizes[many], per_user, rng)
            for first in range(0, len(many), BLOCK):
                rows, some = many[first : first + BLOCK], ranks[first : first + BLOCK]
                out[rows] = self.pick(np.broadcast_to(users[rows, None], some.shape), some)
        # Most of what is missing: repeats would be drawn again and again.
        for row in np.flatnonzero(~few & (sizes < 2 * per_user)):
            some = np.sort(rng.choice(sizes[row], per_user, replace=False))
            out[row] = self.pick(np.full(per_user, users[row]), some)
        return out


def untouched_items(log: Interactions) -> Complement:
    """For each user the items touched nowhere in the raw log, dropped rows included."""
    return Complement(
        np.concatenate([log.users, log.dropped_users]),
        np.concatenate([log.items, log.dropped_items]),
        log.n_users,
        log.n_items,
    )


class Popularity:
    """Items in proportion to a power of how many rows they have.

    Choice: an item without a row counts as one with a single row, so that every item is drawn.

    Parameters
    ----------
    counts : int64 [n]
        Rows of each item.
    power : float
        0 is uniform, 1 the log itself.
    """

    def __init__(self, counts: Int64, power: float) -> None:
        weights = np.maximum(counts, 1) ** float(power)
        self.shares = weights / weights.sum()
        self._ends = np.cumsum(self.shares)

    def draw(self, count: int, rng: np.random.Generator) -> Int64:
        """Independent draws with replacement, int64 [count]."""
        return _inverted(self._ends, rng.random(count))

    def draw_missing(self, complement: Complement, users: Int64, rng: np.random.Generator) -> Int64:
        """One draw a user from what is missing, in the same proportions, int64 [len(users)].

        A pass over the catalogue for each distinct user; −1 where nothing is missing.
        """
        out = np.full(len(users), -1, dtype=np.int64)
        for user in np.unique(users[complement.size(users) > 0]):
            places = np.flatnonzero(users == user)
            ranks = np.arange(int(complement.size(user)))
            missing = complement.pick(np.full(len(ranks), user), ranks)
            ends = np.cumsum(self.shares[missing])
            out[places] = missing[_inverted(ends, rng.random(len(places)))]
        return out


def _inverted(ends: npt.NDArray[np.float64], uniform: npt.NDArray[np.float64]) -> Int64:
    """Places in a running sum where uniform numbers, scaled to its end, fall."""
    return np.asarray(np.searchsorted(ends[:-1], uniform * ends[-1], side="right"), dtype=np.int64)


def distinct_integers(bounds: Int64, count: int, rng: np.random.Generator) -> Int64:
    """Uniform sets of `count` distinct integers below each bound, sorted, [len(bounds), count].

    Repeated values are drawn again until none is left: what stands is kept, so the result is
    uniform over sets. Every bound must be at least `count`.
    """
    drawn = np.empty((len(bounds), count), dtype=np.int64)
    rows, again = np.arange(len(bounds)), np.ones((len(bounds), count), dtype=bool)
    while len(rows) > 0:
        for first in range(0, len(rows), BLOCK):
            some, old = rows[first : first + BLOCK], again[first : first + BLOCK]
            fresh = rng.integers(0, bounds[some, None], size=old.shape)
            drawn[some] = np.sort(np.where(old, fresh, drawn[some]), axis=1)
            old[:, :1], old[:, 1:] = False, drawn[some, 1:] == drawn[some, :-1]
        repeated = again.any(axis=1)
        rows, again = rows[repeated], again[repeated]
    return drawn

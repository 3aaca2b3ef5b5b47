"""Sampling of items: negatives of a user, evaluation candidates, items of a sampled softmax."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from comet_rec import memory
from comet_rec.data.interactions import Interactions, row_places, row_starts

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
SamplingName = Literal["uniform", "popularity", "in-batch"]

BLOCK = 16_384
"""Number of users that are processed at a time, to limit memory."""
BLOCK_ROWS = 1 << 22
"""Number of pairs that are sorted at a time, to limit memory."""
ROUNDS = 20
"""Largest number of rounds of rejection sampling. The negatives that are still missing are then
drawn by a slower method without rejection. Only users with nearly all items need so many rounds."""


class Complement:
    """Exact uniform sampling from the items that a user does *not* have in a given set of pairs.

    The "missing items" of a user are the items without a pair of that user. If item i is at
    position p of the user's sorted items, then i − p items are missing below i. The missing item of
    rank r is r plus the number of positions with i − p ≤ r, which a binary search finds. So no draw
    needs rejection, even if few items are missing.

    The sorted items take four bytes for each pair; everything else is computed from them.

    Parameters
    ----------
    users, items : int [R]
        The pairs, in any order; repeats are allowed.
    n_users, n_items : int
    """

    def __init__(
        self,
        users: npt.NDArray[np.integer],
        items: npt.NDArray[np.integer],
        n_users: int,
        n_items: int,
    ) -> None:
        if not bool(np.all(users[1:] >= users[:-1])):
            order = np.argsort(users, kind="stable")
            users, items = users[order], items[order]
        self.n_items = n_items
        self._items, counts = _sorted_rows(users, items, n_users, n_items)
        self._starts = row_starts(counts)

    def size(self, users: npt.NDArray[np.integer]) -> Int64:
        """Number of missing items of each user, int64 shaped like `users`."""
        return np.asarray(self.n_items - (self._starts[users + 1] - self._starts[users]))

    def pick(self, users: npt.NDArray[np.integer], ranks: npt.NDArray[np.integer]) -> Int64:
        """The missing item of rank ``ranks[p]`` of each user; rank 0 has the lowest item index."""
        return np.asarray(ranks + self._passed(users, ranks, missing=True), dtype=np.int64)

    def excludes(
        self, users: npt.NDArray[np.integer], items: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.bool_]:
        """Whether each (user, item) pair is excluded, that is, never drawn as a negative; [P]."""
        last = self._starts[users] + self._passed(users, items, missing=False) - 1
        found = last >= self._starts[users]
        return np.asarray(found & (self._items[np.maximum(last, 0)] == items))

    def rows(self) -> tuple[Int32, Int64]:
        """The excluded pairs as ragged rows: each user's items, ascending, and the row starts."""
        return self._items, self._starts

    def _passed(
        self, users: npt.NDArray[np.integer], bounds: npt.NDArray[np.integer], *, missing: bool
    ) -> Int64:
        """Number of each user's positions p whose item is at most the bound.

        With `missing`, the number of missing items below the item is compared instead.
        """
        starts = self._starts[users]
        # The number lies between low and high; each round halves the range.
        low, high = np.zeros_like(starts), self._starts[users + 1] - starts
        last = max(len(self._items) - 1, 0)
        for _ in range(int(high.max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            values = self._items[np.minimum(starts + middle, last)]
            passed = (values - middle if missing else values) <= bounds
            passed &= middle < high  # a finished range stays as it is
            low = np.where(passed, middle + 1, low)
            high = np.where(passed, high, middle)
        return np.asarray(low)

    def draw(
        self, users: npt.NDArray[np.integer], per_user: int, rng: np.random.Generator
    ) -> Int64:
        """Draw `per_user` missing items of each user, uniformly and with replacement.

        The result is int64 [len(users), per_user]. A user without a missing item gets −1.
        """
        sizes = self.size(users)[:, None]
        ranks = rng.integers(0, np.maximum(sizes, 1), size=(len(users), per_user))
        drawn = self.pick(np.broadcast_to(users[:, None], ranks.shape), ranks)
        return np.where(sizes > 0, drawn, -1)

    def draw_distinct(
        self, users: npt.NDArray[np.integer], per_user: int, rng: np.random.Generator
    ) -> Int32:
        """Draw up to `per_user` distinct missing items of each user, uniformly; each row is sorted.

        The result is int32 [len(users), per_user]. A user with fewer missing items gets all of
        them, and `n_items` fills the rest of the row.
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
                rows, block = many[first : first + BLOCK], ranks[first : first + BLOCK]
                out[rows] = self.pick(np.broadcast_to(users[rows, None], block.shape), block)
        # More than half of the missing items: drawing repeats again would take very many rounds.
        for row in np.flatnonzero(~few & (sizes < 2 * per_user)):
            row_ranks = np.sort(rng.choice(sizes[row], per_user, replace=False))
            out[row] = self.pick(np.full(per_user, users[row]), row_ranks)
        return out


def _sorted_rows(
    users: npt.NDArray[np.integer], items: npt.NDArray[np.integer], n_users: int, n_items: int
) -> tuple[Int32, Int64]:
    """Distinct items of each user, ascending, and their numbers; `users` ascends.

    The pairs are sorted in blocks of whole users, to limit memory.
    """
    counts = np.bincount(users, minlength=n_users)
    starts = row_starts(counts)
    sorted_items = memory.empty(len(items), np.int32)
    filled = first = 0
    while first < n_users:
        # As many users as have `BLOCK_ROWS` rows; at least one.
        end = int(np.searchsorted(starts, starts[first] + BLOCK_ROWS, side="right")) - 1
        end = max(first + 1, end)
        rows = slice(int(starts[first]), int(starts[end]))
        keys = users[rows].astype(np.int64) * n_items + items[rows]  # one number for each pair
        keys.sort(kind="stable")  # fast where the keys are sorted in long runs
        distinct = np.ones(len(keys), dtype=bool)
        distinct[1:] = keys[1:] != keys[:-1]
        owners, kept = np.divmod(keys[distinct], n_items)
        counts[first:end] = np.bincount(owners - first, minlength=end - first)
        sorted_items[filled : filled + len(kept)] = kept
        filled, first = filled + len(kept), end
    return sorted_items[:filled], counts


def unobserved_items(log: Interactions) -> Complement:
    """For each user, the items to sample negatives from: those without an interaction in `log`.

    Pairs that a filter removed from the log count as interactions.
    """
    users, items = log.users, log.items
    if len(log.dropped_users) > 0:
        users = np.concatenate([users, log.dropped_users])
        items = np.concatenate([items, log.dropped_items])
    return Complement(
        users,
        items,
        log.n_users,
        log.n_items,
    )


class Popularity:
    """Sampling of items in proportion to a power of their number of rows in the log.

    Choice: an item without a row counts as one with a single row, so that every item can be drawn.

    Parameters
    ----------
    counts : int64 [n]
        Number of rows of each item.
    power : float
        0 gives every item the same probability, 1 a probability in proportion to its rows.
    """

    def __init__(self, counts: Int64, power: float) -> None:
        weights = np.maximum(counts, 1) ** float(power)
        self.shares = weights / weights.sum()
        self._ends = np.cumsum(self.shares)

    def draw(self, count: int, rng: np.random.Generator) -> Int64:
        """Draw `count` item indices independently, with replacement; int64 [count]."""
        return _inverted(self._ends, rng.random(count))

    def draw_missing(self, complement: Complement, users: Int64, rng: np.random.Generator) -> Int64:
        """Draw one item for each user from the items that `complement` does not exclude, int64 [U].

        The probabilities are in the same proportions as in `draw`. A user whose items are all
        excluded gets −1. The cost is one pass over all items per distinct user.
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
    """Turn uniform numbers in [0, 1) into indices by the running sum `ends` of their weights."""
    # Leaving the last sum out keeps the index valid if rounding makes a number equal the total.
    return np.asarray(np.searchsorted(ends[:-1], uniform * ends[-1], side="right"), dtype=np.int64)


def distinct_integers(bounds: Int64, count: int, rng: np.random.Generator) -> Int64:
    """For each bound, draw `count` distinct integers from 0 to bound − 1, sorted.

    The result is int64 [len(bounds), count]. Repeated values are drawn again until all are
    distinct, and the other values stay. By symmetry every set has the same probability. Every bound
    must be at least `count`.
    """
    drawn = np.empty((len(bounds), count), dtype=np.int64)
    rows, again = np.arange(len(bounds)), np.ones((len(bounds), count), dtype=bool)
    while len(rows) > 0:
        for first in range(0, len(rows), BLOCK):
            block, repeats = rows[first : first + BLOCK], again[first : first + BLOCK]
            fresh = rng.integers(0, bounds[block, None], size=repeats.shape)
            drawn[block] = np.sort(np.where(repeats, fresh, drawn[block]), axis=1)
            # `repeats` is a view of `again`: equal neighbours are drawn again in the next round.
            repeats[:, :1], repeats[:, 1:] = False, drawn[block, 1:] == drawn[block, :-1]
        repeated = again.any(axis=1)
        rows, again = rows[repeated], again[repeated]
    return drawn


class Negatives:
    """Sampling of negatives, or of the items of a sampled softmax, for training batches.

    Parameters
    ----------
    log : Interactions
        The training rows.
    sampling : {"uniform", "popularity", "in-batch"}
        Probability of an item: equal for all items; in proportion to its number of rows to the
        power of `power`; or its share of the positives of the batch.
    power : float
        The power for ``sampling="popularity"``.
    pool : int
        Size of the pool that each batch draws first and then samples all its negatives from; 0 for
        no pool.
    """

    def __init__(
        self, log: Interactions, *, sampling: SamplingName, power: float, pool: int
    ) -> None:
        self.n_items = log.n_items
        self.sampling = sampling
        self.pool = pool
        self._unobserved = unobserved_items(log)
        self._counts = np.bincount(log.items, minlength=log.n_items)
        self._popularity = Popularity(self._counts, 1.0 if sampling == "in-batch" else power)

    @cached_property
    def _observed(self) -> tuple[Int32, Int64]:
        return self._unobserved.rows()

    def of_users(
        self, users: Int64, each: int, positives: Int64, rng: np.random.Generator
    ) -> Int64:
        """Draw `each` negatives for each positive of a batch, int64 [B · each].

        The negatives of a positive follow one another. They are −1 if its user interacted with all
        items.

        Parameters
        ----------
        users : int64 [B]
            Users of the batch's positives.
        each : int
            Number of negatives for each positive.
        positives : int64 [B]
            Items of the batch's positives.
        """
        no_pool = self.pool == 0 or self.pool >= self.n_items
        if self.sampling == "uniform" and no_pool:
            return self._unobserved.draw(users, each, rng).ravel()
        source = self._source(positives, rng)
        # Rejection sampling: draw again if the user has interacted with the item. This keeps the
        # proportions of the source among the user's unobserved items.
        owners = np.repeat(users, each)
        drawn = source(len(owners))
        again = np.flatnonzero(self._unobserved.excludes(owners, drawn))
        for _ in range(ROUNDS):
            if len(again) == 0:
                return drawn
            drawn[again] = source(len(again))
            again = again[self._unobserved.excludes(owners[again], drawn[again])]
        drawn[again] = self._exactly(owners[again], rng)
        return drawn

    def _source(self, positives: Int64, rng: np.random.Generator) -> Callable[[int], Int64]:
        """Function that draws a given number of items with the probabilities of `sampling`."""
        size = self.pool
        if self.sampling == "uniform":
            pool = rng.choice(self.n_items, size, replace=False)
        elif self.sampling == "popularity":
            if size == 0:
                return lambda count: self._popularity.draw(count, rng)
            # The pool may repeat items: independent draws keep the proportions after rejection.
            pool = self._popularity.draw(size, rng)
        else:
            pool = positives
            if 0 < size < len(positives):
                pool = rng.choice(positives, size, replace=False)
        return lambda count: pool[rng.integers(0, len(pool), count)]

    def _exactly(self, owners: Int64, rng: np.random.Generator) -> Int64:
        """One unobserved item for each user in `owners`, without rejection sampling."""
        if self.sampling == "uniform":
            return self._unobserved.draw(owners, 1, rng).ravel()
        return self._popularity.draw_missing(self._unobserved, owners, rng)

    def shared(
        self, count: int, positives: Int64, rng: np.random.Generator
    ) -> tuple[Int64, npt.NDArray[np.float32]]:
        """Draw the items that all positives of a batch share in a sampled softmax.

        Positives of the batch may be among the drawn items.

        Parameters
        ----------
        count : int
            Number of draws. The result has fewer items if an item is drawn twice, or if the log has
            fewer items.
        positives : int64 [B]
            Items of the batch's positives.

        Returns
        -------
        items : int64 [C]
            Distinct, ascending.
        log_weights : float32 [C]
            Log of the number of draws of each item over the expected number. With these weights
            the expectation of Σ exp(logit) over the draws is the sum over all items. For
            ``"in-batch"`` one of the B draws is the positive itself, so the expectation over the
            other items is (B − 1)/B of their sum.
        """
        if self.sampling == "uniform":
            count = min(count, self.n_items)
            items = np.sort(rng.choice(self.n_items, count, replace=False))
            return items, np.full(count, np.log(self.n_items / count), dtype=np.float32)
        if self.sampling == "popularity":
            drawn, shares = self._popularity.draw(count, rng), self._popularity.shares
        else:
            drawn, shares = positives, self._counts / self._counts.sum()
            if count < len(positives):
                drawn = rng.choice(positives, count, replace=False)
        items, times = np.unique(drawn, return_counts=True)
        return items, np.log(times / (len(drawn) * shares[items])).astype(np.float32)

    def positives_among(
        self, users: Int64, positives: Int64, items: Int64 | None
    ) -> tuple[Int64, Int64]:
        """For each positive of a batch, positions in `items` of its user's other known positives.

        The result is ragged rows with one row for each of the B positives.

        Parameters
        ----------
        users, positives : int64 [B]
            Users and items of the batch's positives.
        items : int64 [C] or None
            Items, ascending; None for all items.

        Returns
        -------
        values : int64
            Positions in `items`, ascending in each row.
        starts : int64 [B + 1]
        """
        observed, starts = self._observed
        places, counts = row_places(starts, users)
        row, item = np.repeat(np.arange(len(users)), counts), observed[places]
        place, keep = item.astype(np.int64), item != positives[row]
        if items is not None:
            # The search gives the position where an item would stand. The item is in `items` only
            # if the entry at that position equals it.
            place = np.minimum(np.searchsorted(items, item), len(items) - 1)
            keep &= items[place] == item
        return place[keep], row_starts(np.bincount(row[keep], minlength=len(users)))

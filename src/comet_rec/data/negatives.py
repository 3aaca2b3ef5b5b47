"""Which items stand against a batch's positives: negatives of each, or items shared by all."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.bags import Bags
from comet_rec.data.interactions import Interactions
from comet_rec.data.sampling import Popularity, untouched_items

Int64 = npt.NDArray[np.int64]
SamplingName = Literal["uniform", "popularity", "in-batch"]

ROUNDS = 20
"""Draws before a user who touched nearly all of what is drawn from gets an exact draw."""


class Negatives:
    """Draws of items that a training step scores beside its positives.

    Parameters
    ----------
    log : Interactions
        The training rows.
    sampling : {"uniform", "popularity", "in-batch"}
        All items alike; in proportion to rows to the power of `power`; or among the positives
        of the batch, which is in proportion to rows.
    power : float
    pool : int
        Items in a pool of the batch that each positive's negatives come from; 0 for none.
    """

    def __init__(
        self, log: Interactions, *, sampling: SamplingName, power: float, pool: int
    ) -> None:
        self.n_items = log.n_items
        self.sampling = sampling
        self.pool = pool
        self._complement = untouched_items(log)
        self._counts = np.bincount(log.items, minlength=log.n_items)
        self._popularity = Popularity(self._counts, 1.0 if sampling == "in-batch" else power)

    @cached_property
    def _touched(self) -> Bags:
        return Bags(*self._complement.lists())

    def untouched(
        self, users: Int64, each: int, positives: Int64, rng: np.random.Generator
    ) -> Int64:
        """Untouched items of each user, [len(users) · each]; −1 where there is none.

        Parameters
        ----------
        users : int64 [B]
            Users of the batch's positives.
        each : int
        positives : int64 [B]
            Their items.
        """
        whole = self.pool == 0 or self.pool >= self.n_items
        if self.sampling == "uniform" and whole:
            return self._complement.draw(users, each, rng).ravel()
        source = self._source(positives, rng)
        owners = np.repeat(users, each)
        drawn = source(len(owners))
        again = np.flatnonzero(self._complement.touched(owners, drawn))
        for _ in range(ROUNDS):
            if len(again) == 0:
                return drawn
            drawn[again] = source(len(again))
            again = again[self._complement.touched(owners[again], drawn[again])]
        drawn[again] = self._elsewhere(owners[again], rng)
        return drawn

    def _source(self, positives: Int64, rng: np.random.Generator) -> Callable[[int], Int64]:
        """Where this batch's negatives come from: a pool, or the catalogue itself."""
        size = self.pool
        if self.sampling == "uniform":
            pool = rng.choice(self.n_items, size, replace=False)
        elif self.sampling == "popularity":
            if size == 0:
                return lambda count: self._popularity.draw(count, rng)
            # With repeats: what a user left of independent draws has the right proportions.
            pool = self._popularity.draw(size, rng)
        else:
            pool = positives
            if 0 < size < len(positives):
                pool = rng.choice(positives, size, replace=False)
        return lambda count: pool[rng.integers(0, len(pool), count)]

    def _elsewhere(self, owners: Int64, rng: np.random.Generator) -> Int64:
        """One exact draw for each owner."""
        if self.sampling == "uniform":
            return self._complement.draw(owners, 1, rng).ravel()
        return self._popularity.draw_missing(self._complement, owners, rng)

    def shared(
        self, count: int, positives: Int64, rng: np.random.Generator
    ) -> tuple[Int64, npt.NDArray[np.float32]]:
        """Items for the softmax of a whole batch, touched or not.

        Parameters
        ----------
        count : int
            Draws; the items are fewer where some repeat, or where no more are there.
        positives : int64 [B]
            Items of the batch's positives.

        Returns
        -------
        items : int64 [C]
            Distinct, ascending.
        log_weights : float32 [C]
            Log of how often each was drawn over how often that was to be expected: with it
            Σ exp(logit) over the draws has the expectation of the sum over the catalogue. Of a
            batch of B positives one is the positive itself, so the others that stand against it
            in the batch have (B − 1)/B of that.
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

    def others(self, users: Int64, positives: Int64, items: Int64 | None) -> Bags:
        """Where other items that the users touched stand among `items`, a bag for each positive.

        Parameters
        ----------
        users, positives : int64 [B]
            The batch's positives.
        items : int64 [C] or None
            Ascending; None for all.
        """
        bags = self._touched[users]
        owner = np.repeat(np.arange(len(users)), np.diff(bags.starts))
        place, kept = bags.members, bags.members != positives[owner]
        if items is not None:
            place = np.minimum(np.searchsorted(items, bags.members), len(items) - 1)
            kept &= items[place] == bags.members
        counts = np.bincount(owner[kept], minlength=len(users))
        return Bags(place[kept], np.concatenate([[0], np.cumsum(counts)]))

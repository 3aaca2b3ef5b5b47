"""Ranks items for users by the rules of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.artefact.run import Run
from comet_rec.errors import ConfigError
from comet_rec.estimators.rules import Rows, Rules
from comet_rec.estimators.similar import factors
from comet_rec.retrieval.diversity import diversified
from comet_rec.retrieval.exact import BLOCK_BYTES, top_k, top_k_of_pairs, top_k_of_rows

POOL, POOL_SHARE = 100, 10
"""Candidates of a diverse list: `POOL` items, or `POOL_SHARE` times the list's length if longer."""
GROWTH = 4
"""Factor by which a list of candidates grows while `per_group` leaves too few of them."""
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Found = tuple[Int64, Float32]
"""Lists of Q users: items and scores [Q, k], best first. Unused places hold −1 and −inf."""
Source = Tensor | Callable[[Int64], Float32]
"""Input of the ranking for Q requested users: their vectors [Q, K], or a function.

The function takes positions of users in the request, and returns their scores of all items.
"""


class Ranker:
    """Ranks items for users by the rules of a request, which are prepared once for all users.

    Parameters
    ----------
    run : Run
    rules : Rules
    unknown : mapping of id to int, optional
        Number of each requested user outside the log, from the number of users on.
    """

    def __init__(self, run: Run, rules: Rules, unknown: Mapping[Any, int] | None = None) -> None:
        self.factors = None  # item vectors to compare in diverse lists
        if rules.diversify > 0:
            if run.item_vectors is None:
                raise ConfigError(
                    f"diversify = {rules.diversify:g}: {run.config.name} has no item vectors to "
                    "compare; use a model with vectors, e.g. comet or mf"
                )
            self.factors = factors(run, run.item_vectors, "item")
        self.run, self.rules = run, rules
        self.n_items = run.interactions.n_items
        self.allowed = rules.allowed(run.interactions)
        if run.existing is not None:
            self.allowed = run.existing if self.allowed is None else self.allowed & run.existing
        self.groups = rules.group_numbers(run.interactions)
        self.allow_pairs = rules.pairs(run.interactions, "allow_pairs", unknown or {})
        self.block_pairs = rules.pairs(run.interactions, "block_pairs", unknown or {})

    def best(self, source: Source, users: Int64, seen: Rows | None) -> Found:
        """Lists of Q users, ranked by the model.

        Parameters
        ----------
        source : Tensor [Q, K] or function
        users : int64 [Q]
            Number of each user in the pair filters.
        seen : pair of int64 [M], or None
            (position of the user, item) pairs to leave out, ascending by position.
        """
        k = self.rules.k
        pool = k if self.rules.diversify == 0 else max(POOL, POOL_SHARE * k)
        items, scores = self._ranked(source, users, seen, pool, self.run.item_vectors)
        if self.factors is not None:
            items, scores = diversified(items, scores, self.factors, k, self.rules.diversify)
        return items, scores

    def popular(self, users: Int64) -> Found:
        """Lists of the most popular items for Q users; the score is the number of users."""
        known = self.run.known
        counts = np.bincount(known.items, minlength=self.n_items).astype(np.float32)
        alike = self.allow_pairs is None and self.block_pairs is None
        distinct = users[:1] if alike else users  # without pair filters, all lists are equal
        # User vectors (1) and item vectors (count) have the count as their product.
        ones, vectors = torch.ones(len(distinct), 1), torch.from_numpy(counts[:, None])
        items, scores = self._ranked(ones, distinct, None, self.rules.k, vectors)
        times = len(users) if alike else 1
        return np.repeat(items, times, 0), np.repeat(scores, times, 0)

    def _ranked(
        self, source: Source, users: Int64, seen: Rows | None, k: int, vectors: Tensor | None
    ) -> Found:
        """The k best items of each user that all filters leave, and `per_group` of each group."""
        k = min(k, self.n_items)
        masked = self._masked(users, seen)
        if self.groups is None:
            return self._filtered(source, users, masked, k, vectors)
        items = np.full((len(users), k), -1, dtype=np.int64)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        left, pool = np.arange(len(users)), k  # users whose list is not complete yet
        while len(left) > 0:
            again = []
            size = max(1, BLOCK_BYTES // (16 * pool))
            for rows in (left[first : first + size] for first in range(0, len(left), size)):
                part = _of_places(source, rows), users[rows], _of_rows(masked, rows)
                found, values = self._filtered(*part, pool, vectors)
                kept = self._within_groups(found)  # [B, pool]
                place = np.cumsum(kept, axis=1) - 1  # place of a kept item in the list
                row, column = np.nonzero(kept & (place < k))
                items[rows[row], place[row, column]] = found[row, column]
                scores[rows[row], place[row, column]] = values[row, column]
                # A pool with an unused place holds every item that is left.
                complete = (place[:, -1] >= k - 1) | (found[:, -1] < 0) | (pool == self.n_items)
                again.append(rows[~complete])
            left, pool = np.concatenate(again), min(GROWTH * pool, self.n_items)
        return items, scores

    def _within_groups(self, found: Int64) -> npt.NDArray[np.bool_]:
        """Which items of each list are among the first `per_group` of their group, bool [B, k]."""
        assert self.groups is not None
        assert self.rules.per_group is not None
        groups = self.groups[found]  # of an unused place (−1): some group, but it is not kept
        # Sort each row by group; a stable sort keeps the best item of a group first.
        order = np.argsort(groups, axis=1, kind="stable")
        by_group = np.take_along_axis(groups, order, axis=1)
        place = np.broadcast_to(np.arange(groups.shape[1]), groups.shape)
        starts = np.zeros_like(groups)  # where the group of each place starts in the sorted row
        starts[:, 1:] = np.where(by_group[:, 1:] != by_group[:, :-1], place[:, 1:], 0)
        before = place - np.maximum.accumulate(starts, axis=1)  # better items of the same group
        kept = np.empty(groups.shape, dtype=np.bool_)
        np.put_along_axis(kept, order, before < self.rules.per_group, axis=1)
        return np.asarray((kept | (groups < 0)) & (found >= 0))

    def _masked(self, users: Int64, seen: Rows | None) -> Rows | None:
        """Pairs to leave out of the lists: seen items and those that `block_pairs` blocks."""
        if self.block_pairs is None:
            return seen
        blocked = self.block_pairs.rows(users)
        if seen is None:
            return blocked
        rows, items = (np.concatenate(both) for both in zip(seen, blocked, strict=True))
        order = np.argsort(rows, kind="stable")
        return rows[order], items[order]

    def _filtered(
        self, source: Source, users: Int64, masked: Rows | None, k: int, vectors: Tensor | None
    ) -> Found:
        """The k best items of each user that the filters leave, without the limit of groups."""
        if self.allow_pairs is not None:
            return self._among_pairs(source, users, masked, k, vectors)
        items = np.full((len(users), k), -1, dtype=np.int64)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        if isinstance(source, Tensor):
            assert vectors is not None
            longest = self.run.longest_item if vectors is self.run.item_vectors else None
            parts = top_k(source, vectors, k, masked=masked, allowed=self.allowed, longest=longest)
        else:
            rows_of = lambda block: source(np.arange(block.start, block.stop))  # noqa: E731
            parts = top_k_of_rows(
                rows_of, len(users), self.n_items, k, masked=masked, allowed=self.allowed
            )
        for block, best, values in parts:
            items[block], scores[block] = best, values
        return items, scores

    def _among_pairs(
        self, source: Source, users: Int64, masked: Rows | None, k: int, vectors: Tensor | None
    ) -> Found:
        """The k best items of each user among those that `allow_pairs` lists for the user."""
        assert self.allow_pairs is not None
        rows, items = self.allow_pairs.rows(users)
        open_ = np.ones(len(rows), dtype=np.bool_) if self.allowed is None else self.allowed[items]
        if masked is not None:
            closed = masked[0] * self.n_items + masked[1]
            open_ &= ~np.isin(rows * self.n_items + items, closed)
        rows, items = rows[open_], items[open_]
        scores = np.empty(len(rows), dtype=np.float32)
        if isinstance(source, Tensor):
            assert vectors is not None
            # Gathered vectors of users and items are float64, [b, W] each.
            size = max(1, BLOCK_BYTES // (16 * vectors.shape[1]))
            for first in range(0, len(rows), size):
                part = slice(first, first + size)
                left = source[torch.from_numpy(rows[part])].double()
                right = vectors[torch.from_numpy(items[part])].double()
                scores[part] = torch.linalg.vecdot(left, right).numpy()
        else:
            size = max(1, BLOCK_BYTES // (4 * self.n_items))
            for first in range(0, len(users), size):
                last = min(first + size, len(users))
                a, b = np.searchsorted(rows, [first, last])
                if b > a:
                    scores[a:b] = source(np.arange(first, last))[rows[a:b] - first, items[a:b]]
        return top_k_of_pairs(scores, rows, items, len(users), k)


def _of_places(source: Source, places: Int64) -> Source:
    """The source of some of the requested users."""
    if isinstance(source, Tensor):
        return source[torch.from_numpy(places)]
    return lambda some: source(places[some])


def _of_rows(pairs: Rows | None, rows: Int64) -> Rows | None:
    """The pairs of some rows, which ascend; their numbers become positions in `rows`."""
    if pairs is None:
        return None
    kept = np.isin(pairs[0], rows)
    return np.searchsorted(rows, pairs[0][kept]), pairs[1][kept]

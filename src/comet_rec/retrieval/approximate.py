"""Approximate top-k of inner products: an HNSW graph proposes items, exact scores order them.

The graph (Malkov and Yashunin 2018, from the library faiss) visits a small part of the catalogue.
The scores of the items that it proposes are computed exactly, so a list differs from that of
`exact.top_k` only if the graph missed an item.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from comet_rec.errors import ConfigError
from comet_rec.retrieval.exact import top_k, top_k_of_pairs

LINKS, BUILD_WIDTH = 32, 200
"""Links of an item in the graph (M), and width of the search that finds them (efConstruction)."""
NARROWEST, WIDEST = 64, 1024
"""First and largest width of a search (efSearch) that `widened` tries."""
EXACT_SHARE = 8
"""A search wider than 1/EXACT_SHARE of the catalogue is done exactly, which is faster."""
SCORED = 2
"""Candidates whose exact scores are computed, as a multiple of the list's length."""
QUERIES = 1024
"""Number of queries whose candidates are scored at a time."""

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Pairs = tuple[Int64, Int64]


class ApproximateIndex:
    """Item vectors with an HNSW graph over them.

    Parameters
    ----------
    graph : faiss.IndexHNSWFlat
        Graph over the vectors by inner products, or over vectors of W + 1 numbers by distances:
        the last number makes them equally long (Bachrach et al. 2014).
    items : float32 [I, W]
        Vectors of all items.
    """

    def __init__(self, graph: Any, items: Float32) -> None:
        self.graph = graph
        self.items = items

    @classmethod
    def build(cls, items: Float32, *, equal_lengths: bool = False) -> Self:
        """Build the graph of item vectors, float32 [I, W].

        Raises
        ------
        ConfigError
            When faiss is not installed.
        """
        faiss = library()
        vectors, metric = items, faiss.METRIC_INNER_PRODUCT
        if equal_lengths:
            # |x|² + column² is the same for all items. A query has 0 there, so the nearest item is
            # the one with the largest inner product.
            squares = np.square(items, dtype=np.float64).sum(axis=1)
            column = np.sqrt(squares.max(initial=0) - squares)
            vectors = np.column_stack([items, column]).astype(np.float32)
            metric = faiss.METRIC_L2
        graph = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, metric)
        graph.hnsw.efConstruction = BUILD_WIDTH
        graph.hnsw.efSearch = NARROWEST
        graph.add(vectors)
        return cls(graph, items)

    @property
    def equal_lengths(self) -> bool:
        """Whether the graph is over vectors that were made equally long."""
        return bool(self.graph.d > self.items.shape[1])

    @cached_property
    def _longest(self) -> float:
        """Length of the longest item vector, which every exact search needs."""
        return float(np.sqrt(np.square(self.items).sum(axis=1).max(initial=0)))

    @property
    def width(self) -> int:
        """Number of candidates that a search keeps (efSearch); a wider one misses less."""
        width: int = self.graph.hnsw.efSearch
        return width

    def search(
        self, queries: Float32, k: int, *, masked: Pairs | None = None
    ) -> tuple[Int64, Float32]:
        """The k items with the highest inner products for each query.

        Parameters
        ----------
        queries : float32 [Q, W]
            Vectors of users.
        k : int
            Largest length of a list.
        masked : pair of int64 [M], optional
            (query, item) pairs to leave out, ascending by query: the seen items of the users.

        Returns
        -------
        found : int64 [Q, k']
            Items, best first, with k' = min(k, I). If fewer items are left, −1 fills the row.
        scores : float32 [Q, k']
            Rounded float64 products; −inf if there is no item.
        """
        n = len(self.items)
        k = min(k, n)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows, of_items = (np.empty(0, np.int64),) * 2 if masked is None else masked
        found = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)

        # Masked items are among the best, so a search must be wider by their number. Widths are
        # powers of two, so that queries with the same width share a search.
        pools = max(self.width, k) + np.bincount(rows, minlength=len(queries))
        pools = 1 << np.ceil(np.log2(pools)).astype(np.int64)  # [Q]
        for pool in np.unique(pools[EXACT_SHARE * pools <= n]).tolist():
            places = np.flatnonzero(pools == pool)
            for block in np.split(places, range(QUERIES, len(places), QUERIES)):
                pairs = _of_rows(rows, of_items, block)
                found[block], scores[block] = self._proposed(queries[block], k, pool, pairs)

        # Lists that the graph did not fill, and searches that would be too wide.
        left = np.flatnonzero(found[:, -1] < 0) if k > 0 else np.empty(0, np.int64)
        if len(left) > 0:
            vectors = torch.from_numpy(queries[left]), torch.from_numpy(self.items)
            pairs = _of_rows(rows, of_items, left)
            for part, best, values in top_k(*vectors, k, masked=pairs, longest=self._longest):
                found[left[part]], scores[left[part]] = best, values
        return found, scores

    def _proposed(
        self, queries: Float32, k: int, pool: int, masked: Pairs
    ) -> tuple[Int64, Float32]:
        """The k best of the `pool` items that the graph proposes for each query."""
        parameters = library().SearchParametersHNSW(efSearch=pool)
        vectors = queries
        if self.equal_lengths:
            vectors = np.pad(queries, ((0, 0), (0, 1)))
        proposed = self.graph.search(vectors, pool, params=parameters)[1]  # int64 [Q, pool]
        n = len(self.items)
        # One number per (query, item) pair, to look masked pairs up.
        keys = np.arange(len(queries))[:, None] * n + proposed
        kept = (proposed >= 0) & ~np.isin(keys, masked[0] * n + masked[1])
        # Candidates come best first, but for rounding of their float32 scores.
        kept &= np.cumsum(kept, axis=1) <= SCORED * k
        row, column = np.nonzero(kept)
        items = proposed[row, column]
        scores = np.empty(len(items), dtype=np.float32)
        for first in range(0, len(items), 1 << 16):
            part = slice(first, first + (1 << 16))
            left, right = queries[row[part]].astype(np.float64), self.items[items[part]]
            scores[part] = np.einsum("cw,cw->c", left, right.astype(np.float64))
        return top_k_of_pairs(scores, row, items, len(queries), k)


def _of_rows(rows: Int64, items: Int64, places: Int64) -> Pairs:
    """The (row, item) pairs of the rows in `places`, which ascend; rows are counted in `places`."""
    kept = np.isin(rows, places)
    return np.searchsorted(places, rows[kept]), items[kept]


def best_index(
    items: Float32, queries: Float32, k: int, masked: Pairs, aim: float
) -> tuple[ApproximateIndex, float]:
    """Index of items with a recall of at least `aim` for lists of k items, and its recall.

    A graph by inner products is narrower for the same recall on trained vectors. If it does not
    reach `aim`, a graph over vectors of equal lengths is built too, and the better one is kept.
    """
    plain = ApproximateIndex.build(items)
    reached = widened(plain, queries, k, masked, aim)
    if reached >= aim:
        return plain, reached
    longer = ApproximateIndex.build(items, equal_lengths=True)
    other = widened(longer, queries, k, masked, aim)
    return (longer, other) if other > reached else (plain, reached)


def widened(index: ApproximateIndex, queries: Float32, k: int, masked: Pairs, aim: float) -> float:
    """Widen the searches of an index until its recall is at least `aim`, and return the recall.

    The width is doubled, up to `WIDEST`, so the recall may stay lower.
    """
    vectors = torch.from_numpy(queries), torch.from_numpy(index.items)
    exact = np.concatenate([part[2] for part in top_k(*vectors, k, masked=masked)])
    while True:
        reached = recall(index.search(queries, k, masked=masked)[1], exact)
        if reached >= aim or index.width >= WIDEST:
            return reached
        index.graph.hnsw.efSearch *= 2


def recall(scores: Float32, exact: Float32) -> float:
    """Share of the places of exact lists that approximate lists fill with items as good.

    Parameters
    ----------
    scores, exact : float32 [Q, k]
        Scores of both lists, best first; −inf for unused places. The last used score of an exact
        list decides, so that items with equal scores count alike.
    """
    used = exact > -np.inf
    if not used.any():
        return 1.0
    last = np.where(used, exact, np.inf).min(axis=1)  # [Q]; inf for an empty list
    return float((scores >= last[:, None]).sum() / used.sum())


def library() -> Any:
    """The module faiss.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            'an approximate index needs faiss, which is not installed; pip install "comet-rec[ann]"'
        ) from None
    return faiss

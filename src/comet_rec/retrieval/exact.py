"""Exact top-k of inner products; among equal scores, the item with the lower index comes first.

A fast first pass computes float32 scores in tiles that fit the cache, and keeps only the maximum of
each run of neighbouring items. The k best items lie in the k runs with the highest maxima. So a
second pass computes scores only for the items in these runs, and no query sorts all items.

The last bits of a float32 product depend on the item's position and on the number of queries. So
float32 scores only choose the items, and the returned scores are rounded float64 products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec import verify
from comet_rec.parallel import in_parts

QUERIES = 512
"""Number of queries in a block."""
LEAST_PART = 64
"""Smallest number of queries that are given to a thread of their own."""
TILE = 8192
"""Number of items whose scores are computed at a time; a multiple of it for few queries."""
RUN = 64
"""Number of neighbouring items whose maximum score is kept; `TILE` is a multiple of this number."""
BLOCK_BYTES = 64 * 2**20
"""Largest memory, in bytes, of the scores or of the gathered vectors of a block of queries."""
NOISE = 4e-6
"""Assumed bound of the rounding error in a float32 product of two vectors of length one."""


@dataclass(frozen=True)
class Mask:
    """Items to leave out of the lists of a top-k search.

    Parameters
    ----------
    rows, items : int64 [M]
        (query, item) pairs to leave out, ascending by query.
    closed : bool Tensor [n] or None
        True for items to leave out of every list.
    """

    rows: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    closed: Tensor | None

    def of_block(self, first: int, last: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Masked pairs of the queries `first` to `last` − 1, sorted by item.

        The result is the query of each pair, counted from `first`, and its item.
        """
        a, b = np.searchsorted(self.rows, [first, last])
        order = np.argsort(self.items[a:b], kind="stable")
        return self.rows[a:b][order] - first, self.items[a:b][order]


def top_k(
    queries: Tensor,
    items: Tensor,
    k: int,
    *,
    masked: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    longest: float | None = None,
) -> Iterator[tuple[slice, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield the k items with the highest inner products for each query, block by block.

    Parameters
    ----------
    queries : Tensor [Q, K]
        Vectors to find the best items for, e.g. of users.
    items : Tensor [n, K]
        Vectors of all items.
    k : int
        Largest length of a list.
    masked : pair of int64 [M], optional
        (query, item) pairs to leave out, ascending by query.
    allowed : bool [n], optional
        True for items that the lists may hold; all items by default.
    longest : float, optional
        Length of the longest item vector, if it is known. With few queries, computing it takes as
        long as a third of the search.

    Yields
    ------
    block : slice
        Queries of the block.
    found : int64 [B, k']
        Items, best first, with k' = min(k, n). Equal scores are in the order of indices. If fewer
        items are allowed, −1 fills the rest of the row.
    scores : float32 [B, k']
        Rounded float64 products; −inf if there is no item.
    """
    k = min(k, len(items))
    empty = np.empty(0, dtype=np.int64)
    rows, of_items = masked if masked is not None else (empty, empty)
    closed = None if allowed is None else torch.from_numpy(~allowed).to(items.device)
    mask = Mask(rows, of_items, closed)
    by_runs = 0 < 4 * k < -(-len(items) // RUN) and not verify.slow()
    # The longest item bounds the rounding error of all items; it is scaled by the query's length
    # later.
    if by_runs and longest is None:
        longest = float(torch.linalg.vector_norm(items, dim=1).amax())
    noise = NOISE * (longest or 0.0)
    size = QUERIES if by_runs else min(QUERIES, max(1, BLOCK_BYTES // (4 * max(len(items), 1))))
    for first in range(0, len(queries), size):
        last = min(first + size, len(queries))

        def run(part: slice, first: int = first) -> tuple[Tensor, Tensor]:
            pairs = mask.of_block(first + part.start, first + part.stop)
            block = queries[first + part.start : first + part.stop]
            if by_runs:
                return _by_runs(block, items, k, pairs, mask, noise)
            return _best(_exact_scores(block, items, pairs, mask), k)

        parts = in_parts(last - first, LEAST_PART if queries.device.type == "cpu" else last, run)
        found, scores = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        found = found.masked_fill(scores == float("-inf"), -1)
        if verify.verifying():
            _verify(queries[first:last], items, found, scores, mask, first)
        yield slice(first, last), found.cpu().numpy(), scores.cpu().numpy()


def _verify(
    block: Tensor, items: Tensor, found: Tensor, scores: Tensor, mask: Mask, first: int
) -> None:
    """Compare lists with the whole of all scores, sorted. The queries of `block` begin at `first`.

    Scores that differ in the last bit may change places, so scores are compared, not items.
    """
    expected = (block.double() @ items.double().T).float()
    rows, columns = mask.of_block(first, first + len(block))
    expected[torch.from_numpy(rows), torch.from_numpy(columns)] = float("-inf")
    if mask.closed is not None:
        expected[:, mask.closed] = float("-inf")
    best = torch.sort(expected, dim=1, descending=True, stable=True)[0][:, : found.shape[1]]
    listed = expected.gather(1, found.clamp(min=0)).masked_fill(found < 0, float("-inf"))
    filled = torch.isfinite(best)
    verify.assert_equal("items in lists", int(torch.isfinite(scores).sum()), int(filled.sum()))
    verify.assert_close("scores of lists", scores[filled], best[filled], 1e-6)
    verify.assert_close("scores of listed items", listed[filled], best[filled], 1e-6)


def top_k_of_rows(
    rows: Callable[[slice], npt.NDArray[np.float32]],
    count: int,
    n_items: int,
    k: int,
    *,
    masked: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Iterator[tuple[slice, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """As `top_k`, for a model that computes scores instead of vectors.

    `rows` takes a slice of the `count` queries and returns their scores for all items, [B,
    n_items].
    """
    empty = np.empty(0, dtype=np.int64)
    size = max(1, BLOCK_BYTES // (4 * n_items))
    mask = Mask(*(masked or (empty, empty)), None)
    for first in range(0, count, size):
        block = slice(first, min(first + size, count))
        scores = torch.from_numpy(np.array(rows(block), dtype=np.float32))
        row, item = mask.of_block(block.start, block.stop)
        scores[torch.from_numpy(row), torch.from_numpy(item)] = float("-inf")
        if allowed is not None:
            scores.masked_fill_(torch.from_numpy(~allowed), float("-inf"))
        found, values = _best(scores, min(k, n_items))
        found = found.masked_fill(values == float("-inf"), -1)
        yield block, found.numpy(), values.numpy()


def top_k_of_pairs(
    scores: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    count: int,
    k: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The k best items of each of `count` queries, among its own candidates.

    Parameters
    ----------
    scores : float32 [M]
        Score of each candidate.
    rows, items : int64 [M]
        Query of each candidate, ascending, and the item.

    Returns
    -------
    found : int64 [count, k]
        Items, best first. Equal scores are in the order of indices. −1 fills the rest of a row.
    values : float32 [count, k]
        Their scores; −inf if there is no item.
    """
    found = np.full((count, k), -1, dtype=np.int64)
    values = np.full((count, k), -np.inf, dtype=np.float32)
    order = np.lexsort((items, -scores, rows))  # the last key, the query, counts most
    # Place of each candidate in its own list: its place in `order` less the start of its query.
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    order, place, row = order[place < k], place[place < k], rows[place < k]
    found[row, place], values[row, place] = items[order], scores[order]
    return found, values


def _exact_scores(
    block: Tensor, items: Tensor, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask
) -> Tensor:
    """Scores of all items, [B, n], as rounded float64 products; −inf for masked items."""
    scores = block.new_empty((len(block), len(items)))
    double = block.double()
    for first in range(0, len(items), TILE):
        tile = scores[:, first : first + TILE]
        tile.copy_(double @ items[first : first + TILE].double().T)
        _close(tile, first, pairs, mask)
    return scores


def _close(
    scores: Tensor, first: int, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask
) -> None:
    """Set masked scores to −inf, in place.

    `scores` holds the items from index `first` on. `pairs` holds the masked (row, item) pairs.
    """
    last = first + scores.shape[1]
    if mask.closed is not None:
        scores.masked_fill_(mask.closed[first:last], float("-inf"))
    a, b = np.searchsorted(pairs[1], [first, last])
    if b > a:
        rows, columns = (torch.from_numpy(p[a:b]).to(scores.device) for p in pairs)
        scores[rows, columns - first] = float("-inf")


def _by_runs(
    block: Tensor, items: Tensor, k: int, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask,
    noise: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Best items of a block of queries, and their scores, by the two passes of the module text.

    `noise` times the length of a query bounds the error of a float32 score. A query whose last
    place is uncertain within this error is ranked again over all items.
    """
    n = len(items)
    runs = -(-n // RUN)
    maxima = block.new_empty((len(block), runs))  # [B, runs]
    # Few queries have few scores in a tile, so their tiles are larger: each tile has a fixed cost.
    size = TILE * max(1, LEAST_PART // max(len(block), 1))
    tile = block.new_empty((len(block), min(size, n)))  # a buffer for all tiles

    # First pass: the maximum of each run. The last run may be shorter than the others.
    for first in range(0, n, size):
        last = min(first + size, n)
        scores = torch.matmul(block, items[first:last].T, out=tile[:, : last - first])
        _close(scores, first, pairs, mask)
        full_runs = (last - first) // RUN * RUN  # items in complete runs
        into = maxima[:, first // RUN : -(-last // RUN)]
        if full_runs > 0:
            by_run = scores[:, :full_runs].view(len(block), -1, RUN)
            torch.amax(by_run, 2, out=into[:, : full_runs // RUN])
        if full_runs < last - first:
            into[:, -1] = scores[:, full_runs:].amax(1)

    # Second pass: scores of all items in the k best runs, [B, k · RUN].
    best = maxima.topk(k + 1, dim=1)
    runs_found = best.indices[:, :k].sort(dim=1).values
    columns = (runs_found[:, :, None] * RUN + torch.arange(RUN, device=items.device)).flatten(1)
    exists = columns < n
    columns = columns.clamp(max=n - 1)
    rows = max(1, BLOCK_BYTES // (4 * columns.shape[1] * items.shape[1]))
    parts = [slice(first, first + rows) for first in range(0, len(block), rows)]
    if n <= size:  # one tile still holds all scores of the first pass
        scores = tile.gather(1, columns)
    else:
        products = [torch.einsum("bk,bck->bc", block[p], items[columns[p]]) for p in parts]
        scores = torch.cat(products)
        _mask_columns(scores, columns, pairs, mask, n)
    scores.masked_fill_(~exists, float("-inf"))
    place, fast = _best(scores, k + 1)
    found = columns.gather(1, place)
    exact = torch.cat(
        [torch.einsum("bk,bck->bc", block[p].double(), items[found[p, :k]].double()) for p in parts]
    ).to(block.dtype)

    # The choice is certain if the k-th score exceeds every other score by more than the noise. The
    # others are at most the next score in these runs, or the maximum of the best other run.
    least, after = fast[:, k - 1], torch.maximum(fast[:, k], best.values[:, k])
    unsure = after >= least - noise * torch.linalg.vector_norm(block, dim=1)
    unsure &= least > float("-inf")
    found, values = _in_order(
        found[:, :k], exact.masked_fill_(fast[:, :k] == float("-inf"), float("-inf"))
    )
    again = np.flatnonzero(unsure.numpy(force=True))
    size = max(1, BLOCK_BYTES // (4 * n))
    for queries in (again[first : first + size] for first in range(0, len(again), size)):
        kept = np.isin(pairs[0], queries)
        masked = np.searchsorted(queries, pairs[0][kept]), pairs[1][kept]
        exact_scores = _exact_scores(block[queries], items, masked, mask)
        found[queries], values[queries] = _best(exact_scores, k)
    return found, values


def _mask_columns(
    scores: Tensor, columns: Tensor, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask, n: int
) -> None:
    """Set masked scores to −inf, in place; `columns` [B, C] holds the item of each score."""
    if mask.closed is not None:
        scores.masked_fill_(mask.closed[columns], float("-inf"))
    if len(pairs[0]) == 0:
        return
    # One number per (row, item) pair, so that a binary search finds the masked pairs.
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    masked = torch.from_numpy(np.sort(pairs[0] * n + pairs[1])).to(scores.device)
    keys = rows * n + columns  # [B, C]
    at = torch.searchsorted(masked, keys).clamp(max=len(masked) - 1)
    scores.masked_fill_(masked[at] == keys, float("-inf"))


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns and values of the k highest scores in each row; equal values are in column order."""
    if k == 0:
        return scores.new_empty((len(scores), 0)).long(), scores.new_empty((len(scores), 0))
    # One score more shows whether a score outside the list equals the last one in it. `topk` would
    # choose any of the equal ones, so such rows are sorted completely.
    values, found = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    found, values = _in_order(found, values)
    if values.shape[1] > k:
        shared = (values[:, k] == values[:, k - 1]) & (values[:, k] > float("-inf"))
        for row in torch.nonzero(shared).flatten().tolist():
            order = scores[row].sort(descending=True, stable=True)
            values[row], found[row] = order.values[: k + 1], order.indices[: k + 1]
    return found[:, :k], values[:, :k]


def _in_order(found: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and values sorted in each row: highest value first, equal values in column order."""
    found, by_index = found.sort(dim=1)
    values, by_value = values.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    return found.gather(1, by_value), values

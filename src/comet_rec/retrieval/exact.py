"""Exact top-k of an inner product, in blocks, with masks; equal scores in the order of ids.

A tile of scores is made while it fits the cache and left behind as the maxima of short runs of
items. The k best items lie in the k best runs, so only those are looked at again: the scores of a
large catalogue are read once, and never sorted.

The last bits of a float32 product depend on an item's place and on how many queries there are, so
it only says which items to look at: their scores are products in float64, rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.parallel import in_parts

QUERIES = 512
"""Queries at a time."""
LEAST_PART = 64
"""Fewest queries that are worth a thread of their own."""
TILE = 8192
"""Items of a tile."""
RUN = 64
"""Items of a run; a tile holds a whole number of runs."""
BLOCK_BYTES = 64 * 2**20
"""Scores, or items of runs, held at a time."""
NOISE = 4e-6
"""Most that rounding is taken to change a float32 product of two vectors of length one."""


@dataclass(frozen=True)
class Mask:
    """Items that lists may not hold.

    Parameters
    ----------
    rows, items : int64 [M]
        (query, item) pairs, ascending by query.
    closed : bool Tensor [n] or None
        Items that no list may hold.
    """

    rows: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    closed: Tensor | None

    def of_block(self, first: int, last: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Pairs of a block of queries, by item: rows within the block, and items."""
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
) -> Iterator[tuple[slice, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Best items of each query, block by block.

    Parameters
    ----------
    queries : Tensor [Q, K]
    items : Tensor [n, K]
    k : int
        Most items of a list.
    masked : pair of int64 [M], optional
        (query, item) pairs that no list may hold, ascending by query.
    allowed : bool [n], optional
        Items that lists may hold.

    Yields
    ------
    block : slice
        The queries.
    found : int64 [B, k']
        Items, best first, equal scores by index; −1 where fewer than k are left.
    scores : float32 [B, k']
        Products in float64, rounded; −inf where fewer are left. k' = min(k, n).
    """
    k = min(k, len(items))
    empty = np.empty(0, dtype=np.int64)
    rows, of_items = masked if masked is not None else (empty, empty)
    closed = None if allowed is None else torch.from_numpy(~allowed).to(items.device)
    mask = Mask(rows, of_items, closed)
    by_runs = 0 < 4 * k < -(-len(items) // RUN)
    # Of any item: one that is long and nearly at right angles to a query may be off by the most.
    noise = NOISE * torch.linalg.vector_norm(items, dim=1).amax() if by_runs else None
    size = QUERIES if by_runs else min(QUERIES, max(1, BLOCK_BYTES // (4 * max(len(items), 1))))
    for first in range(0, len(queries), size):
        last = min(first + size, len(queries))

        def run(part: slice, first: int = first) -> tuple[Tensor, Tensor]:
            pairs = mask.of_block(first + part.start, first + part.stop)
            block = queries[first + part.start : first + part.stop]
            if noise is not None:
                return _by_runs(block, items, k, pairs, mask, noise)
            return _best(_exact_scores(block, items, pairs, mask), k)

        parts = in_parts(last - first, LEAST_PART if queries.device.type == "cpu" else last, run)
        found, scores = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        found = found.masked_fill(scores == float("-inf"), -1)
        yield slice(first, last), found.cpu().numpy(), scores.cpu().numpy()


def top_k_of_rows(
    rows: Callable[[slice], npt.NDArray[np.float32]],
    count: int,
    n_items: int,
    k: int,
    *,
    masked: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Iterator[tuple[slice, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """As `top_k`, from the scores of all items [B, n_items] that `rows` gives of a block."""
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


def _exact_scores(
    block: Tensor, items: Tensor, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask
) -> Tensor:
    """Scores of all items, [B, n], products in float64, rounded; −inf where masked."""
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
    """Put −inf where a tile of scores, from item `first` on, is masked."""
    last = first + scores.shape[1]
    if mask.closed is not None:
        scores.masked_fill_(mask.closed[first:last], float("-inf"))
    a, b = np.searchsorted(pairs[1], [first, last])
    if b > a:
        rows, columns = (torch.from_numpy(p[a:b]).to(scores.device) for p in pairs)
        scores[rows, columns - first] = float("-inf")


def _by_runs(
    block: Tensor, items: Tensor, k: int, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Best items through the maxima of runs; a row whose last place is unsure is sorted whole.

    `noise` times a query's length is what a float32 score may be off by.
    """
    n = len(items)
    runs = -(-n // RUN)
    maxima = block.new_empty((len(block), runs))
    tile = block.new_empty((len(block), TILE))
    for first in range(0, n, TILE):
        last = min(first + TILE, n)
        scores = torch.matmul(block, items[first:last].T, out=tile[:, : last - first])
        _close(scores, first, pairs, mask)
        whole = (last - first) // RUN * RUN
        into = maxima[:, first // RUN : -(-last // RUN)]
        if whole > 0:
            by_run = scores[:, :whole].view(len(block), -1, RUN)
            torch.amax(by_run, 2, out=into[:, : whole // RUN])
        if whole < last - first:
            into[:, -1] = scores[:, whole:].amax(1)
    best = maxima.topk(k + 1, dim=1)
    runs_found = best.indices[:, :k].sort(dim=1).values
    columns = (runs_found[:, :, None] * RUN + torch.arange(RUN, device=items.device)).flatten(1)
    exists = columns < n
    columns = columns.clamp(max=n - 1)
    rows = max(1, BLOCK_BYTES // (4 * columns.shape[1] * items.shape[1]))
    parts = [slice(first, first + rows) for first in range(0, len(block), rows)]
    scores = torch.cat([torch.einsum("bk,bck->bc", block[p], items[columns[p]]) for p in parts])
    scores.masked_fill_(~exists, float("-inf"))
    _mask_columns(scores, columns, pairs, mask, n)
    place, fast = _best(scores, k + 1)
    found = columns.gather(1, place)
    exact = torch.cat(
        [torch.einsum("bk,bck->bc", block[p].double(), items[found[p, :k]].double()) for p in parts]
    ).to(block.dtype)
    least, after = fast[:, k - 1], torch.maximum(fast[:, k], best.values[:, k])
    unsure = after >= least - noise * torch.linalg.vector_norm(block, dim=1)
    unsure &= least > float("-inf")
    found, values = _in_order(
        found[:, :k], exact.masked_fill_(fast[:, :k] == float("-inf"), float("-inf"))
    )
    again = np.flatnonzero(unsure.numpy(force=True))
    size = max(1, BLOCK_BYTES // (4 * n))
    for some in (again[first : first + size] for first in range(0, len(again), size)):
        kept = np.isin(pairs[0], some)
        own = np.searchsorted(some, pairs[0][kept]), pairs[1][kept]
        found[some], values[some] = _best(_exact_scores(block[some], items, own, mask), k)
    return found, values


def _mask_columns(
    scores: Tensor, columns: Tensor, pairs: tuple[npt.NDArray[np.int64], ...], mask: Mask, n: int
) -> None:
    """Close what is masked among the looked-at columns, in place."""
    if mask.closed is not None:
        scores.masked_fill_(mask.closed[columns], float("-inf"))
    if len(pairs[0]) == 0:
        return
    rows = torch.arange(len(scores), device=scores.device)[:, None]
    keys = torch.from_numpy(np.sort(pairs[0] * n + pairs[1])).to(scores.device)
    looked = rows * n + columns
    at = torch.searchsorted(keys, looked).clamp(max=len(keys) - 1)
    scores.masked_fill_(keys[at] == looked, float("-inf"))


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns and values of the k best of each row, equal values by column."""
    if k == 0:
        return scores.new_empty((len(scores), 0)).long(), scores.new_empty((len(scores), 0))
    # One more than asked tells whether the last place is shared.
    values, found = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    found, values = _in_order(found, values)
    if values.shape[1] > k:
        shared = (values[:, k] == values[:, k - 1]) & (values[:, k] > float("-inf"))
        for row in torch.nonzero(shared).flatten().tolist():
            order = scores[row].sort(descending=True, stable=True)
            values[row], found[row] = order.values[: k + 1], order.indices[: k + 1]
    return found[:, :k], values[:, :k]


def _in_order(found: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and values of each row, the highest value first, equal values by column."""
    found, by_index = found.sort(dim=1)
    values, by_value = values.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    return found.gather(1, by_value), values

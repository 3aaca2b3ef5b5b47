"""Exact top-k of an inner product, in blocks, with masks; equal scores in the order of ids."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK_BYTES = 256 << 20


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
        −inf where fewer are left. k' = min(k, n).
    """
    n = len(items)
    k = min(k, n)
    size = max(1, BLOCK_BYTES // (4 * max(n, 1)))
    closed = None if allowed is None else torch.from_numpy(~allowed).to(items.device)
    for first in range(0, len(queries), size):
        block = slice(first, min(first + size, len(queries)))
        scores = queries[block] @ items.T
        if closed is not None:
            scores.masked_fill_(closed, float("-inf"))
        if masked is not None:
            a, b = np.searchsorted(masked[0], [block.start, block.stop])
            rows = torch.from_numpy(masked[0][a:b] - block.start).to(items.device)
            scores[rows, torch.from_numpy(masked[1][a:b]).to(items.device)] = float("-inf")
        yield block, *_ordered(scores, k)


def _ordered(scores: Tensor, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Top k of each row, ties by index."""
    if k == 0:
        empty = np.empty((len(scores), 0))
        return empty.astype(np.int64), empty.astype(np.float32)
    # One more than asked tells whether the last place is shared.
    values, found = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    found, by_index = found.sort(dim=1)
    values, by_value = values.gather(1, by_index).sort(dim=1, descending=True, stable=True)
    found = found.gather(1, by_value)
    if values.shape[1] > k:
        shared = (values[:, k] == values[:, k - 1]) & (values[:, k] > float("-inf"))
        for row in torch.nonzero(shared).flatten().tolist():
            order = scores[row].sort(descending=True, stable=True)
            values[row], found[row] = order.values[: k + 1], order.indices[: k + 1]
    values, found = values[:, :k], found[:, :k].masked_fill(values[:, :k] == float("-inf"), -1)
    return found.cpu().numpy(), values.cpu().numpy()

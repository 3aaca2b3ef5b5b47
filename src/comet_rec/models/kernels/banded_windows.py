"""Cross features of sliding windows as matrix products, for filters of width 1 or K.

As in `sliding_windows`, the map of a step is a window of N rows of a piece x [M, K]. Filters of
width 1 weigh the rows of a window, the same way in each column. A filter of width K fits a window
at one column only:

    y[o, t] = Σ_n W[n] · x[o + n, t]                  width 1: K features
    y[o]    = Σ_n Σ_h W[n, h] · x[o + n, h]           width K: one feature

Width 1: a block of T consecutive windows reads R = T + N − 1 rows. All its features are the product
of these rows and a banded matrix, which is the same for all blocks (N = 3, T = 2):

    y[0]     W0 W1 W2  0      x[0] … x[3], [R, K]
    y[1]  =   0 W0 W1 W2  ·

Width K: the product of all rows and all rows of the filters is [M, C, N]. The feature of the window
that begins at row o is the sum of the products at (o + n, n), a diagonal.

This takes more operations than the transforms of `sliding_windows`, but no copies between them. In
float32 it is slower for long windows. Products in bfloat16 are 1.4 to 5 times as fast as the
transforms (`benchmarks/windows.py`).
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.data.prefixes import Windows
from comet_rec.precision import product_dtype

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

BLOCKS = (8, 32)
"""Numbers T of windows in a block.

All T windows are computed, also those past the end of a piece, so short pieces have small blocks.
"""

ROW_COST = 16
"""Time to gather a row of a block, relative to that of multiplying the row for one window."""


def banded_features(
    table: Float[Tensor, "V K"],
    windows: Windows,
    filters: list[Float[Tensor, "_ N _"]],
    biases: list[Float[Tensor, " _"]],
    weight: Float[Tensor, "O D"] | None = None,
) -> Float[Tensor, "W _"]:
    """Cross features of all windows of N consecutive rows of each piece, [W, D] or [W, O].

    The arguments and the result are those of `sliding_windows.window_features`, but each filter has
    the width 1 or K. Products are computed in `product_dtype`.
    """
    k, dtype = table.shape[1], product_dtype(table)
    parts = []
    for filter_, bias in zip(filters, biases, strict=True):
        if filter_.shape[2] == k:
            values = _WholeRows.apply(table, filter_, windows, dtype)  # type: ignore[no-untyped-call]
            parts.append(values + bias.to(dtype))  # [W, C]
        else:
            values = _SingleColumns.apply(table, filter_[:, :, 0], windows, dtype)  # type: ignore[no-untyped-call]
            parts.append((values + bias.to(dtype)[:, None]).flatten(1))  # [W, C · K]
    features = torch.relu(torch.cat(parts, dim=1))  # in the order of `Layout`
    if weight is not None:
        features = features @ weight.to(dtype).T
    return features.to(table.dtype)


class _SingleColumns(torch.autograd.Function):
    """Features of filters of width 1 before bias and ReLU: [W, C, K] from filters [C, N]."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, filters: Tensor, windows: Windows, dtype: torch.dtype
    ) -> Tensor:
        (channels, n), k = filters.shape, table.shape[1]
        rows, kept = blocks(windows)  # [B, R]
        x = _with_pad(table, dtype)[rows]  # [B, R, K]
        size = rows.shape[1] - n + 1  # T
        # T before C: so the rows of the product are windows in order, each with its C · K features.
        matrix = x.new_zeros((size, channels, rows.shape[1]))  # [T, C, R]
        band(matrix, n).copy_(filters)
        products = matrix.flatten(0, 1) @ x  # [B, T · C, K]
        ctx.save_for_backward(table, x, rows, kept, matrix)
        return products.view(-1, channels, k).index_select(0, kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        table, x, rows, kept, matrix = ctx.saved_tensors
        size, channels, length = matrix.shape
        n, k = length - size + 1, x.shape[2]
        # Windows past the end of a piece have no gradient.
        d_products = x.new_zeros((len(x) * size, channels, k)).index_copy_(0, kept, grads[0])
        d_products = d_products.view(len(x), size * channels, k)  # [B, T · C, K]
        d_x = matrix.flatten(0, 1).T @ d_products  # [B, R, K]
        d_matrix = torch.bmm(d_products, x.mT).sum(0, dtype=table.dtype).view(matrix.shape)
        return _table_gradient(table, rows, d_x), band(d_matrix, n).sum(0), None, None


class _WholeRows(torch.autograd.Function):
    """Features of filters of width K before bias and ReLU: [W, C] from filters [C, N, K]."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, filters: Tensor, windows: Windows, dtype: torch.dtype
    ) -> Tensor:
        channels, n, k = filters.shape
        values = windows.pieces.values
        real = torch.nonzero(values != len(table))[:, 0]  # products of pads are zero
        x = table.to(dtype)[values[real]]  # [Mʳ, K]
        products = x.new_zeros((len(values), channels * n))
        products[real] = x @ filters.to(dtype).view(-1, k).T  # [M, C · N]
        # Row o of the view holds the products at (o + n, c, n) for all n.
        shape, strides = (len(values) - n + 1, channels, n), (channels * n, n, channels * n + 1)
        sums = products.as_strided(shape, strides).sum(2)
        begins = beginnings(windows)
        ctx.save_for_backward(table, x, values, real, begins, filters)
        return sums.index_select(0, begins)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        table, x, values, real, begins, filters = ctx.saved_tensors
        channels, n, k = filters.shape
        # The product at (m, c, n) is in the window that begins at row m − n. With N − 1 rows before
        # them, the gradients of windows m − N + 1 … m are rows m … m + N − 1: n runs backwards.
        d_sums = x.new_zeros((len(values) + n - 1, channels))
        d_sums.index_copy_(0, begins + n - 1, grads[0])
        d_products = d_sums.unfold(0, n, 1)[real].flatten(1)  # [Mʳ, C · N]
        backwards = filters.flip(1).to(x.dtype).view(-1, k)  # [C · N, K]
        d_table = _table_gradient(table, values[real], d_products @ backwards)
        d_filters = (d_products.T @ x).to(filters.dtype).view(filters.shape).flip(1)
        return d_table, d_filters, None, None


def blocks(windows: Windows) -> tuple[Int[Tensor, "B R"], Int[Tensor, " W"]]:
    """Rows that each block of T windows reads, and the places of the windows among all blocks.

    Windows past the end of a piece read its last row again; they are not among those places.
    """
    counts, n = windows.counts, windows.length

    def cost(size: int) -> int:
        return int((-(-counts // size)).sum()) * (size + n - 1) * (size + ROW_COST)

    size = min(BLOCKS, key=cost)
    numbers = -(-counts // size)  # blocks of each piece
    piece = torch.arange(len(counts), device=counts.device).repeat_interleave(numbers)
    before = numbers.cumsum(0) - numbers  # blocks of the pieces before
    number = torch.arange(len(piece), device=counts.device) - before[piece]  # within its piece
    begin = windows.pieces.starts[piece] + number * size
    rows = begin[:, None] + torch.arange(size + n - 1, device=counts.device)
    rows = torch.minimum(rows, windows.pieces.starts[piece + 1][:, None] - 1)
    places = number[:, None] * size + torch.arange(size, device=counts.device)  # [B, T]
    kept = torch.nonzero((places < counts[piece][:, None]).flatten())[:, 0]
    return windows.pieces.values[rows], kept


def beginnings(windows: Windows) -> Int[Tensor, " W"]:
    """Row of all pieces at which each window begins."""
    counts = windows.counts
    piece = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    # A piece has N − 1 fewer windows than rows.
    return torch.arange(len(piece), device=counts.device) + piece * (windows.length - 1)


def band(matrix: Float[Tensor, "T C R"], n: int) -> Float[Tensor, "T C N"]:
    """View of the columns t … t + N − 1 of row t of a banded matrix."""
    size, channels, length = matrix.shape
    return matrix.as_strided((size, channels, n), (channels * length + 1, length, 1))


def _with_pad(table: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of `table` in `dtype`, and a row of zeros for the pad."""
    return nnf.pad(table.to(dtype), (0, 0, 0, 1))


def _table_gradient(table: Tensor, rows: Tensor, d_x: Tensor) -> Tensor:
    """Gradient of the table, from that of the rows that were read; the pad has none."""
    d_table = table.new_zeros((len(table) + 1, table.shape[1]))
    # In the dtype of the table: a sum of many bfloat16 numbers would lose the small ones.
    d_table.index_add_(0, rows.flatten(), d_x.flatten(0, -2).to(table.dtype))
    return d_table[:-1]

"""Inner products of chosen pairs of vectors, without gathering a vector for each pair.

A batch has several pairs for each distinct user and item. Its pairs are the pattern of a sparse
matrix [U, I], row by row (CSR), and only the entries of the pattern are computed:

              item 0   item 1   item 2
    user 0  [ pair 0     ·      pair 1 ]        values = (left @ rightᵀ) at the pattern
    user 1  [   ·      pair 2     ·    ]

With G the matrix whose entries are the pairs' gradients, the gradients are sparse products too:
d left = G @ right and d right = Gᵀ @ left.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def gathered_products(
    left: Float[Tensor, "U K"],
    right: Float[Tensor, "I K"],
    rows: Int[Tensor, " P"],
    columns: Int[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """As `pair_products`, with a vector for each end of each pair: the slow form."""
    return (left.index_select(0, rows) * right.index_select(0, columns)).sum(dim=1)


def pair_products(
    left: Float[Tensor, "U K"],
    right: Float[Tensor, "I K"],
    rows: Int[Tensor, " P"],
    columns: Int[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """``left[rows[p]] · right[columns[p]]`` for every pair.

    Parameters
    ----------
    left, right : Tensor [U, K] and [I, K]
    rows : int64 [P]
        Ascending; the pairs are the pattern of a sparse [U, I] matrix, repeats allowed.
    columns : int64 [P]
    """
    crowded = len(rows) > len(left) * len(right)  # more pairs than a sparse matrix may hold
    if crowded or left.device.type not in ("cpu", "cuda"):
        return gathered_products(left, right, rows, columns)
    products: Tensor = _PairProducts.apply(left, right, rows, columns)  # type: ignore[no-untyped-call]
    return products


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        counts = torch.bincount(rows, minlength=len(left))
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))  # of each row's pairs, [U + 1]
        ctx.save_for_backward(left, right, starts, columns)
        pattern = _matrix(starts, columns, left.new_zeros(len(columns)), left, right)
        # beta = 0 leaves the pattern's own values out of the sum.
        products: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0)
        return products.values()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        left, right, starts, columns = ctx.saved_tensors
        matrix = _matrix(starts, columns, grads[0].contiguous(), left, right)
        return matrix @ right, matrix.t() @ left, None, None


def _matrix(starts: Tensor, columns: Tensor, values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Sparse matrix [U, I] of the pairs; unchecked, as a check would sort and compare each step."""
    return torch.sparse_csr_tensor(
        starts, columns, values, (len(left), len(right)), check_invariants=False
    )

"""Inner products of chosen pairs of vectors, without copying a vector for each pair.

A batch has several pairs for each distinct user and item. The pairs are the pattern of a sparse
matrix [U, I] in CSR form, and only the entries in the pattern are computed:

              item 0   item 1   item 2
    user 0  [ pair 0     ·      pair 1 ]        values = (left @ rightᵀ) at the pattern
    user 1  [   ·      pair 2     ·    ]

Let G be the sparse matrix with the gradients of the pairs as entries. Then the gradients of the
vectors are sparse products too: d left = G @ right and d right = Gᵀ @ left.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor

from comet_rec import verify

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


def gathered_products(
    left: Float[Tensor, "U K"],
    right: Float[Tensor, "I K"],
    rows: Int[Tensor, " P"],
    columns: Int[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """The same result as `pair_products`, by copying the vectors of each pair (slow, for tests)."""
    return (left.index_select(0, rows) * right.index_select(0, columns)).sum(dim=1)


def pair_products(
    left: Float[Tensor, "U K"],
    right: Float[Tensor, "I K"],
    rows: Int[Tensor, " P"],
    columns: Int[Tensor, " P"],
) -> Float[Tensor, " P"]:
    """Inner product ``left[rows[p]] · right[columns[p]]`` of each pair p, [P].

    Parameters
    ----------
    left, right : Tensor [U, K] and [I, K]
        Vectors, e.g. of users and items.
    rows : int64 [P]
        Rows of `left`, ascending; pairs may repeat.
    columns : int64 [P]
        Rows of `right`.
    """
    crowded = len(rows) > len(left) * len(right)  # a sparse matrix has at most U · I entries
    if crowded or verify.slow() or left.device.type not in ("cpu", "cuda"):
        return gathered_products(left, right, rows, columns)
    products: Tensor = _PairProducts.apply(left, right, rows, columns)  # type: ignore[no-untyped-call]
    return products


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        counts = torch.bincount(rows, minlength=len(left))
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))  # start of each row, [U + 1]
        ctx.save_for_backward(left, right, starts, columns)
        pattern = _matrix(starts, columns, left.new_zeros(len(columns)), left, right)
        # beta = 0 leaves the values of `pattern` itself out of the sum.
        products: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0)
        return products.values()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        left, right, starts, columns = ctx.saved_tensors
        matrix = _matrix(starts, columns, grads[0].contiguous(), left, right)
        return matrix @ right, matrix.t() @ left, None, None


def _matrix(starts: Tensor, columns: Tensor, values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Sparse matrix [U, I] in CSR form with these row starts, columns and values.

    PyTorch's slow checks of the structure are off.
    """
    return torch.sparse_csr_tensor(
        starts, columns, values, (len(left), len(right)), check_invariants=False
    )

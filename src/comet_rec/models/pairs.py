"""Inner products of two towers: of chosen pairs, as sparse products, or of users and all items."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from comet_rec.models.base import TensorBatch

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


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
        return (left.index_select(0, rows) * right.index_select(0, columns)).sum(dim=1)
    products: Tensor = _PairProducts.apply(left, right, rows, columns)  # type: ignore[no-untyped-call]
    return products


def positives_and_items(
    model: Any, batch: TensorBatch, rng: torch.Generator | None
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "I K"]]:
    """Vectors h ⊙ z_u of each positive's user and z_i of the batch's items.

    Parameters
    ----------
    model : TwoTower
        One whose training logit is the inner product of its two vectors; of one that shows each
        positive another user, with `encode_positives`.
    batch : TensorBatch
        Positives alone.
    rng : torch.Generator or None
        Draws dropout.
    """
    if hasattr(model, "encode_positives"):
        return model.encode_positives(batch) * model.weight, model.encode_items(batch.items)
    z_users = model.encode_users(batch.users, batch.user_histories, rng)
    z_items = model.encode_items(batch.items, batch.item_histories, rng)
    trained = z_users.shape[1]  # a part that is trained elsewhere has no vector of the user here
    z_users = z_users * model.weight[:trained]
    return z_users.index_select(0, batch.pair_users), z_items[:, :trained]


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        starts = torch.nn.functional.pad(
            torch.bincount(rows, minlength=len(left)).cumsum(0), (1, 0)
        )
        ctx.save_for_backward(left, right, starts, columns)
        pattern = _matrix(starts, columns, left.new_zeros(len(columns)), left, right)
        products: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0)
        return products.values()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        left, right, starts, columns = ctx.saved_tensors
        matrix = _matrix(starts, columns, grads[0].contiguous(), left, right)
        return matrix @ right, matrix.t() @ left, None, None


def _matrix(starts: Tensor, columns: Tensor, values: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(
        starts, columns, values, (len(left), len(right)), check_invariants=False
    )

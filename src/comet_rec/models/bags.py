"""Sums of embeddings over whole histories, each pair's own target left out."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.models.base import TensorBags, TensorBatch
from comet_rec.models.pairs import pair_products

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float


def bag_sums(table: Float[Tensor, "n K"], bags: TensorBags) -> Float[Tensor, "U K"]:
    """Σ_{j ∈ bag} table[j]; zero for an empty bag."""
    if len(bags) == 0:
        return table[:0]
    sums: Tensor = nnf.embedding_bag(
        bags.members, table, bags.starts, mode="sum", include_last_offset=True
    )
    return sums


def normaliser(counts: Tensor, alpha: float) -> Tensor:
    """count^(−α); 0 for an empty bag."""
    return torch.where(counts > 0, counts.clamp(min=1).float() ** -alpha, 0.0)


def bag_products(
    table: Float[Tensor, "n K"],
    items: Float[Tensor, "I K"],
    batch: TensorBatch,
    alpha: float,
    exclude_target: bool,
) -> Float[Tensor, " P"]:
    """|N|^(−α) Σ_{j ∈ N} table[j] · q_i for each pair, N = N(u), without i where i is in it.

    In training a pair's item is in N(u) exactly where the label is 1.

    Parameters
    ----------
    table : Tensor [n, K]
        The items' second factors.
    items : Tensor [I, K]
        Factors of the batch's items.
    batch : TensorBatch
        With bags as its users' histories.
    alpha : float
    exclude_target : bool
        Leave i out of N(u).
    """
    bags = batch.user_histories
    assert isinstance(bags, TensorBags)
    products = pair_products(bag_sums(table, bags), items, batch.pair_users, batch.pair_items)
    counts = bags.counts.index_select(0, batch.pair_users)
    if exclude_target:
        own = (table.index_select(0, batch.items) * items).sum(dim=1)
        products = products - batch.labels * own.index_select(0, batch.pair_items)
        counts = counts - batch.labels.long()
    return products * normaliser(counts, alpha)

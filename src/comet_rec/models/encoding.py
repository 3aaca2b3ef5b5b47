"""Vectors of all users and items of a two-tower model, a block at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comet_rec.data.histories import UserHistories

BLOCK = 2048


@torch.no_grad()
def all_vectors(
    model: Any,
    user_histories: UserHistories | None,
    item_histories: Tensor | None,
    n_users: int,
    n_items: int,
) -> tuple[Tensor, Tensor]:
    """Vectors whose plain inner product is the logit of Eq. 8: h ⊙ z_u [m, W] and z_i [n, W].

    Parameters
    ----------
    model : TwoTower
    user_histories, item_histories : int [m, N] and [n, N], whole histories, or None
        As evaluation and serving give them.
    n_users, n_items : int
    """
    users = _encoded(model, model.encode_users, user_histories, n_users)
    items = _encoded(model, model.encode_items, item_histories, n_items)
    return users * model.weight.detach(), items


@torch.no_grad()
def new_user_vectors(model: Any, histories: UserHistories) -> Tensor:
    """Vectors h ⊙ z_u of users that training never saw, [B, W], from their histories alone."""

    def encode(indices: Tensor, block: Any) -> Tensor:
        vectors: Tensor = model.encode_users(None, block)
        return vectors

    weight: Tensor = model.weight.detach()
    return _encoded(model, encode, histories, len(histories)) * weight


def _encoded(model: Any, encode: Any, histories: UserHistories | None, count: int) -> Tensor:
    device = model.weight.device
    out = []
    for first in range(0, count, BLOCK):
        indices = torch.arange(first, min(first + BLOCK, count))
        block = None if histories is None else histories[indices].to(device)
        out.append(encode(indices.to(device), block))
    return torch.cat(out) if out else model.weight.detach().new_empty((0, len(model.weight)))

"""From a two-tower model to its two matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.bags import Bags, Views
from comet_rec.models.base import on_device

BLOCK = 2048


@torch.no_grad()
def all_vectors(
    model: Any,
    user_histories: npt.NDArray[Any] | Bags | Views | None,
    item_histories: npt.NDArray[Any] | None,
    n_users: int,
    n_items: int,
) -> tuple[Tensor, Tensor]:
    """Vectors whose plain inner product is the logit of Eq. 8: h ⊙ z_u [m, K] and z_i [n, K].

    Parameters
    ----------
    model : TwoTower
    user_histories, item_histories : int [m, N] and [n, N], bags, or None
        What evaluation and serving show.
    n_users, n_items : int
    """
    users = _encoded(model, model.encode_users, user_histories, n_users)
    items = _encoded(model, model.encode_items, item_histories, n_items)
    return users * model.weight.detach(), items


@torch.no_grad()
def new_user_vectors(model: Any, histories: npt.NDArray[Any] | Bags | Views) -> Tensor:
    """Vectors h ⊙ z_u of users whom training never saw, [B, K]; their own embedding is zero."""

    def encode(indices: Tensor, shown: Any) -> Tensor:
        vectors: Tensor = model.encode_users(None, shown)
        return vectors

    weight: Tensor = model.weight.detach()
    return _encoded(model, encode, histories, len(histories)) * weight


def _encoded(
    model: Any, encode: Any, histories: npt.NDArray[Any] | Bags | Views | None, count: int
) -> Tensor:
    device = model.weight.device
    out = []
    for first in range(0, count, BLOCK):
        indices = np.arange(first, min(first + BLOCK, count))
        shown = None if histories is None else on_device(histories[indices], device)
        out.append(encode(torch.from_numpy(indices).to(device), shown))
    return torch.cat(out) if out else model.weight.detach().new_empty((0, len(model.weight)))

"""Both matrices of a two-tower model, under the histories that evaluation and serving show."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.histories import Histories
from comet_rec.data.interactions import Interactions
from comet_rec.data.randomness import generator
from comet_rec.evaluation.ranking import Rows
from comet_rec.models.encoding import all_vectors


def shown_histories(
    model: Any, rows: Interactions
) -> tuple[npt.NDArray[np.int32] | None, npt.NDArray[np.int32] | None]:
    """What evaluation and serving show of N(u) and N(i): one fixed draw, whatever the seed."""
    if model.histories is None:
        return None, None
    histories = Histories.of(rows)
    return (
        histories.users.fixed(model.histories, generator(0, "shown.users")),
        histories.items.fixed(model.histories, generator(0, "shown.items")),
    )


def vectors(
    model: Any, rows: Interactions, shown: tuple[npt.NDArray[Any] | None, ...]
) -> tuple[Tensor, Tensor]:
    """Both matrices of a two-tower model under these histories, on the CPU."""
    users, items = all_vectors(model, shown[0], shown[1], rows.n_users, rows.n_items)
    return users.cpu(), items.cpu()


def inner_products(users: Tensor, items: Tensor) -> Rows:
    """Scores of all items for a block of users, from the two matrices."""

    def rows(block: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.asarray((users[torch.from_numpy(block)] @ items.T).numpy())

    return rows

"""Popularity: every user gets the same most popular items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.data.arrays import Array
from comet_rec.data.interactions import Interactions
from comet_rec.models.interfaces import FoldIn, NonIterative


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    """Settings of Popularity: it has none."""


class Popularity(NonIterative, FoldIn):
    """Model that scores each item by its number of users, equally for every user."""

    def __init__(
        self, config: PopularityConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        self.counts = np.zeros(n_items, dtype=np.float32)

    def fit(self, log: Interactions) -> None:
        """Count the users of each item in `log`."""
        self.counts = np.bincount(log.items, minlength=log.n_items).astype(np.float32)

    def score_all(
        self, users: npt.NDArray[np.int64], histories: csr_array
    ) -> npt.NDArray[np.float32]:
        """Scores of all n items, [B, n]: the same row for each user."""
        return np.tile(self.counts, (histories.shape[0], 1))

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Zeros, because the score does not depend on the history."""
        return np.zeros(len(history))

    @staticmethod
    def arrays(config: PopularityConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        return {"counts": Array(shape=(n_items,))}

    def state_dict(self) -> dict[str, Tensor]:
        """The item counts as a named tensor."""
        return {"counts": torch.from_numpy(self.counts)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.counts = state["counts"].numpy()

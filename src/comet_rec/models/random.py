"""Random: scores without meaning, the floor of every table and a check of the protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.data.arrays import Array, indices
from comet_rec.data.interactions import Interactions
from comet_rec.models.interfaces import NonIterative
from comet_rec.random import generator


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Nothing to set."""


class Random(NonIterative):
    """Uniform scores, a function of (seed, user, item) alone."""

    def __init__(
        self, config: RandomConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        self.seed = int(torch.randint(2**31, (1,), generator=rng))

    def fit(self, log: Interactions) -> None:
        """Nothing to learn."""

    def score_all(
        self, users: npt.NDArray[np.int64], histories: csr_array
    ) -> npt.NDArray[np.float32]:
        """Scores of all items, [B, n]."""
        n = histories.shape[1]
        rows = [generator(self.seed, "random", int(u)).random(n, np.float32) for u in users]
        return np.array(rows, dtype=np.float32).reshape(len(users), n)

    @staticmethod
    def arrays(config: RandomConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Arrays of the state."""
        return {"seed": indices((), 2**31)}

    def state_dict(self) -> dict[str, Tensor]:
        """State as named tensors."""
        return {"seed": torch.tensor(self.seed)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state."""
        self.seed = int(state["seed"])

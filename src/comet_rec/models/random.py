"""Random scores: the lowest baseline, which also tests the evaluation protocol."""

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
    """Settings of Random: it has none."""


class Random(NonIterative):
    """Model with uniform random scores, a pure function of (seed, user, item)."""

    def __init__(
        self, config: RandomConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        self.seed = int(torch.randint(2**31, (1,), generator=rng))

    def fit(self, log: Interactions) -> None:
        """Do nothing, because random scores learn nothing."""

    def score_all(
        self, users: npt.NDArray[np.int64], histories: csr_array
    ) -> npt.NDArray[np.float32]:
        """Scores of all n items for each user index in `users`, [B, n]."""
        n = histories.shape[1]
        rows = [generator(self.seed, "random", int(u)).random(n, np.float32) for u in users]
        return np.array(rows, dtype=np.float32).reshape(len(users), n)

    @staticmethod
    def arrays(config: RandomConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        return {"seed": indices((), 2**31)}

    def state_dict(self) -> dict[str, Tensor]:
        """The seed as a named tensor."""
        return {"seed": torch.tensor(self.seed)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.seed = int(state["seed"])

"""SVD++ for implicit feedback only (Koren, Factorization Meets the Neighborhood, 2008).

| parameter | shape | initial values |
|---|---|---|
| user_embedding | [m, K] | uniform ± init_scale |
| item_embedding, history_embedding | [n, K] each | uniform ± init_scale |
| biases | [m], [n], [1] | 0 |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.config import positive
from comet_rec.data.batches import Batch
from comet_rec.data.histories import FULL, HistorySettings, Ragged
from comet_rec.models.interfaces import FoldIn
from comet_rec.models.kernels.pair_products import pair_products
from comet_rec.models.latent import LatentFactors, history_means, history_parts, history_products

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class SVDppConfig:
    """Settings of SVD++.

    Parameters
    ----------
    embedding_dim : int
        K, the size of the embeddings.
    exclude_target : bool
        Leave a training pair's own item out of N(u).
    init_scale : float
        Initial embeddings are uniform in ± this number.
    """

    embedding_dim: int = 64
    exclude_target: bool = True
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")


class SVDpp(LatentFactors, FoldIn):
    """Logit b + b_u + b_i + q_i · (p_u + |N(u)|^(−½) Σ_{j∈N(u)} y_j) (Koren 2008, Eq. 15).

    New users have p_u = 0 and b_u = 0.
    """

    tables = ("user_embedding", "item_embedding", "history_embedding")

    @classmethod
    def scores_one_user(cls, config: SVDppConfig) -> bool:
        """Whether a training step scores all items with the same vector of a user.

        It is false if N(u) leaves out the item of each pair, because f_u then differs between
        items.
        """
        return not config.exclude_target

    @property
    def histories(self) -> HistorySettings:
        """Settings of the histories that the model reads: all of N(u)."""
        return replace(FULL, exclude_target=self.config.exclude_target)

    def factors_of(
        self, users: Int[Tensor, " U"] | None, histories: Ragged | Int[Tensor, "U L"] | None
    ) -> Float[Tensor, "U K"]:
        """Factors f_u = p_u + |N(u)|^(−½) Σ y_j of users, from their histories N(u)."""
        assert histories is not None
        factors = history_means(self.history_embedding, histories, 0.5)
        return factors if users is None else factors + self.user_embedding.index_select(0, users)

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Contribution |N|^(−½) y_j · q_i of each item j of a history to the score of item i."""
        assert z_item is not None
        return history_parts(self.history_embedding, history, 0.5, z_item)

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's pairs; N(u) leaves each pair's own item out if `exclude_target`."""
        assert self.biases is not None
        # N(u) without the pair's item differs between pairs, so there is no single vector f_u of a
        # user. The parts of p_u and of N(u) are computed separately.
        users = self.user_embedding.index_select(0, batch.users)  # [U, K]
        items = self.item_embedding.index_select(0, batch.items)  # [I, K]
        return (
            self.biases.of_pairs(batch)
            + pair_products(users, items, batch.pair_users, batch.pair_items)
            + history_products(
                self.history_embedding, items, batch, 0.5, self.config.exclude_target
            )
        )

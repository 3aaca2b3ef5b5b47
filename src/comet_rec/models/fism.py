"""FISM: factored item similarity (Kabbur, Ning, Karypis 2013), trained with BCE or a softmax.

| parameter | shape | initial values |
|---|---|---|
| history_embedding (P), item_embedding (Q) | [n, K] each | uniform ± init_scale |
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
from comet_rec.errors import ConfigError
from comet_rec.models.interfaces import FoldIn
from comet_rec.models.latent import (
    LatentFactors,
    history_means,
    history_parts,
    history_products,
    history_sums,
    normaliser,
)

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class FISMConfig:
    """Settings of FISM.

    Parameters
    ----------
    embedding_dim : int
        K, the size of the embeddings.
    alpha : float
        Exponent of the normaliser: 0 sums over the history, 1 takes the mean.
    exclude_target : bool
        Leave a training pair's own item out of N(u).
    init_scale : float
        Initial embeddings are uniform in ± this number.
    """

    embedding_dim: int = 64
    alpha: float = 0.5
    exclude_target: bool = True
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"model.alpha = {self.alpha}: must lie in [0, 1]")


class FISM(LatentFactors, FoldIn):
    """Logit b + b_u + b_i + |N|^(−α) Σ_{j∈N} p_j · q_i (Kabbur et al. 2013, Eq. 4).

    N is N(u). In training, N does not contain the scored item i. With a softmax loss, N is the same
    for all scored items: N(u) without the item of the positive. New users have b_u = 0.
    """

    tables = ("history_embedding", "item_embedding")

    @property
    def histories(self) -> HistorySettings:
        """Settings of the histories that the model reads: all of N(u)."""
        return replace(FULL, exclude_target=self.config.exclude_target)

    def factors_of(
        self, users: Int[Tensor, " U"] | None, histories: Ragged | Int[Tensor, "U L"] | None
    ) -> Float[Tensor, "U K"]:
        """Factors f_u = |N(u)|^(−α) Σ p_j of users, from their histories N(u)."""
        assert histories is not None
        return history_means(self.history_embedding, histories, self.config.alpha)

    def positives_and_items(
        self, batch: Batch, rng: torch.Generator | None
    ) -> tuple[Float[Tensor, "B W"], Float[Tensor, "I W"]]:
        """Vectors for a softmax loss, whose logits are the inner products of their rows.

        The first are vectors of the positives' users, [B, W]; N(u) leaves the positive out if
        `exclude_target`. The second are vectors of the batch's items, [I, W].
        """
        histories = batch.user_histories
        assert isinstance(histories, Ragged)
        assert self.biases is not None
        sums = history_sums(self.history_embedding, histories)  # [U, K]
        sums = sums.index_select(0, batch.pair_users)  # [B, K]
        counts = histories.counts.index_select(0, batch.pair_users)  # [B]
        if self.config.exclude_target:
            # A positive's item is always in N(u): subtract its factors from the sum.
            targets = batch.items.index_select(0, batch.pair_items)
            sums = sums - self.history_embedding.index_select(0, targets)
            counts = counts - 1
        vectors = sums * normaliser(counts, self.config.alpha)[:, None]
        users = batch.users.index_select(0, batch.pair_users)
        z_users = self.biases.with_users(vectors, users) * self.weight
        return z_users, self.encode_items(batch.items)

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Contribution |N|^(−α) p_j · q_i of each item j of a history to the score of item i."""
        assert z_item is not None
        return history_parts(self.history_embedding, history, self.config.alpha, z_item)

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's pairs; N(u) leaves each pair's own item out if `exclude_target`."""
        assert self.biases is not None
        config = self.config
        items = self.item_embedding.index_select(0, batch.items)  # [I, K]
        return self.biases.of_pairs(batch) + history_products(
            self.history_embedding, items, batch, config.alpha, config.exclude_target
        )

"""FISM: factored item similarity (Kabbur, Ning, Karypis 2013), trained with BCE or a softmax.

| parameter | shape | starts as |
|---|---|---|
| history_embedding (P), item_embedding (Q) | [n, K] each | uniform ± init_scale |
| biases | [m], [n], [1] | 0 |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comet_rec.coercion import positive
from comet_rec.data.arrays import Array, under
from comet_rec.data.histories import WHOLE
from comet_rec.errors import ConfigError
from comet_rec.models.bags import bag_products, bag_sums, normaliser
from comet_rec.models.base import TensorBags, TensorBatch
from comet_rec.models.layers import uniform
from comet_rec.models.mf import Biases

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class FISMConfig:
    """Settings of FISM.

    Parameters
    ----------
    embedding_dim : int
        K.
    alpha : float
        Exponent of the normaliser: 0 sums over the history, 1 takes its mean.
    exclude_target : bool
        Leave a training pair's own item out of N(u).
    init_scale : float
        Embeddings start uniform in ± this.
    """

    embedding_dim: int = 64
    alpha: float = 0.5
    exclude_target: bool = True
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"model.alpha = {self.alpha}: must lie in [0, 1]")


class FISM(nn.Module):
    """Logit b + b_u + b_i + |N|^(−α) Σ_{j∈N} p_j · q_i (Kabbur et al. 2013, Eq. 4).

    N is N(u), in training without i: under a softmax the positive's i, for all items that it is
    told from. `TwoTower` once trained, and `Trainable`; folds in new
    users, whose b_u is zero.

    Parameters
    ----------
    config : FISMConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    histories = WHOLE

    def __init__(
        self, config: FISMConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k, scale = config.embedding_dim, config.init_scale
        self.config = config
        self.history_embedding = uniform((n_items, k), scale, rng)
        self.item_embedding = uniform((n_items, k), scale, rng)
        self.biases = Biases(n_users, n_items)

    @staticmethod
    def arrays(config: FISMConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """What the state must be."""
        k = config.embedding_dim
        return {
            "history_embedding": Array(shape=(n_items, k)),
            "item_embedding": Array(shape=(n_items, k)),
            **under("biases", Biases.arrays(n_users, n_items)),
        }

    @staticmethod
    def vector_dim(config: FISMConfig) -> int:
        """W: the embedding and the two columns of the biases."""
        return config.embedding_dim + 2

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Ones: a plain inner product."""
        return self.item_embedding.new_ones(self.vector_dim(self.config))

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: TensorBags,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """[|N(u)|^(−α) Σ p_j, b + b_u, 1]."""
        sums = bag_sums(self.history_embedding, histories)
        vectors = sums * normaliser(histories.counts, self.config.alpha)[:, None]
        return self.biases.with_users(vectors, users)

    def encode_items(
        self,
        items: Int[Tensor, " I"],
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """[q_i, 1, b_i]."""
        return self.biases.with_items(self.item_embedding.index_select(0, items), items)

    def encode_positives(self, batch: TensorBatch) -> Float[Tensor, "B W"]:
        """`encode_users` for each positive, without its own item: what a softmax scores."""
        bags = batch.user_histories
        assert isinstance(bags, TensorBags)
        sums = bag_sums(self.history_embedding, bags).index_select(0, batch.pair_users)
        counts = bags.counts.index_select(0, batch.pair_users)
        if self.config.exclude_target:
            own = batch.items.index_select(0, batch.pair_items)
            sums = sums - self.history_embedding.index_select(0, own)
            counts = counts - 1
        vectors = sums * normaliser(counts, self.config.alpha)[:, None]
        return self.biases.with_users(vectors, batch.users.index_select(0, batch.pair_users))

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs, each one's own item left out of N(u)."""
        config = self.config
        items = self.item_embedding.index_select(0, batch.items)
        return self.biases.of_pairs(batch) + bag_products(
            self.history_embedding, items, batch, config.alpha, config.exclude_target
        )

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The two tables."""
        return [self.history_embedding, self.item_embedding]

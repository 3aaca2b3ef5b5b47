"""SVD++ on implicit data alone (Koren, Factorization Meets the Neighborhood, 2008).

| parameter | shape | starts as |
|---|---|---|
| user_embedding | [m, K] | uniform ± init_scale |
| item_embedding, history_embedding | [n, K] each | uniform ± init_scale |
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
from comet_rec.models.bags import bag_products, bag_sums, normaliser
from comet_rec.models.base import TensorBags, TensorBatch
from comet_rec.models.layers import uniform
from comet_rec.models.mf import Biases
from comet_rec.models.pairs import pair_products

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class SVDppConfig:
    """Settings of SVD++.

    Parameters
    ----------
    embedding_dim : int
        K.
    exclude_target : bool
        Leave a training pair's own item out of N(u).
    init_scale : float
        Embeddings start uniform in ± this.
    """

    embedding_dim: int = 64
    exclude_target: bool = True
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")


class SVDpp(nn.Module):
    """Logit b + b_u + b_i + q_i · (p_u + |N(u)|^(−½) Σ_{j∈N(u)} y_j) (Koren 2008, Eq. 15).

    `TwoTower` and `Trainable`; folds in new users, whose p_u and b_u are zero.

    Parameters
    ----------
    config : SVDppConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    histories = WHOLE
    leaves_out_by_pair = True

    def __init__(
        self, config: SVDppConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k, scale = config.embedding_dim, config.init_scale
        self.config = config
        self.user_embedding = uniform((n_users, k), scale, rng)
        self.item_embedding = uniform((n_items, k), scale, rng)
        self.history_embedding = uniform((n_items, k), scale, rng)
        self.biases = Biases(n_users, n_items)

    @staticmethod
    def arrays(config: SVDppConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """What the state must be."""
        k = config.embedding_dim
        return {
            "user_embedding": Array(shape=(n_users, k)),
            "item_embedding": Array(shape=(n_items, k)),
            "history_embedding": Array(shape=(n_items, k)),
            **under("biases", Biases.arrays(n_users, n_items)),
        }

    @staticmethod
    def vector_dim(config: SVDppConfig) -> int:
        """W: the embedding and the two columns of the biases."""
        return config.embedding_dim + 2

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Ones: a plain inner product."""
        return self.user_embedding.new_ones(self.vector_dim(self.config))

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: TensorBags,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """[p_u + |N(u)|^(−½) Σ y_j, b + b_u, 1]."""
        vectors = bag_sums(self.history_embedding, histories)
        vectors = vectors * normaliser(histories.counts, 0.5)[:, None]
        if users is not None:
            vectors = vectors + self.user_embedding.index_select(0, users)
        return self.biases.with_users(vectors, users)

    def encode_items(
        self,
        items: Int[Tensor, " I"],
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """[q_i, 1, b_i]."""
        return self.biases.with_items(self.item_embedding.index_select(0, items), items)

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs, each one's own item left out of N(u)."""
        users = self.user_embedding.index_select(0, batch.users)
        items = self.item_embedding.index_select(0, batch.items)
        return (
            self.biases.of_pairs(batch)
            + pair_products(users, items, batch.pair_users, batch.pair_items)
            + bag_products(self.history_embedding, items, batch, 0.5, self.config.exclude_target)
        )

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The three tables."""
        return [self.user_embedding, self.item_embedding, self.history_embedding]

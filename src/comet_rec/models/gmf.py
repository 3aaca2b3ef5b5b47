"""GMF: generalised matrix factorisation (He et al., Neural Collaborative Filtering, 2017).

| parameter | shape | starts as |
|---|---|---|
| user_embedding, item_embedding | [m, K], [n, K] | uniform ± init_scale |
| h | [K] | 1 |
| bias | [1] | 0 |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comet_rec.coercion import positive
from comet_rec.data.arrays import Array
from comet_rec.models.base import TensorBatch
from comet_rec.models.layers import uniform
from comet_rec.models.pairs import pair_products

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class GMFConfig:
    """Settings of GMF.

    Parameters
    ----------
    embedding_dim : int
        K.
    init_scale : float
        Embeddings start uniform in ± this.
    """

    embedding_dim: int = 64
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")


class GMF(nn.Module):
    """Logit hᵀ(p_u ⊙ q_i) + b (He et al. 2017, Eq. 8, 9); `TwoTower` and `Trainable`.

    Choice: the output layer has a bias, as in the authors' code; the paper prints none.

    Parameters
    ----------
    config : GMFConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    histories = None

    def __init__(self, config: GMFConfig, n_users: int, n_items: int, rng: torch.Generator) -> None:
        super().__init__()
        k, scale = config.embedding_dim, config.init_scale
        self.config = config
        self.user_embedding = uniform((n_users, k), scale, rng)
        self.item_embedding = uniform((n_items, k), scale, rng)
        self.h = nn.Parameter(torch.ones(k))
        self.bias = nn.Parameter(torch.zeros(1))

    @staticmethod
    def arrays(config: GMFConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """What the state must be."""
        k = config.embedding_dim
        return {
            "user_embedding": Array(shape=(n_users, k)),
            "item_embedding": Array(shape=(n_items, k)),
            "h": Array(shape=(k,)),
            "bias": Array(shape=(1,)),
        }

    @staticmethod
    def vector_dim(config: GMFConfig) -> int:
        """W: the embedding and a column for b."""
        return config.embedding_dim + 1

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """[h, 1]."""
        return torch.cat([self.h, torch.ones_like(self.bias)])

    def encode_users(
        self,
        users: Int[Tensor, " U"],
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """[p_u, b]."""
        own = self.user_embedding.index_select(0, users)
        return torch.column_stack([own, self.bias.expand(len(own))])

    def encode_items(
        self,
        items: Int[Tensor, " I"],
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """[q_i, 1]."""
        own = self.item_embedding.index_select(0, items)
        return torch.column_stack([own, own.new_ones(len(own))])

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs."""
        users = self.encode_users(batch.users) * self.weight
        return pair_products(
            users, self.encode_items(batch.items), batch.pair_users, batch.pair_items
        )

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The two tables."""
        return [self.user_embedding, self.item_embedding]

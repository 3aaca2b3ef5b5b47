"""BCE-MF: matrix factorisation with biases (Koren, Bell, Volinsky 2009), trained on implicit data.

| parameter | shape | starts as |
|---|---|---|
| user_embedding, item_embedding | [m, K], [n, K] | uniform ± init_scale |
| user_bias, item_bias, bias | [m], [n], [] | 0 |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comet_rec.coercion import positive
from comet_rec.data.arrays import Array, under
from comet_rec.models.base import TensorBags, TensorBatch
from comet_rec.models.layers import uniform
from comet_rec.models.pairs import pair_products

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class MFConfig:
    """Settings of MF.

    Parameters
    ----------
    embedding_dim : int
        K.
    biases : bool
        Whether the logit holds b + b_u + b_i beside p_u · q_i.
    init_scale : float
        Embeddings start uniform in ± this.
    """

    embedding_dim: int = 64
    biases: bool = True
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")


class MF(nn.Module):
    """Logit b + b_u + b_i + p_u · q_i (Koren et al. 2009, Eq. 4); `TwoTower`, `Trainable`.

    Parameters
    ----------
    config : MFConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    histories = None

    def __init__(self, config: MFConfig, n_users: int, n_items: int, rng: torch.Generator) -> None:
        super().__init__()
        k, scale = config.embedding_dim, config.init_scale
        self.config = config
        self.user_embedding = uniform((n_users, k), scale, rng)
        self.item_embedding = uniform((n_items, k), scale, rng)
        self.biases = Biases(n_users, n_items) if config.biases else None

    @staticmethod
    def arrays(config: MFConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """What the state must be."""
        k = config.embedding_dim
        tables = {
            "user_embedding": Array(shape=(n_users, k)),
            "item_embedding": Array(shape=(n_items, k)),
        }
        biases = under("biases", Biases.arrays(n_users, n_items)) if config.biases else {}
        return tables | biases

    @staticmethod
    def vector_dim(config: MFConfig) -> int:
        """W: the embedding and, with biases, two columns."""
        return config.embedding_dim + (2 if config.biases else 0)

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Ones: a plain inner product."""
        return self.user_embedding.new_ones(self.vector_dim(self.config))

    def encode_users(
        self,
        users: Int[Tensor, " U"],
        histories: Tensor | TensorBags | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """[p_u, b + b_u, 1]; without biases p_u."""
        own = self.user_embedding.index_select(0, users)
        return own if self.biases is None else self.biases.with_users(own, users)

    def encode_items(
        self,
        items: Int[Tensor, " I"],
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """[q_i, 1, b_i]; without biases q_i."""
        own = self.item_embedding.index_select(0, items)
        return own if self.biases is None else self.biases.with_items(own, items)

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs."""
        users, items = self.encode_users(batch.users), self.encode_items(batch.items)
        return pair_products(users, items, batch.pair_users, batch.pair_items)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The two tables."""
        return [self.user_embedding, self.item_embedding]


class Biases(nn.Module):
    """b, b_u and b_i as two more columns of the vectors that an inner product joins."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.users = nn.Parameter(torch.zeros(n_users))
        self.items = nn.Parameter(torch.zeros(n_items))

    @staticmethod
    def arrays(n_users: int, n_items: int) -> dict[str, Array]:
        """What the state must be."""
        sizes = {"bias": 1, "users": n_users, "items": n_items}
        return {name: Array(shape=(size,)) for name, size in sizes.items()}

    def with_users(
        self, vectors: Float[Tensor, "U K"], users: Int[Tensor, " U"] | None
    ) -> Float[Tensor, "U W"]:
        """Append b + b_u and 1; users that training never saw have b_u = 0."""
        own = self.bias.expand(len(vectors))
        own = own if users is None else own + self.users.index_select(0, users)
        return torch.column_stack([vectors, own, torch.ones_like(own)])

    def with_items(
        self, vectors: Float[Tensor, "I K"], items: Int[Tensor, " I"]
    ) -> Float[Tensor, "I W"]:
        """Append 1 and b_i."""
        own = self.items.index_select(0, items)
        return torch.column_stack([vectors, torch.ones_like(own), own])

    def of_pairs(self, batch: TensorBatch) -> Float[Tensor, " P"]:
        """B + b_u + b_i of a batch's pairs."""
        users = self.users.index_select(0, batch.users.index_select(0, batch.pair_users))
        items = self.items.index_select(0, batch.items.index_select(0, batch.pair_items))
        return self.bias + users + items

"""GMF: generalised matrix factorisation (He et al., Neural Collaborative Filtering, 2017).

| parameter | shape | initial values |
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

from comet_rec.config import positive
from comet_rec.data.arrays import Array
from comet_rec.data.histories import Ragged
from comet_rec.models.latent import LatentFactors, known

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class GMFConfig:
    """Settings of GMF.

    Parameters
    ----------
    embedding_dim : int
        K, the size of the embeddings.
    init_scale : float
        Initial embeddings are uniform in ± this number.
    """

    embedding_dim: int = 64
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")


class GMF(LatentFactors):
    """Logit hᵀ(p_u ⊙ q_i) + b (He et al. 2017, Eq. 8, 9): vectors [p_u, b] and [q_i, 1].

    Choice: the output layer has a bias, as in the authors' code; their paper prints none.
    """

    tables = ("user_embedding", "item_embedding")

    def __init__(self, config: GMFConfig, n_users: int, n_items: int, rng: torch.Generator) -> None:
        super().__init__(config, n_users, n_items, rng)
        self.h = nn.Parameter(torch.ones(config.embedding_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    @classmethod
    def has_biases(cls, config: GMFConfig) -> bool:
        """False: a GMF has only the constant bias b."""
        return False

    @classmethod
    def arrays(cls, config: GMFConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        output = {"h": Array(shape=(config.embedding_dim,)), "bias": Array(shape=(1,))}
        return super().arrays(config, n_users, n_items) | output

    @classmethod
    def vector_dim(cls, config: GMFConfig) -> int:
        """Length W of the user and item vectors: the embedding and one column for b."""
        return config.embedding_dim + 1

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Weight [h, 1] of the inner product."""
        return torch.cat([self.h, torch.ones_like(self.bias)])

    def factors_of(
        self, users: Int[Tensor, " U"] | None, histories: Ragged | Int[Tensor, "U L"] | None
    ) -> Float[Tensor, "U W"]:
        """Vectors [p_u, b] of users; `histories` has no effect."""
        vectors = self.user_embedding.index_select(0, known(users, "user", self))
        return torch.column_stack([vectors, self.bias.expand(len(vectors))])

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """Vectors [q_i, 1] of items; `histories` and `rng` have no effect."""
        vectors = super().encode_items(items)
        return torch.column_stack([vectors, vectors.new_ones(len(vectors))])

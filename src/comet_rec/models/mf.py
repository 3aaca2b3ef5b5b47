"""BCE-MF: matrix factorisation with biases (Koren, Bell, Volinsky 2009), trained on implicit data.

| parameter | shape | initial values |
|---|---|---|
| user_embedding, item_embedding | [m, K], [n, K] | uniform ± init_scale |
| user_bias, item_bias, bias | [m], [n], [] | 0 |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from torch import Tensor

from comet_rec.config import positive
from comet_rec.data.histories import Ragged
from comet_rec.models.latent import LatentFactors, known

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class MFConfig:
    """Settings of MF.

    Parameters
    ----------
    embedding_dim : int
        K, the size of the embeddings.
    biases : bool
        Whether the logit contains b + b_u + b_i in addition to p_u · q_i.
    init_scale : float
        Initial embeddings are uniform in ± this number.
    """

    embedding_dim: int = 64
    biases: bool = True
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")


class MF(LatentFactors):
    """Logit b + b_u + b_i + p_u · q_i (Koren et al. 2009, Eq. 4)."""

    tables = ("user_embedding", "item_embedding")

    @classmethod
    def has_biases(cls, config: MFConfig) -> bool:
        """Whether the logit of a model with this config contains b + b_u + b_i."""
        return config.biases

    def factors_of(
        self, users: Int[Tensor, " U"] | None, histories: Ragged | Int[Tensor, "U L"] | None
    ) -> Float[Tensor, "U K"]:
        """Embeddings p_u of users."""
        return self.user_embedding.index_select(0, known(users, "user", self))

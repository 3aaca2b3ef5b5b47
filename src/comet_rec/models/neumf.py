"""NeuMF: GMF and MLP side by side (He et al., Neural Collaborative Filtering, 2017)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comet_rec.config import positive, share
from comet_rec.data.arrays import Array, under
from comet_rec.data.batches import Batch
from comet_rec.errors import ConfigError
from comet_rec.models.gmf import GMF, GMFConfig
from comet_rec.models.interfaces import PairScorer
from comet_rec.models.mlp import MLP, MLPConfig

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class NeuMFConfig:
    """Settings of NeuMF.

    Parameters
    ----------
    embedding_dim : int
        K, the size of the embeddings in each of the four tables.
    hidden : tuple of int
        Widths of the hidden layers of the MLP part.
    dropout : float
        Dropout after each hidden layer.
    init_scale : float
        Initial embeddings are uniform in ± this number.
    alpha : float
        Initial weight of the GMF in the output layer if it is initialised from pre-trained models.
        The MLP then has weight 1 − alpha.
    """

    embedding_dim: int = 64
    hidden: tuple[int, ...] = (64, 32, 16)
    dropout: float = 0.0
    init_scale: float = 0.05
    alpha: float = 0.5

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")
        share(self, "model", "dropout")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"model.alpha = {self.alpha}: must lie in [0, 1]")


class NeuMF(nn.Module, PairScorer):
    """Logit hᵀ[φ_GMF; φ_MLP] + b (He et al. 2017, Eq. 12).

    h has one part for φ_GMF and one for φ_MLP. So the logit is the sum of the logits of a GMF and
    an MLP with separate embeddings.

    Parameters
    ----------
    config : NeuMFConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    def __init__(
        self, config: NeuMFConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        gmf, mlp = _sides(config)
        self.gmf = GMF(gmf, n_users, n_items, rng)
        self.mlp = MLP(mlp, n_users, n_items, rng)

    @staticmethod
    def arrays(config: NeuMFConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        gmf, mlp = _sides(config)
        return {
            **under("gmf", GMF.arrays(gmf, n_users, n_items)),
            **under("mlp", MLP.arrays(mlp, n_users, n_items)),
        }

    @classmethod
    def sources(cls, config: NeuMFConfig) -> tuple[str, ...]:
        """Names of the pre-trained models whose parameters `initial_state` needs."""
        return ("gmf", "mlp")

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's (user, item) pairs; `rng` draws dropout, None switches it off."""
        logits: Tensor = self.gmf(batch, rng) + self.mlp(batch, rng)
        return logits

    def score_pairs(
        self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Logits [B, C] without dropout: row b of `items` holds the items for user ``users[b]``."""
        z_users = self.gmf.encode_users(users) * self.gmf.weight  # [B, W]
        # Multiply with each distinct item once, then pick the columns of each user's items.
        distinct, places = torch.unique(items, return_inverse=True)
        products = (z_users @ self.gmf.encode_items(distinct).T).gather(1, places)  # [B, C]
        scores: Tensor = products + self.mlp.score_pairs(users, items)
        return scores

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Embedding tables of users and items, of the GMF and of the MLP."""
        return [*self.gmf.embedding_parameters(), *self.mlp.embedding_parameters()]

    def initial_state(self, **states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters from a pre-trained GMF and MLP: h ← [α h_GMF; (1 − α) h_MLP] (2017, Eq. 13).

        They are given as ``gmf=…`` and ``mlp=…``.
        """
        gmf, mlp = states["gmf"], states["mlp"]
        alpha = self.config.alpha
        last = len(self.mlp.layers.weights) - 1
        outputs = {"h", "bias"}
        scaled = {f"layers.weights.{last}", f"layers.biases.{last}"}
        state = {f"gmf.{k}": v * alpha if k in outputs else v for k, v in gmf.items()}
        state |= {f"mlp.{k}": v * (1 - alpha) if k in scaled else v for k, v in mlp.items()}
        return state


def _sides(config: NeuMFConfig) -> tuple[GMFConfig, MLPConfig]:
    """Settings of the GMF and of the MLP inside a NeuMF."""
    k, scale = config.embedding_dim, config.init_scale
    mlp = MLPConfig(embedding_dim=k, hidden=config.hidden, dropout=config.dropout, init_scale=scale)
    return GMFConfig(embedding_dim=k, init_scale=scale), mlp

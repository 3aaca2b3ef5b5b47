"""MLP on concatenated embeddings (He et al., Neural Collaborative Filtering, 2017).

| parameter | shape | initial values |
|---|---|---|
| user_embedding, item_embedding | [m, K], [n, K] | uniform ± init_scale |
| layers' weights, biases | [out, in], [out] | Xavier uniform, 0 |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comet_rec.config import positive, share
from comet_rec.data.arrays import Array, under
from comet_rec.data.batches import Batch
from comet_rec.errors import ConfigError
from comet_rec.models.interfaces import PairScorer
from comet_rec.models.layers import Perceptron, uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Settings of MLP.

    Parameters
    ----------
    embedding_dim : int
        K, the size of user and item embeddings; the input of the first layer has 2 K numbers.
    hidden : tuple of int
        Widths of the hidden layers, from input to output.
    dropout : float
        Dropout after each hidden layer.
    init_scale : float
        Initial embeddings are uniform in ± this number.
    """

    embedding_dim: int = 64
    hidden: tuple[int, ...] = (64, 32, 16)
    dropout: float = 0.0
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "init_scale")
        share(self, "model", "dropout")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"model.hidden = {list(self.hidden)}: give at least one layer, each above 0"
            )


class MLP(nn.Module, PairScorer):
    """Logit hᵀφ_L(…φ_1([p_u, q_i])) + b (He et al. 2017, Eq. 10).

    The first layer's product is a sum of one product with p_u and one with q_i. So each distinct
    user and item is multiplied once, and a pair only needs the sum.

    Parameters
    ----------
    config : MLPConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    def __init__(self, config: MLPConfig, n_users: int, n_items: int, rng: torch.Generator) -> None:
        super().__init__()
        k, scale = config.embedding_dim, config.init_scale
        self.config = config
        self.user_embedding = uniform((n_users, k), scale, rng)
        self.item_embedding = uniform((n_items, k), scale, rng)
        self.layers = Perceptron(2 * k, config.hidden, 1, config.dropout, rng)

    @staticmethod
    def arrays(config: MLPConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        k = config.embedding_dim
        return {
            "user_embedding": Array(shape=(n_users, k)),
            "item_embedding": Array(shape=(n_items, k)),
            **under("layers", Perceptron.arrays(2 * k, config.hidden, 1)),
        }

    def _first(
        self, users: Int[Tensor, " U"], items: Int[Tensor, " I"]
    ) -> tuple[Float[Tensor, "U H"], Float[Tensor, "I H"]]:
        """The two terms W_u p_u and W_i q_i of the first layer's product W [p_u, q_i]."""
        user_weight, item_weight = self.layers.weights[0].split(self.config.embedding_dim, dim=1)
        return (
            self.user_embedding.index_select(0, users) @ user_weight.T,
            self.item_embedding.index_select(0, items) @ item_weight.T,
        )

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's (user, item) pairs; `rng` draws dropout, None switches it off."""
        users, items = self._first(batch.users, batch.items)
        # [P, H] with H the width of the first hidden layer; concatenation would be [P, 2 K].
        joined = users.index_select(0, batch.pair_users) + items.index_select(0, batch.pair_items)
        return self.layers.after_first(joined, rng)[:, 0]

    def score_pairs(
        self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Logits [B, C] without dropout: row b of `items` holds the items for user ``users[b]``."""
        distinct, places = torch.unique(items, return_inverse=True)
        user_part, item_part = self._first(users, distinct)
        joined = user_part[:, None, :] + item_part[places]  # [B, C, H]
        return self.layers.after_first(joined.flatten(0, 1), None).view(items.shape)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Embedding tables of users and items."""
        return [self.user_embedding, self.item_embedding]

"""ConvNCF: convolutions over an outer product (He et al., Outer Product-based NCF, IJCAI 2018).

| parameter | shape | initial values |
|---|---|---|
| user_embedding, item_embedding | [m, K], [n, K] | uniform ± init_scale |
| convolution weights, biases | [channels, in, 2, 2], [channels] | Xavier uniform, 0 |
| output weight, bias | [1, channels], [1] | Xavier uniform, 0 |
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.config import positive
from comet_rec.data.arrays import Array
from comet_rec.data.batches import Batch
from comet_rec.errors import ConfigError
from comet_rec.models.interfaces import PairScorer
from comet_rec.models.kernels.outer_product import patch_weight, two_layers
from comet_rec.models.layers import uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

PAIRS = 256
"""Number of pairs that are computed at a time. The second layer's output takes 32 KiB per pair at
K = 64."""


@dataclass(frozen=True, kw_only=True)
class ConvNCFConfig:
    """Settings of ConvNCF, by default those of its paper.

    Parameters
    ----------
    embedding_dim : int
        K, a power of two of at least 4, because each of the log2 K layers halves the map.
    channels : int
        Number of filters in each layer.
    init_scale : float
        Initial embeddings are uniform in ± this number.
    """

    embedding_dim: int = 64
    channels: int = 32
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "channels", "init_scale")
        if self.embedding_dim < 4 or self.embedding_dim & (self.embedding_dim - 1):
            raise ConfigError(
                f"model.embedding_dim = {self.embedding_dim}: must be a power of two "
                "from 4 on, because each layer halves the map; give 32 or 64"
            )


class ConvNCF(nn.Module, PairScorer):
    """Logit wᵀg + b, where g comes from log2 K convolutions over the outer product p_u ⊗ q_i.

    The convolutions are 2×2 with stride 2 and ReLU (He et al. 2018, Eq. 2 to 8). The training loss
    is BCE, as in the COMET paper, and not BPR.

    Parameters
    ----------
    config : ConvNCFConfig
    n_users, n_items : int
    rng : torch.Generator
        Draws the initial parameters.
    """

    full_ranking_users = 200
    """Number of test users that a full ranking samples, because a pair costs about 3 MFLOP."""

    def __init__(
        self, config: ConvNCFConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k, c = config.embedding_dim, config.channels
        self.config = config
        self.user_embedding = uniform((n_users, k), config.init_scale, rng)
        self.item_embedding = uniform((n_items, k), config.init_scale, rng)
        ins = _inputs(config)
        self.weights = nn.ParameterList(
            uniform((c, i, 2, 2), math.sqrt(6 / (4 * (i + c))), rng) for i in ins
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(c)) for _ in ins)
        self.output = uniform((1, c), math.sqrt(6 / (c + 1)), rng)
        self.bias = nn.Parameter(torch.zeros(1))

    @staticmethod
    def arrays(config: ConvNCFConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        k, c = config.embedding_dim, config.channels
        declared = {
            "user_embedding": Array(shape=(n_users, k)),
            "item_embedding": Array(shape=(n_items, k)),
            "output": Array(shape=(1, c)),
            "bias": Array(shape=(1,)),
        }
        for layer, inputs in enumerate(_inputs(config)):
            declared[f"weights.{layer}"] = Array(shape=(c, inputs, 2, 2))
            declared[f"biases.{layer}"] = Array(shape=(c,))
        return declared

    def _logits(self, users: Float[Tensor, "P K"], items: Float[Tensor, "P K"]) -> Tensor:
        (first, second, *others) = zip(self.weights, self.biases, strict=True)
        x = two_layers(users, items, first, second)  # [P, (K/4)², C]
        # Reorder once so that the four cells of each later 2×2 patch are neighbours in memory.
        x = x.index_select(1, _nested(self.config.embedding_dim // 4, x.device))
        for weight, bias in others:
            patches = x.reshape(-1, 4 * self.config.channels)  # one patch per row
            x = torch.addmm(bias, patches, patch_weight(weight)).relu()
        return nnf.linear(x.view(len(users), -1), self.output, self.bias)[:, 0]

    @classmethod
    def sources(cls, config: ConvNCFConfig) -> tuple[str, ...]:
        """Names of the pre-trained models whose parameters `initial_state` needs."""
        return ("mf",)

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's (user, item) pairs; `rng` has no effect without dropout."""
        users = self.user_embedding.index_select(0, batch.users)
        items = self.item_embedding.index_select(0, batch.items)
        return torch.cat(
            [
                self._logits(users.index_select(0, u), items.index_select(0, i))
                for u, i in _blocks(batch.pair_users, batch.pair_items)
            ]
        )

    def score_pairs(
        self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Logits [B, C]: row b of `items` holds the items for user ``users[b]``."""
        owners = users.repeat_interleave(items.shape[1])
        parts = [
            self._logits(self.user_embedding[u], self.item_embedding[i])
            for u, i in _blocks(owners, items.flatten())
        ]
        return torch.cat(parts).view(items.shape)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Embedding tables of users and items."""
        return [self.user_embedding, self.item_embedding]

    def initial_state(self, **states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters with the embeddings of a pre-trained MF (Sec. 3.4), given as ``mf=…``.

        All other parameters keep their random initial values.
        """
        tables = ("user_embedding", "item_embedding")
        return {**self.state_dict(), **{name: states["mf"][name] for name in tables}}


def _inputs(config: ConvNCFConfig) -> list[int]:
    """Number of input channels of each of the log2 K layers."""
    return [1] + [config.channels] * (config.embedding_dim.bit_length() - 2)


def _blocks(users: Tensor, items: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(users), PAIRS):
        yield users[first : first + PAIRS], items[first : first + PAIRS]


@cache
def _nested(side: int, device: torch.device) -> Tensor:
    """Cells of a [side, side] map, numbered row by row, in an order that keeps 2×2 patches whole.

    This is the Morton order: each group of four cells is a 2×2 patch, each group of four patches is
    a 4×4 patch, and so on. So each layer's input is a view of the previous layer's output.
    """
    order = torch.zeros(1, 1, dtype=torch.int64, device=device)
    while len(order) < side:
        size = len(order) ** 2
        order = torch.cat(
            [
                torch.cat([order, order + size], dim=1),
                torch.cat([order + 2 * size, order + 3 * size], dim=1),
            ]
        )
    return order.flatten().argsort()

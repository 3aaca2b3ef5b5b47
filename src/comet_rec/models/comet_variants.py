"""Other towers than the paper's: its ablations, falsifications, and a gate on the filters."""

from __future__ import annotations

import contextlib
import math

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.data.arrays import Array, under
from comet_rec.models.kernels.cross_features import Layout, embedding_maps
from comet_rec.models.layers import Perceptron, uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

MAPS = 64
"""Maps that are convolved at a time on a CPU: the output of a layer stays in the cache."""


class StridedConvolution(nn.Module):
    """Three 3×3 layers, stride 2, padding 0, ReLU, over the map as one image (Figure 3, CNN only).

    Parameters
    ----------
    rows, embedding_dim : int
        N and K, each at least 15.
    channels : int
        Filters of each layer.
    rng : torch.Generator
        Draws the initial weights, uniform in ±1/√(fan in).
    """

    def __init__(self, rows: int, embedding_dim: int, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for ins in (1, channels, channels):
            bound = 1 / math.sqrt(9 * ins)
            self.weights.append(uniform((channels, ins, 3, 3), bound, rng))
            self.biases.append(uniform((channels,), bound, rng))
        self.out_features = self.features(rows, embedding_dim, channels)

    @staticmethod
    def arrays(channels: int) -> dict[str, Array]:
        """What the state must be."""
        found = {f"biases.{layer}": Array(shape=(channels,)) for layer in range(3)}
        for layer, ins in enumerate((1, channels, channels)):
            found[f"weights.{layer}"] = Array(shape=(channels, ins, 3, 3))
        return found

    @staticmethod
    def features(rows: int, embedding_dim: int, channels: int) -> int:
        """Features of one map: each layer halves its sides."""
        for _ in range(3):
            rows, embedding_dim = (rows - 3) // 2 + 1, (embedding_dim - 3) // 2 + 1
        return channels * rows * embedding_dim

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"],
        weight: Float[Tensor, "O D"] | None = None,
    ) -> Float[Tensor, "B _"]:
        """Features [B, D], or their product with the next layer's weight, [B, O]."""
        maps = embedding_maps(table, histories)[:, None]
        size = MAPS if histories.device.type == "cpu" else max(1, len(maps))
        x = torch.cat([self._features(some) for some in torch.split(maps, size)])
        return x if weight is None else nnf.linear(x, weight)

    def _features(self, x: Float[Tensor, "B 1 N K"]) -> Float[Tensor, "B D"]:
        for filters, bias in zip(self.weights, self.biases, strict=True):
            x = torch.relu(nnf.conv2d(x, filters, bias, stride=2))
        return x.flatten(1)


class Flattened(nn.Module):
    """The map as one long vector (Figure 3, MLP only).

    Parameters
    ----------
    rows, embedding_dim : int
        N and K.
    """

    def __init__(self, rows: int, embedding_dim: int) -> None:
        super().__init__()
        self.out_features = rows * embedding_dim

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"],
        weight: Float[Tensor, "O D"] | None = None,
    ) -> Float[Tensor, "B _"]:
        """Features [B, N K], or their product with the next layer's weight, [B, O]."""
        x = embedding_maps(table, histories).flatten(1)
        return x if weight is None else nnf.linear(x, weight)


class SqueezeGate(nn.Module):
    """Weight of each filter, from the means of all filters' features (squeeze and excitation).

    With s the mean of each filter's features over its places [B, F], the features of filter f
    are multiplied by ``σ(W₂ · ReLU(W₁ s + b₁) + b₂)_f`` (Hu et al. 2018).

    Choice: the bottleneck has a quarter of the filters.

    Parameters
    ----------
    layout : Layout
        Which features belong to which filter.
    rng : torch.Generator
        Draws the initial weights (Xavier uniform); biases start at zero, all weights near ½.
    """

    def __init__(self, layout: Layout, rng: torch.Generator) -> None:
        super().__init__()
        self.layout = layout
        filters = layout.channels * len(layout.widths)
        self.mlp = Perceptron(filters, self.bottleneck(filters), filters, 0.0, rng)

    @staticmethod
    def bottleneck(filters: int) -> tuple[int, ...]:
        """Hidden layers of the gate."""
        return (max(1, filters // 4),)

    @staticmethod
    def arrays(filters: int) -> dict[str, Array]:
        """What the state must be."""
        return under("mlp", Perceptron.arrays(filters, SqueezeGate.bottleneck(filters), filters))

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Features, each filter's with its weight."""
        shape = (len(features), self.layout.channels)
        blocks = [
            features[:, where].reshape(*shape, places) for _, where, places in self.layout.parts()
        ]
        weights = torch.sigmoid(self.mlp(torch.cat([b.mean(dim=2) for b in blocks], dim=1), None))
        parts = zip(blocks, weights.chunk(len(blocks), dim=1), strict=True)
        return torch.cat([(b * w[:, :, None]).flatten(1) for b, w in parts], dim=1)

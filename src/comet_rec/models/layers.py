"""The multi-width convolution over an embedding map, the MLP, and dropout."""

from __future__ import annotations

import contextlib
import math
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.data.arrays import Array, under
from comet_rec.models.spectral import cross_features
from comet_rec.models.workspace import Layout

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

MAPS = 64
"""Maps that are convolved at a time on a CPU: what comes out of a layer stays in the cache."""

ConvolutionForm = Literal["frequency", "direct"]


class MultiWidthConvolution(nn.Module):
    """Convolutions of several widths whose filters cover all rows of the map (Eq. 4, 5).

    With E the map [N, K] and W_l a filter [N, H_l], feature t of the filter is
    ``Σ_n Σ_h W_l[n, h] · E[n, t + h] + b_l``, t = 0 … K − H_l, then ReLU. All features of all
    widths are concatenated, channel by channel.

    Parameters
    ----------
    rows : int
        N.
    embedding_dim : int
        K.
    widths : tuple of int
        H_l, distinct, ascending, each at most K.
    channels : int
        Filters of each width.
    form : {"frequency", "direct"}
        Two ways to the same numbers: `conv1d` over K with N input channels; or, by the
        correlation theorem, one small complex product per frequency on the table's transform.
    rng : torch.Generator
        Draws the initial weights, uniform in ±1/√(N·H) (the paper: "uniform").
    """

    def __init__(
        self,
        rows: int,
        embedding_dim: int,
        widths: tuple[int, ...],
        channels: int,
        form: ConvolutionForm,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.layout = Layout(embedding_dim, widths, channels)
        self.form = form
        bounds = [1 / math.sqrt(rows * width) for width in widths]
        self.weights = nn.ParameterList(
            uniform((channels, rows, width), bound, rng)
            for width, bound in zip(widths, bounds, strict=True)
        )
        self.biases = nn.ParameterList(uniform((channels,), bound, rng) for bound in bounds)

    @staticmethod
    def arrays(rows: int, widths: tuple[int, ...], channels: int) -> dict[str, Array]:
        """What the state must be."""
        filters = {f"weights.{i}": (channels, rows, width) for i, width in enumerate(widths)}
        biases = {f"biases.{i}": (channels,) for i in range(len(widths))}
        return {name: Array(shape=shape) for name, shape in (filters | biases).items()}

    @property
    def out_features(self) -> int:
        """Cross features of one map, D = channels · Σ_l (K − H_l + 1)."""
        return self.layout.features

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"],
        weight: Float[Tensor, "O D"] | None = None,
    ) -> Float[Tensor, "B _"]:
        """Cross features of the maps that `histories` picks from `table`, [B, D].

        Index V is a zero row. With the weight of the linear layer that follows, their product
        with it, [B, O].
        """
        if self.form == "frequency":
            return self._frequency(table, histories, weight)
        features = self._direct(table, histories)
        return features if weight is None else nnf.linear(features, weight)

    def _direct(self, table: Tensor, histories: Tensor) -> Tensor:
        maps = maps_of(table, histories)
        pairs = zip(self.weights, self.biases, strict=True)
        parts = [torch.relu(nnf.conv1d(maps, w, b)).flatten(1) for w, b in pairs]
        return torch.cat(parts, dim=1)

    def _frequency(self, table: Tensor, histories: Tensor, weight: Tensor | None = None) -> Tensor:
        if histories.numel() < len(table):
            # Most rows do not occur: transform those that do.
            used, histories = torch.unique(histories, return_inverse=True)
            table = table.index_select(0, used[used < len(table)])  # the pad stays last
        n = self.embedding_dim
        rows = torch.fft.rfft(nnf.pad(table, (0, 0, 0, 1)), n=n)
        filters = torch.cat([torch.fft.rfft(filter_, n=n) for filter_ in self.weights])
        return cross_features(
            rows,
            filters.conj().permute(2, 1, 0).contiguous(),
            torch.cat(list(self.biases)),
            histories,
            self.layout,
            weight,
        )


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
        maps = maps_of(table, histories)[:, None]
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
        x = maps_of(table, histories).flatten(1)
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


def maps_of(table: Float[Tensor, "V K"], histories: Int[Tensor, "B N"]) -> Float[Tensor, "B N K"]:
    """Embedding maps (Eq. 2, 3); index V is a zero row."""
    return nnf.embedding(histories, nnf.pad(table, (0, 0, 0, 1)))


class Perceptron(nn.Module):
    """Hidden layers with ReLU and dropout, then a linear output layer (Eq. 6, 7).

    Parameters
    ----------
    in_features, out_features : int
    hidden : tuple of int
        Width of each hidden layer.
    dropout : float
        Share of each hidden layer's outputs set to zero in training.
    rng : torch.Generator
        Draws the initial weights (Xavier uniform); biases start at zero.
    """

    def __init__(
        self,
        in_features: int,
        hidden: tuple[int, ...],
        out_features: int,
        dropout: float,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [in_features, *hidden, out_features]
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        self.weights = nn.ParameterList(
            uniform(shape, math.sqrt(6 / sum(shape)), rng) for shape in shapes
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes[1:])
        self.dropout = dropout

    @staticmethod
    def arrays(in_features: int, hidden: tuple[int, ...], out_features: int) -> dict[str, Array]:
        """What the state must be."""
        sizes = [in_features, *hidden, out_features]
        found = {f"biases.{i}": Array(shape=(size,)) for i, size in enumerate(sizes[1:])}
        for i, shape in enumerate(zip(sizes[1:], sizes[:-1], strict=True)):
            found[f"weights.{i}"] = Array(shape=shape)
        return found

    def forward(self, x: Float[Tensor, "B D"], rng: torch.Generator | None) -> Float[Tensor, "B K"]:
        """Output of the last layer; `rng` draws dropout, None switches it off."""
        return self.after_first(nnf.linear(x, self.weights[0]), rng)

    def after_first(
        self, x: Float[Tensor, "B _"], rng: torch.Generator | None
    ) -> Float[Tensor, "B K"]:
        """Output of the last layer, from the input times the first layer's weight."""
        x = x + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            x = nnf.linear(drop(torch.relu(x), self.dropout, rng), weight, bias)
        return x


def uniform(shape: tuple[int, ...], bound: float, rng: torch.Generator) -> nn.Parameter:
    """Parameter drawn uniformly from ±bound."""
    return nn.Parameter(torch.rand(shape, generator=rng) * (2 * bound) - bound)


def drop(x: Tensor, share: float, rng: torch.Generator | None) -> Tensor:
    """Inverted dropout whose mask `rng` draws; None switches it off."""
    if rng is None or share == 0:
        return x
    kept = torch.rand(x.shape, generator=rng, device=x.device) >= share
    return x * kept / (1 - share)

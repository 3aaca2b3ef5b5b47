"""The multi-width convolution over an embedding map, the MLP, the layer norm, and dropout."""

from __future__ import annotations

import contextlib
import math
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec import verify
from comet_rec.data.arrays import Array
from comet_rec.data.prefixes import Windows as Windows  # also for `comet`
from comet_rec.models.kernels.banded_windows import banded_features
from comet_rec.models.kernels.cross_features import (
    Layout,
    cross_features,
    direct_cross_features,
)
from comet_rec.models.kernels.sliding_windows import window_features
from comet_rec.precision import product_dtype

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

ConvolutionForm = Literal["frequency", "direct"]

LONG = 1_700
"""Number of windows of a piece, times N, from which a transform along time is faster than one map
after another (docs/log.md, 2026-11-30)."""

EPSILON = 1e-8
"""Added to the variance in a layer norm, as in the code of SASRec's authors."""


class MultiWidthConvolution(nn.Module):
    """Convolutions of several widths with filters that cover all rows of the map (Eqs. 4, 5).

    For a map E [N, K] and a filter W_l [N, H_l], feature t of the filter is
    ``ReLU(Σ_n Σ_h W_l[n, h] · E[n, t + h] + b_l)``, t = 0 … K − H_l. The features of all filters
    are concatenated, width by width and channel by channel.

    Parameters
    ----------
    rows : int
        N, the number of rows of a map.
    embedding_dim : int
        K, the number of columns of a map.
    widths : tuple of int
        Filter widths H_l, distinct, ascending, each at most K.
    channels : int
        Number of filters of each width.
    form : {"frequency", "direct"}
        Fast computation by Fourier transforms, or PyTorch's convolution. Both give the same
        features (`kernels.cross_features`).
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
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        filters = {f"weights.{i}": (channels, rows, width) for i, width in enumerate(widths)}
        biases = {f"biases.{i}": (channels,) for i in range(len(widths))}
        return {name: Array(shape=shape) for name, shape in (filters | biases).items()}

    @property
    def out_features(self) -> int:
        """Number of cross features of one map, D = channels · Σ_l (K − H_l + 1)."""
        return self.layout.features

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"] | Windows,
        weight: Float[Tensor, "O D"] | None = None,
    ) -> Float[Tensor, "B _"]:
        """Cross features of the embedding maps of histories (Eqs. 2–5), [B, D].

        A map stacks the rows of `table` at one row of `histories`; index V, the pad, is a row of
        zeros. If the weight of the next linear layer is given, the result is the features times its
        transpose, [B, O]. This saves memory.
        """
        fast = self.form == "frequency" and not verify.slow()
        if isinstance(histories, Windows):
            # An accelerator would wait for the many small operations of each piece.
            if fast and table.device.type == "cpu":
                return self._of_windows(table, histories, weight)
            histories = histories.padded()
        convolve = cross_features if fast else direct_cross_features
        return convolve(table, histories, list(self.weights), list(self.biases), weight)

    def _of_windows(
        self, table: Float[Tensor, "V K"], windows: Windows, weight: Float[Tensor, "O D"] | None
    ) -> Float[Tensor, "W _"]:
        """Cross features of windows, in the form that is fast for the widths and the pieces.

        With products in bfloat16, filters of width 1 and K are banded matrices. Otherwise pieces
        with many windows are transformed along time.
        """
        filters, biases = list(self.weights), list(self.biases)
        narrow_or_whole = all(width in (1, self.embedding_dim) for width in self.layout.widths)
        if narrow_or_whole and product_dtype(table) == torch.bfloat16:
            return banded_features(table, windows, filters, biases, weight)
        long = windows.counts * windows.length >= LONG
        many, of_many = windows.select(long)
        few, of_few = windows.select(~long)
        parts = []
        if len(many) > 0:
            parts.append(window_features(table, many, filters, biases, weight))
        if len(few) > 0:
            parts.append(cross_features(table, few.padded(), filters, biases, weight))
        # The rows of `parts` are those of the long pieces first: back to the order of the windows.
        order = torch.argsort(torch.cat([of_many, of_few]))
        return torch.cat(parts).index_select(0, order)


class Perceptron(nn.Module):
    """Multi-layer perceptron: hidden layers with ReLU and dropout, then a linear layer (Eqs. 6, 7).

    Parameters
    ----------
    in_features, out_features : int
    hidden : tuple of int
        Width of each hidden layer.
    dropout : float
        Share of each hidden layer's outputs that is set to zero in training.
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
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        sizes = [in_features, *hidden, out_features]
        declared = {f"biases.{i}": Array(shape=(size,)) for i, size in enumerate(sizes[1:])}
        for i, shape in enumerate(zip(sizes[1:], sizes[:-1], strict=True)):
            declared[f"weights.{i}"] = Array(shape=shape)
        return declared

    def forward(self, x: Float[Tensor, "B D"], rng: torch.Generator | None) -> Float[Tensor, "B K"]:
        """Output of the perceptron; `rng` draws dropout, None switches dropout off."""
        return self.after_first(nnf.linear(x, self.weights[0]), rng)

    def after_first(
        self, x: Float[Tensor, "B _"], rng: torch.Generator | None
    ) -> Float[Tensor, "B K"]:
        """Output of the perceptron; `x` is the input times the first layer's weight, without bias.

        `rng` draws dropout, None switches dropout off.
        """
        x = x + self.biases[0]
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            x = nnf.linear(drop(torch.relu(x), self.dropout, rng), weight, bias)
        return x


class Norm(nn.Module):
    """Layer norm LN(x) = γ (x − mean) / √(variance + ε) + β over the columns of each row."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    @staticmethod
    def arrays(size: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        return {name: Array(shape=(size,)) for name in ("weight", "bias")}

    def forward(self, x: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
        """Each row of `x` with mean 0 and variance 1, times γ, plus β."""
        normed: Tensor = nnf.layer_norm(x, self.bias.shape, self.weight, self.bias, EPSILON)
        return normed


def uniform(shape: tuple[int, ...], bound: float, rng: torch.Generator) -> nn.Parameter:
    """Parameter with values drawn uniformly from [−bound, bound]."""
    # In place: a table may take most of the memory.
    return nn.Parameter(torch.rand(shape, generator=rng).mul_(2 * bound).sub_(bound))


def drop(x: Tensor, share: float, rng: torch.Generator | None) -> Tensor:
    """Inverted dropout: set a random share of `x` to zero; `rng` None switches dropout off."""
    if rng is None or share == 0:
        return x
    kept = torch.rand(x.shape, generator=rng, device=x.device) >= share
    return x * kept / (1 - share)  # scale the kept values up, so the expectation stays the same

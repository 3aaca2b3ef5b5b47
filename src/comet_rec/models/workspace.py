"""Where cross features stand in a row, and the memory in which a block of them is made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_BYTES = 3_400_000
"""Transformed maps at a time: a few blocks fit the shared cache."""
ACCELERATOR_BYTES = 1 << 26
"""What replaces a block for the cache elsewhere: few launches, bounded memory."""


def block_bytes(like: Tensor, cached: int) -> int:
    """Bytes of a block on this tensor's device; `cached` on the CPU."""
    return cached if like.device.type == "cpu" else ACCELERATOR_BYTES


@dataclass(frozen=True)
class Layout:
    """Where the features of each width stand in a row of cross features.

    Parameters
    ----------
    embedding_dim : int
        K.
    widths : tuple of int
        Distinct filter widths, ascending, each at most K.
    channels : int
        Filters of each width.
    """

    embedding_dim: int
    widths: tuple[int, ...]
    channels: int

    @property
    def features(self) -> int:
        """Cross features of one map."""
        return self.channels * sum(self.embedding_dim - width + 1 for width in self.widths)

    def parts(self) -> list[tuple[slice, slice, int]]:
        """For each width: its filters, its features, and the number of places of a filter."""
        found, filters, features = [], 0, 0
        for width in self.widths:
            places = self.embedding_dim - width + 1
            found.append(
                (
                    slice(filters, filters + self.channels),
                    slice(features, features + self.channels * places),
                    places,
                )
            )
            filters += self.channels
            features += self.channels * places
        return found

    def parseval(self, like: Tensor) -> Tensor:
        """Weight of each frequency in an inner product of real signals of length K, [F]."""
        k = self.embedding_dim
        weights = like.real.new_full((k // 2 + 1,), 2.0 / k)
        weights[0] = 1.0 / k
        if k % 2 == 0:
            weights[-1] = 1.0 / k
        return weights


class Workspace:
    """Buffers of one block, used again for the next: fresh memory costs more than the sums."""

    def __init__(self, rows: Tensor, filters: Tensor, layout: Layout) -> None:
        frequencies, length, channels = filters.shape
        row = frequencies * length * rows.element_size()
        self.size = max(1, block_bytes(rows, BLOCK_BYTES) // row)
        self.layout = layout
        self.parts = layout.parts()
        # Filters as wide as the map come last; their one feature needs no inverse transform.
        self.several = layout.channels * sum(places > 1 for _, _, places in self.parts)
        self.weights = layout.parseval(rows)
        self._gathered = rows.new_empty((self.size * length, frequencies))
        self._maps = rows.new_empty(frequencies * self.size * length)
        self._products = rows.new_empty(frequencies * self.size * channels)
        self._spectra = rows.new_empty((self.size, self.several, frequencies))
        k = layout.embedding_dim
        self._signals = self._spectra.real.new_zeros((self.size, self.several, k))

    def maps(self, rows: Tensor, index: Tensor) -> Tensor:
        """Transformed maps of a block, [F, B, N]."""
        gathered = self._gathered[: index.numel()]
        torch.index_select(rows, 0, index.flatten(), out=gathered)
        shape = (rows.shape[1], *index.shape)
        maps = self._maps[: rows.shape[1] * index.numel()].view(shape)
        return maps.copy_(gathered.view(*index.shape, -1).permute(2, 0, 1))

    def products(self, size: int) -> Tensor:
        """Room for products [F, B, C]."""
        frequencies = len(self.weights)
        channels = len(self._products) // (frequencies * self.size)
        return self._products[: frequencies * size * channels].view(frequencies, size, channels)

    def write_features(self, products: Tensor, biases: Tensor, out: Tensor) -> None:
        """Features of products [F, B, C], after bias and ReLU, into out [B, D]."""
        size = len(out)
        spectra, signals = self._spectra[:size], self._signals[:size]
        # A constant added to a signal of length K stands K times in its frequency 0.
        products[0] += self.layout.embedding_dim * biases
        if self.several > 0:
            spectra.copy_(products[:, :, : self.several].permute(1, 2, 0))
            torch.fft.irfft(spectra, n=self.layout.embedding_dim, out=signals)
        for channels, features, places in self.parts:
            target = out[:, features].view(size, -1, places)
            if places > 1:
                torch.clamp_min(signals[:, channels, :places], 0, out=target)
            else:
                inner = (products[:, :, channels].real * self.weights[:, None, None]).sum(0)
                torch.clamp_min(inner, 0, out=target[..., 0])

    def products_gradient(self, grad: Tensor, features: Tensor, d_biases: Tensor) -> Tensor:
        """Gradient of the products, [F, B, C], from that of the features; adds up the biases'."""
        size = len(grad)
        spectra, signals = self._spectra[:size], self._signals[:size]
        d_products = self.products(size)
        for channels, where, places in self.parts:
            shape = (size, channels.stop - channels.start, places)
            part = signals[:, channels, :places] if places > 1 else grad.new_empty(shape)
            passed = grad[:, where].view(shape), features[:, where].view(shape)
            torch.ops.aten.threshold_backward.grad_input(*passed, 0, grad_input=part)
            if places == 1:
                d_biases[channels] += part.sum(dim=(0, 2))
                d_products[:, :, channels] = part[..., 0]
        if self.several > 0:
            torch.fft.rfft(signals, out=spectra)
            d_biases[: self.several] += spectra[:, :, 0].real.sum(0)
            d_products[:, :, : self.several] = spectra.permute(2, 0, 1)
        return d_products

    def add_rows(self, d_rows: Tensor, index: Tensor, d_maps: Tensor) -> None:
        """Add the gradient of each map's rows, [F, B, N], to the table's."""
        gathered = self._gathered[: index.numel()]
        gathered.view(*index.shape, -1).copy_(d_maps.permute(1, 2, 0))
        real, added = (torch.view_as_real(x).flatten(1) for x in (d_rows, gathered))
        real.index_add_(0, index.flatten(), added)

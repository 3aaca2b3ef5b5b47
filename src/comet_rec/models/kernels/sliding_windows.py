"""Cross features of sliding windows: one transform along time and dimension for many maps.

With causal histories, the map of each step of a user holds the N rows before it. So the maps of
consecutive steps are windows of one sequence, and Eq. 4 is a correlation along time too. For rows
x [M, K] and a filter W [N, H], the window that begins at row o has the feature

    y[o, t] = ReLU(Σ_n Σ_h W[n, h] · x[o + n, t + h] + b),    o = 0 … M − N,  t = 0 … K − H.

Let ^ be the Fourier transform along both axes, over K columns and L ≥ M rows (zeros are appended).
The correlation theorem gives all windows and places at once, y = inverse(x̂ · conj(Ŵ)), and neither
index wraps around in the range above:

    rows of a piece [M, K] ── rfft, fft ──► x̂ [F, L]
                                              │ · conj(Ŵ) [C, F, L]
                                              ▼
                    products [C, F, L] ── ifft along L ──► windows 0 … M − N [C, F, T]
                                              │ transpose, irfft along K
                                              ▼
                                  signals [T, C, K] ── + b, ReLU, places 0 … K − H_l ──► [T, D]

`cross_features` multiplies N rows for each window. Here a window costs about log L operations for
each filter and frequency, and hardly depends on N. Each piece of a sequence is computed by itself,
in buffers that a thread uses again.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.data.prefixes import Windows
from comet_rec.models.kernels.cross_features import Layout
from comet_rec.parallel import in_parts

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float

SIZES: tuple[int, ...] = tuple(2**i * odd for i in range(2, 20) for odd in (1, 3))
"""Lengths of transforms that are fast: powers of two, and three times those."""


def transform_size(rows: int) -> int:
    """Smallest fast length of a transform for at least this number of rows."""
    return min(size for size in SIZES if size >= rows)


def window_features(
    table: Float[Tensor, "V K"],
    windows: Windows,
    filters: list[Float[Tensor, "_ N _"]],
    biases: list[Float[Tensor, " _"]],
    weight: Float[Tensor, "O D"] | None = None,
) -> Float[Tensor, "W _"]:
    """Cross features of all windows of N consecutive rows of each piece, [W, D] or [W, O].

    The result is that of `cross_features` for these windows.

    Parameters
    ----------
    table : Tensor [V, K]
        Embeddings.
    windows : Windows
        Pieces of rows of `table`; index V is a row of zeros.
    filters, biases, weight
        As for `cross_features`.
    """
    k, length = table.shape[1], filters[0].shape[1]
    layout = Layout(k, tuple(filter_.shape[2] for filter_ in filters), len(biases[0]))
    spectra = torch.cat([torch.fft.rfft(filter_, n=k) for filter_ in filters])  # [C, N, F]
    starts = windows.pieces.starts.tolist()
    sizes = sorted({transform_size(b - a) for a, b in itertools.pairwise(starts)})
    # Filters transformed along time, for each length of a transform: conj(Ŵ), [C, F, L].
    by_size = [torch.fft.fft(spectra, n=size, dim=1).conj().mT.contiguous() for size in sizes]
    padded = nnf.pad(table, (0, 0, 0, 1))  # the last row is the pad
    pieces = Pieces(starts, sizes, length)
    features: Tensor = _WindowFeatures.apply(  # type: ignore[no-untyped-call]
        padded, torch.cat(biases), weight, windows.pieces.values, pieces, layout, *by_size
    )
    return features


@dataclass(frozen=True)
class Pieces:
    """Where the rows and the windows of each piece are, and the length of its transform.

    Parameters
    ----------
    starts : list of int [P + 1]
        Start of each piece in the rows.
    sizes : list of int
        Lengths of transforms, ascending.
    length : int
        N, the rows of a window.
    """

    starts: list[int]
    sizes: list[int]
    length: int

    @property
    def windows(self) -> int:
        """Number of windows of all pieces."""
        return self.starts[-1] - (len(self.starts) - 1) * (self.length - 1)

    @cached_property
    def order(self) -> list[int]:
        """Numbers of the pieces, so that consecutive parts take about the same time."""
        by_length = sorted(range(len(self.starts) - 1), key=lambda piece: -len(self.rows(piece)))
        threads = torch.get_num_threads()
        return [piece for first in range(threads) for piece in by_length[first::threads]]

    def rows(self, piece: int) -> range:
        """Places of a piece in the rows."""
        return range(self.starts[piece], self.starts[piece + 1])

    def out(self, piece: int) -> slice:
        """Places of the windows of a piece in the output."""
        first = self.starts[piece] - piece * (self.length - 1)
        return slice(first, first + len(self.rows(piece)) - self.length + 1)

    def size(self, piece: int) -> int:
        """Number in `sizes` of the transform's length."""
        return self.sizes.index(transform_size(len(self.rows(piece))))


class _WindowFeatures(torch.autograd.Function):
    """Features of windows from embeddings and transformed filters, with its own backward pass."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, biases: Tensor, weight: Tensor | None, rows: Tensor,
        pieces: Pieces, layout: Layout, *filters: Tensor,
    ) -> Tensor:  # fmt: skip
        features = table.new_empty((pieces.windows, layout.features))  # [W, D]
        out = features
        if weight is not None:
            out = table.new_empty((pieces.windows, len(weight)))  # [W, O]

        def run(part: slice) -> None:
            work = [Workspace(filter_, layout) for filter_ in filters]
            for piece in pieces.order[part]:
                at, windows, size = pieces.rows(piece), pieces.out(piece), pieces.size(piece)
                space = work[size]
                spectrum = space.transform(table, rows[at.start : at.stop])  # x̂ [F, L]
                space.write_features(filters[size], spectrum, biases, features[windows])
                if weight is not None:
                    torch.mm(features[windows], weight.T, out=out[windows])

        in_parts(len(pieces.order), 1, run)
        ctx.save_for_backward(table, weight, rows, features, *filters)
        ctx.pieces, ctx.layout = pieces, layout
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        table, weight, rows, features, *filters = ctx.saved_tensors
        grad = grads[0]  # [W, O], without a weight [W, D]
        pieces, layout = ctx.pieces, ctx.layout
        conjugates = [filter_.conj_physical() for filter_ in filters]

        def run(part: slice) -> list[Tensor | None]:
            work = [Workspace(filter_, layout) for filter_ in filters]
            d_table, d_biases = torch.zeros_like(table), table.new_zeros(len(filters[0]))
            d_filters = [torch.zeros_like(filter_) for filter_ in filters]
            for piece in pieces.order[part]:
                at, windows, size = pieces.rows(piece), pieces.out(piece), pieces.size(piece)
                space, of_piece = work[size], rows[at.start : at.stop]
                incoming = grad[windows]
                if weight is not None:
                    incoming = torch.mm(incoming, weight)
                spectrum = space.transform(table, of_piece)
                d_spectrum = space.add_gradients(
                    incoming, features[windows], spectrum, conjugates[size], d_biases,
                    d_filters[size],
                )  # fmt: skip
                d_table.index_add_(0, of_piece, space.rows_gradient(d_spectrum, len(at)))
            scales = layout.parseval(filters[0])[:, None]  # see `Workspace.products_gradient`
            scaled = [d.mul_(scales / d.shape[2]) for d in d_filters]
            return [d_table, d_biases, *scaled]

        parts = in_parts(len(pieces.order), 1, run)
        d_table, d_biases, *d_filters = (sum(d[1:], d[0]) for d in zip(*parts, strict=True))
        d_weight = None if weight is None else grad.T @ features  # [O, D]
        return d_table, d_biases, d_weight, None, None, None, *d_filters


class Workspace:
    """Memory buffers for pieces with transforms of one length; a thread uses them again.

    Filters as wide as the map come last in the layout. They have one place, so their frequencies
    are summed before the inverse transform along time.

    Parameters
    ----------
    filters : complex Tensor [C, F, L]
        Transformed filters.
    layout : Layout
    """

    def __init__(self, filters: Tensor, layout: Layout) -> None:
        _, frequencies, size = filters.shape
        channels = layout.channels
        self.layout, self.size = layout, size
        self.parseval = layout.parseval(filters)[:, None]  # [F, 1]
        self._products = filters.new_empty((channels, frequencies, size))
        self._in_time = torch.empty_like(self._products)
        self._by_window = filters.new_empty((size, channels, frequencies))
        self._signals = filters.real.new_empty((size, channels, layout.embedding_dim))

    def transform(self, table: Tensor, rows: Tensor) -> Tensor:
        """Transform of a piece along both axes, x̂ [F, L]."""
        spectra = torch.fft.rfft(table.index_select(0, rows))  # [M, F]
        both: Tensor = torch.fft.fft(spectra.T.contiguous(), n=self.size)
        return both

    def rows_gradient(self, d_spectrum: Tensor, rows: int) -> Tensor:
        """Gradient of the rows of a piece, [M, K], from that of their transform, [F, L]."""
        in_time = torch.fft.ifft(d_spectrum)[:, :rows]  # [F, M]
        rows_: Tensor = torch.fft.irfft(in_time.T.contiguous(), n=self.layout.embedding_dim)
        return rows_

    def write_features(
        self, filters: Tensor, spectrum: Tensor, biases: Tensor, out: Tensor
    ) -> None:
        """Write the features of a piece, after bias and ReLU, into `out` [T, D]."""
        windows, k = len(out), self.layout.embedding_dim
        # One width at a time, so that the buffers stay in the cache.
        for channels, features, places in self.layout.parts():
            products = torch.mul(filters[channels], spectrum, out=self._products)  # [c, F, L]
            target = out[:, features].view(windows, -1, places)
            if places == 1:
                # By Parseval's theorem, the only value is a weighted sum over the frequencies.
                values = torch.fft.ifft(products.mul_(self.parseval).sum(1)).real[:, :windows]
                torch.clamp_min((values + biases[channels, None]).T, 0, out=target[..., 0])
                continue
            in_time = torch.fft.ifft(products, out=self._in_time)[:, :, :windows]  # [c, F, T]
            by_window = _transposed(in_time, self._by_window[:windows])  # [T, c, F]
            # Frequency 0 is the sum of a signal, so a bias on all K values adds K times the bias.
            by_window[:, :, 0] += k * biases[channels]
            signals = torch.fft.irfft(by_window, n=k, out=self._signals[:windows])  # [T, c, K]
            torch.clamp_min(signals[:, :, :places], 0, out=target)

    def add_gradients(
        self, grad: Tensor, features: Tensor, spectrum: Tensor, conjugates: Tensor,
        d_biases: Tensor, d_filters: Tensor,
    ) -> Tensor:  # fmt: skip
        """Gradient of the spectrum of a piece, [F, L], from that of its features, `grad` [T, D].

        The gradients of biases and filters are added to `d_biases` and `d_filters`. All lack
        Parseval's weights and the factor 1 / L of the inverse transforms. Both cancel out in the
        gradient of the rows; `backward` applies them to that of the filters.
        """
        windows = len(grad)
        d_spectrum = torch.zeros_like(spectrum)
        conjugate = spectrum.conj_physical()
        for channels, where, places in self.layout.parts():
            signals, d_products = self._signals[:windows], self._products
            # ReLU passes the gradient on only where the feature is above zero.
            part = signals[:, :, :places]
            if places == 1:
                part = grad.new_empty(part.shape)
            incoming = grad[:, where].view(part.shape)
            values = features[:, where].view(part.shape)
            torch.ops.aten.threshold_backward.grad_input(incoming, values, 0, grad_input=part)
            if places == 1:
                d_biases[channels] += part.sum(dim=(0, 2))
                d_products.copy_(torch.fft.fft(part[..., 0].T, n=self.size)[:, None])
            else:
                signals[:, :, places:] = 0  # places that no feature has
                by_window = torch.fft.rfft(signals, out=self._by_window[:windows])  # [T, c, F]
                # A bias is added at all places, so its gradient is frequency 0.
                d_biases[channels] += by_window[:, :, 0].real.sum(0)
                _transposed_back(by_window, self._in_time[:, :, :windows])
                self._in_time[:, :, windows:] = 0
                torch.fft.fft(self._in_time, out=d_products)
            # The gradient of a product of complex numbers has the conjugate of the other one.
            d_filters[channels].addcmul_(d_products, conjugate)
            d_spectrum += d_products.mul_(conjugates[channels]).sum(0)
        return d_spectrum


def _transposed(in_time: Tensor, by_window: Tensor) -> Tensor:
    """Copy [c, F, T] to [T, c, F]."""
    flat = _as_numbers(in_time).flatten(0, 1)  # [c · F, T]
    _as_numbers(by_window).flatten(1).copy_(flat.T)
    return by_window


def _transposed_back(by_window: Tensor, in_time: Tensor) -> None:
    """Copy [T, c, F] to [c, F, T]."""
    flat = _as_numbers(by_window).flatten(1)  # [T, c · F]
    _as_numbers(in_time).flatten(0, 1).copy_(flat.T)


def _as_numbers(x: Tensor) -> Tensor:
    """View of each complex number as one double, which PyTorch transposes five times as fast."""
    return x.view(torch.float64) if x.dtype == torch.complex64 else x

"""Cross features of embedding maps: a correlation along K as products in the frequency domain.

For the map E [N, K] of a history and a filter W [N, H] of width H, feature t is (Eqs. 4, 5)

    x[t] = ReLU(Σ_n Σ_h W[n, h] · E[n, t + h] + b),    t = 0 … K − H.

A filter covers all N rows, so it moves only along K. Let Ê = rfft(E) and Ŵ = rfft(W, n=K) along K.
The correlation theorem gives the features at all places t of a filter at once:

    Σ_n Σ_h W[n, h] · E[n, (t + h) mod K] = irfft(Σ_n Ê[n] · conj(Ŵ[n]))[t].

At places t ≤ K − H the index never wraps around, so the circular sum equals the sum above. A map
only stacks rows of the table, so each row is transformed once per table and not once per map:

    table [V, K]                             filters [C, N, H_l], padded to K
        │ rfft                                   │ rfft, conj
        ▼                                        ▼
    rows [V, F]                              filters [F, N, C]
        │ gather a block of histories            │
        ▼                                        │
    maps [F, B, N] ──── F small products ────────┘
        │
        ▼
    products [F, B, C] ── irfft ──► signals [B, C, K]
        │ + b, ReLU, places 0 … K − H_l
        ▼
    features [B, D] ── · weightᵀ of the next layer, if given ──► [B, O]

Three things make the computation fast on a CPU. A block fits the cache, and each thread has its own
blocks. The backward pass gathers the maps again instead of keeping them. Maps with similar numbers
of pads in front are in the same block, so the block can leave out columns that hold only pads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.parallel import block_bytes, blocks, in_parts

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

BLOCK_BYTES = 3_400_000
"""Size in bytes of a block of transformed maps; a few blocks fit the shared cache of a CPU."""

LEAST_PART = 32
"""Smallest number of maps that are given to a thread of their own."""

BLOCKS_A_PRODUCT = 4
"""Number of blocks whose features are multiplied with the next layer's weight in one product. The
gradient of the features is computed for as many blocks at a time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Order of a map's cross features: by filter width, then by filter, then by place.

    The place of a feature is the column of the map where the filter begins.

    Parameters
    ----------
    embedding_dim : int
        K.
    widths : tuple of int
        Distinct filter widths H_l, ascending, each at most K.
    channels : int
        Number of filters of each width.
    """

    embedding_dim: int
    widths: tuple[int, ...]
    channels: int

    @property
    def features(self) -> int:
        """Number of cross features of one map, D = channels · Σ_l (K − H_l + 1)."""
        return self.channels * sum(self.embedding_dim - width + 1 for width in self.widths)

    def parts(self) -> list[tuple[slice, slice, int]]:
        """For each width: slice of its filters, slice of its features, and places per filter."""
        parts, first_filter, first_feature = [], 0, 0
        for width in self.widths:
            places = self.embedding_dim - width + 1
            filters = slice(first_filter, first_filter + self.channels)
            features = slice(first_feature, first_feature + self.channels * places)
            parts.append((filters, features, places))
            first_filter, first_feature = filters.stop, features.stop
        return parts

    def parseval(self, like: Tensor) -> Tensor:
        """Weights of Parseval's theorem for the inner product of two real signals, [F].

        Frequency 0, and K/2 for an even K, occur once in the full transform. All other frequencies
        occur twice there, but rfft returns only one of each pair. So they count twice.
        """
        k = self.embedding_dim
        weights = like.real.new_full((k // 2 + 1,), 2.0 / k)
        weights[0] = 1.0 / k
        if k % 2 == 0:
            weights[-1] = 1.0 / k
        return weights


def embedding_maps(
    table: Float[Tensor, "V K"], histories: Int[Tensor, "B N"]
) -> Float[Tensor, "B N K"]:
    """Embedding maps of histories: rows of `table`, stacked (Eqs. 2, 3).

    Index V, the pad, is a row of zeros.
    """
    return nnf.embedding(histories, nnf.pad(table, (0, 0, 0, 1)))


def direct_cross_features(
    table: Float[Tensor, "V K"],
    histories: Int[Tensor, "B N"],
    filters: list[Float[Tensor, "_ N _"]],
    biases: list[Float[Tensor, " _"]],
    weight: Float[Tensor, "O D"] | None = None,
) -> Float[Tensor, "B _"]:
    """The same result as `cross_features`, by PyTorch's convolution (slow, for tests)."""
    maps = embedding_maps(table, histories)  # [B, N, K]
    parts = []
    for filter_, bias in zip(filters, biases, strict=True):
        # The N rows are input channels, because a filter covers all of them.
        signals = nnf.conv1d(maps, filter_, bias)  # [B, channels, K − H_l + 1]
        parts.append(torch.relu(signals).flatten(1))
    features = torch.cat(parts, dim=1)  # [B, D]
    return features if weight is None else nnf.linear(features, weight)


def cross_features(
    table: Float[Tensor, "V K"],
    histories: Int[Tensor, "B N"],
    filters: list[Float[Tensor, "_ N _"]],
    biases: list[Float[Tensor, " _"]],
    weight: Float[Tensor, "O D"] | None = None,
) -> Float[Tensor, "B _"]:
    """Cross features of embedding maps after ReLU (Eqs. 2–5), [B, D], in the order of `Layout`.

    Parameters
    ----------
    table : Tensor [V, K]
        Embeddings.
    histories : int [B, N]
        Rows of `table` that each map stacks; index V is a row of zeros.
    filters : list of Tensor [channels, N, H_l]
        Filters of each width, with ascending widths.
    biases : list of Tensor [channels]
        Biases of the filters of each width.
    weight : Tensor [O, D], optional
        Weight of the next linear layer. If it is given, the result is the features times its
        transpose, [B, O]. This saves the memory of the gradient of all features.
    """
    k = table.shape[1]
    if histories.numel() < len(table):
        # Most rows of the table do not occur in the histories: transform only those that do.
        used, histories = torch.unique(histories, return_inverse=True)
        # `used` ascends and the pad is the largest index, so the pad stays one past the last row.
        table = table.index_select(0, used[used < len(table)])
    rows = torch.fft.rfft(nnf.pad(table, (0, 0, 0, 1)), n=k)  # [V + 1, F]; the last row is the pad
    transformed = torch.cat([torch.fft.rfft(filter_, n=k) for filter_ in filters])  # [C, N, F]
    layout = Layout(k, tuple(filter_.shape[2] for filter_ in filters), len(biases[0]))
    spectra = transformed.conj().permute(2, 1, 0).contiguous()  # [F, N, C]
    bias = torch.cat(biases)  # [C]
    histories = histories.long()
    if histories.device.type != "cpu":
        # Keep the pads: to leave them out, each block would have to wait for their number from the
        # device.
        return _apply(rows, spectra, bias, weight, histories, None, layout)
    pads = _pads_in_front(histories, pad=len(rows) - 1)
    order = _by_pads(pads)
    features = _apply(rows, spectra, bias, weight, histories[order], pads[order], layout)
    return features.index_select(0, order.argsort())


def _apply(*arguments: Any) -> Tensor:
    features: Tensor = _CrossFeatures.apply(*arguments)  # type: ignore[no-untyped-call]
    return features


def _pads_in_front(histories: Tensor, pad: int) -> Tensor:
    """Number of pads in front of each history, int64 [B], at most N − 1."""
    # cumprod is 1 for the leading pads, and 0 from the first other entry on.
    return (histories[:, :-1] == pad).long().cumprod(1).sum(1)


def _by_pads(pads: Tensor) -> Tensor:
    """Order of the maps: one part per thread, each sorted by the number of pads in front."""
    order = pads.argsort(stable=True)
    threads = torch.get_num_threads()
    # Each thread takes every threads-th map. So all parts have the same mix of short and long
    # histories, and take about the same time.
    return torch.cat([order[first::threads] for first in range(threads)])


class _CrossFeatures(torch.autograd.Function):
    """Cross features from transformed embeddings and filters, with a backward pass of its own.

    The inputs are the rows, complex [V + 1, F], and the filters, complex [F, N, C]. The output is
    the features [B, D], or their product [B, O] with `weight`.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, filters: Tensor, biases: Tensor, weight: Tensor | None,
        histories: Tensor, pads: Tensor | None, layout: Layout,
    ) -> Tensor:  # fmt: skip
        features = biases.new_empty((len(histories), layout.features))  # [B, D]
        out = features
        if weight is not None:
            out = biases.new_empty((len(histories), len(weight)))  # [B, O]
        matrices = _as_real(filters)  # [F, 2N, 2C]

        def run(part: slice) -> None:
            work = Workspace(rows, filters, layout, part.stop - part.start)
            for several in blocks(part, BLOCKS_A_PRODUCT * work.size):
                for block in blocks(several, work.size):
                    index = _without_pads(histories, pads, block)  # [b, n], n ≤ N
                    maps = work.maps(rows, index)  # [F, b, n]
                    products = work.products(len(index))  # [F, b, C]
                    # Columns of pads were cut in front, so only the last n rows of the filters are
                    # needed.
                    last_rows = matrices[:, -2 * index.shape[1] :]  # [F, 2n, 2C]
                    torch.bmm(_pairs(maps), last_rows, out=_pairs(products))
                    work.write_features(products, biases, features[block])
                if weight is not None:
                    torch.mm(features[several], weight.T, out=out[several])

        _each_part(histories, run)
        ctx.save_for_backward(rows, filters, histories, pads, features, weight)
        ctx.layout = layout
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, filters, histories, pads, features, weight = ctx.saved_tensors
        grad = grads[0]  # [B, O], without a weight [B, D]
        # The gradient of irfft is rfft times Parseval's weights, which are the same for all maps.
        # So multiply the small matrices by the weights, and at the end the matrices' gradient.
        parseval = ctx.layout.parseval(rows)[:, None, None]  # [F, 1, 1]
        matrices = _as_real(filters)  # [F, 2N, 2C]
        transposed = (matrices * parseval).mT.contiguous()  # [F, 2C, 2N]

        def run(part: slice) -> list[Tensor | None]:
            work = Workspace(rows, filters, ctx.layout, part.stop - part.start)
            d_rows, d_matrices = torch.zeros_like(rows), torch.zeros_like(matrices)
            d_biases = grad.new_zeros(filters.shape[2])
            for block, d_features in _feature_gradients(grad, weight, part, work.size):
                index = _without_pads(histories, pads, block)
                maps = work.maps(rows, index)  # gathered again, not kept: [F, b, n]
                d_products = work.products_gradient(d_features, features[block], d_biases)
                columns = 2 * index.shape[1]
                d_matrices[:, -columns:].baddbmm_(_pairs(maps).mT, _pairs(d_products))
                # The maps are not needed any more, so their gradient is written into their memory.
                torch.bmm(_pairs(d_products), transposed[:, :, -columns:], out=_pairs(maps))
                work.add_rows(d_rows, index, maps)
            d_weight = None if weight is None else grad[part].T @ features[part]  # [O, D]
            return [d_rows, _as_complex(d_matrices * parseval), d_biases, d_weight]

        parts = _each_part(histories, run)
        sums = []
        for gradients in zip(*parts, strict=True):  # for each input, its gradients in all threads
            first, *others = gradients
            sums.append(None if first is None else sum(others, first))
        return *sums, None, None, None


def _without_pads(histories: Tensor, pads: Tensor | None, block: slice) -> Tensor:
    """Histories of a block of maps, without the leading columns that hold only pads."""
    return histories[block] if pads is None else histories[block, int(pads[block].min()) :]


def _pairs(x: Tensor) -> Tensor:
    """View of complex numbers [F, B, n] as real [F, B, 2n]: real and imaginary parts in turn."""
    return torch.view_as_real(x).flatten(2)


def _as_real(filters: Tensor) -> Tensor:
    """Complex filters [F, N, C] as real matrices [F, 2N, 2C], which multiply maps from `_pairs`.

    The product (a + ib)(c + id) is the row [a, b] times the matrix [[c, d], [−d, c]]. The second
    row of the matrix is the pair of i · (c + id).
    """
    by_real = torch.view_as_real(filters.resolve_conj())  # [F, N, C, 2]
    by_imaginary = torch.view_as_real(filters * 1j)
    return torch.stack((by_real, by_imaginary), dim=2).flatten(3).flatten(1, 2)


def _as_complex(d_matrices: Tensor) -> Tensor:
    """Gradient of the complex filters, from the gradient of the matrices of `_as_real`."""
    frequencies, rows, columns = d_matrices.shape
    d = d_matrices.view(frequencies, rows // 2, 2, columns // 2, 2)
    # [[c, d], [−d, c]] holds c twice and d with both signs: add the gradients of all entries.
    return torch.complex(d[:, :, 0, :, 0] + d[:, :, 1, :, 1], d[:, :, 0, :, 1] - d[:, :, 1, :, 0])


def _each_part(histories: Tensor, run: Callable[[slice], T]) -> list[T]:
    """Results of `run` for parts of the maps, which are computed in parallel threads.

    An accelerator has one part with all maps.
    """
    if histories.device.type != "cpu":
        return [run(slice(0, len(histories)))]
    return in_parts(len(histories), LEAST_PART, run)


def _feature_gradients(
    grad: Tensor, weight: Tensor | None, part: slice, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of at most `size` maps, each with the gradient of its features.

    `grad` is the gradient of the features, or of their product with `weight`.
    """
    if weight is None:
        for block in blocks(part, size):
            yield block, grad[block]
        return
    several = max(1, min(BLOCKS_A_PRODUCT * size, part.stop - part.start))
    buffer = grad.new_empty((several, weight.shape[1]))
    for outer in blocks(part, several):
        product = torch.mm(grad[outer], weight, out=buffer[: outer.stop - outer.start])
        for block in blocks(outer, size):
            yield block, product[block.start - outer.start : block.stop - outer.start]


class Workspace:
    """Memory buffers for a block of maps; a thread uses them again for each of its blocks.

    Parameters
    ----------
    rows : complex Tensor [V + 1, F]
        Transformed embeddings.
    filters : complex Tensor [F, N, C]
        Transformed filters.
    layout : Layout
    count : int
        Number of maps that the thread computes.
    """

    def __init__(self, rows: Tensor, filters: Tensor, layout: Layout, count: int) -> None:
        frequencies, length, channels = filters.shape
        map_bytes = frequencies * length * rows.element_size()
        fitting = block_bytes(rows, BLOCK_BYTES) // map_bytes
        self.size = max(1, min(count, fitting))  # maps of a block
        self.layout = layout
        self.parts = layout.parts()
        # Number of filters with several places. Filters as wide as the map come last; they have one
        # place, and so need no inverse transform.
        self.several = layout.channels * sum(places > 1 for _, _, places in self.parts)
        self.parseval = layout.parseval(rows)
        self._gathered = rows.new_empty((self.size * length, frequencies))
        self._maps = rows.new_empty(frequencies * self.size * length)
        self._products = rows.new_empty(frequencies * self.size * channels)
        self._spectra = rows.new_empty((self.size, self.several, frequencies))
        k = layout.embedding_dim
        # Zeros, because the backward pass writes only the places of a filter but transforms all K.
        self._signals = self._spectra.real.new_zeros((self.size, self.several, k))

    def maps(self, rows: Tensor, index: Tensor) -> Tensor:
        """Transformed maps [F, B, N] of a block of histories `index` [B, N]."""
        gathered = self._gathered[: index.numel()]  # [B · N, F]
        torch.index_select(rows, 0, index.flatten(), out=gathered)
        shape = (rows.shape[1], *index.shape)
        maps = self._maps[: rows.shape[1] * index.numel()].view(shape)
        # Frequencies come first, because each one is a matrix of the batched product.
        return maps.copy_(gathered.view(*index.shape, -1).permute(2, 0, 1))

    def products(self, size: int) -> Tensor:
        """Buffer [F, B, C] for the products of `size` maps with all filters."""
        frequencies = len(self.parseval)
        channels = len(self._products) // (frequencies * self.size)
        return self._products[: frequencies * size * channels].view(frequencies, size, channels)

    def write_features(self, products: Tensor, biases: Tensor, out: Tensor) -> None:
        """Turn products [F, B, C] into features after bias and ReLU, and write them into `out`."""
        size = len(out)
        spectra, signals = self._spectra[:size], self._signals[:size]
        # Frequency 0 is the sum of a signal, so a bias on all K values adds K times the bias to it.
        products[0] += self.layout.embedding_dim * biases
        if self.several > 0:
            spectra.copy_(products[:, :, : self.several].permute(1, 2, 0))  # [B, C, F]
            torch.fft.irfft(spectra, n=self.layout.embedding_dim, out=signals)  # [B, C, K]
        for channels, features, places in self.parts:
            target = out[:, features].view(size, -1, places)
            if places > 1:
                torch.clamp_min(signals[:, channels, :places], 0, out=target)
            else:
                # By Parseval's theorem, the only value is a weighted sum over the frequencies.
                values = (products[:, :, channels].real * self.parseval[:, None, None]).sum(0)
                torch.clamp_min(values, 0, out=target[..., 0])

    def products_gradient(self, grad: Tensor, features: Tensor, d_biases: Tensor) -> Tensor:
        """Gradient of the products, [F, B, C], from the gradient `grad` of the features, [B, D].

        The gradient of the biases is added to `d_biases`. The result lacks Parseval's weights,
        which `backward` applies to the matrices of the filters.
        """
        size = len(grad)
        spectra, signals = self._spectra[:size], self._signals[:size]
        d_products = self.products(size)
        for channels, where, places in self.parts:
            shape = (size, channels.stop - channels.start, places)
            part = signals[:, channels, :places] if places > 1 else grad.new_empty(shape)
            # ReLU passes the gradient on only where the feature is above zero.
            incoming, values = grad[:, where].view(shape), features[:, where].view(shape)
            torch.ops.aten.threshold_backward.grad_input(incoming, values, 0, grad_input=part)
            if places == 1:
                d_biases[channels] += part.sum(dim=(0, 2))
                d_products[:, :, channels] = part[..., 0]
        if self.several > 0:
            torch.fft.rfft(signals, out=spectra)
            # A bias is added at all places, so its gradient is their sum, which is frequency 0.
            d_biases[: self.several] += spectra[:, :, 0].real.sum(0)
            d_products[:, :, : self.several] = spectra.permute(2, 0, 1)
        return d_products

    def add_rows(self, d_rows: Tensor, index: Tensor, d_maps: Tensor) -> None:
        """Add the gradient of the maps, [F, B, N], to the gradient of the rows, [V + 1, F]."""
        gathered = self._gathered[: index.numel()]
        gathered.view(*index.shape, -1).copy_(d_maps.permute(1, 2, 0))
        # View the complex rows as pairs of real numbers, in the same memory.
        table = torch.view_as_real(d_rows).flatten(1)
        table.index_add_(0, index.flatten(), torch.view_as_real(gathered).flatten(1))

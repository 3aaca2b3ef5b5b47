"""Cross features of embedding maps: a correlation along K as products in the frequency domain.

With E the map of a history [N, K], and W a filter [N, H] of width H, feature t is (Eqs. 4, 5)

    x[t] = ReLU(Σ_n Σ_h W[n, h] · E[n, t + h] + b),    t = 0 … K − H.

A filter covers all N rows, so it moves along K alone. For Ê = rfft(E) and Ŵ = rfft(W, n=K), both
along K, the correlation theorem gives all places of all filters at once:

    Σ_n Σ_h W[n, h] · E[n, (t + h) mod K] = irfft(Σ_n Ê[n] · conj(Ŵ[n]))[t].

Places t ≤ K − H never wrap around, so the circular sum equals the one above. Rows are transformed
once per table and not once per map, because a map only stacks rows:

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

Three things make it fast on a CPU. A block fits the cache, and each thread has blocks of its own.
Backward gathers the maps again instead of keeping them. Maps with equally many pads in front are
neighbours, so a block leaves out the columns that hold nothing but pads.
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
"""Transformed maps at a time: a few blocks fit the shared cache."""

LEAST_PART = 32
"""Fewest maps that are worth a thread of their own."""

BLOCKS_A_PRODUCT = 4
"""Blocks whose features meet the next layer's weight, or get their gradient, in one product."""

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """Where the features of each width stand in a row of cross features.

    Parameters
    ----------
    embedding_dim : int
        K.
    widths : tuple of int
        Distinct filter widths H_l, ascending, each at most K.
    channels : int
        Filters of each width.
    """

    embedding_dim: int
    widths: tuple[int, ...]
    channels: int

    @property
    def features(self) -> int:
        """Cross features of one map, D = channels · Σ_l (K − H_l + 1)."""
        return self.channels * sum(self.embedding_dim - width + 1 for width in self.widths)

    def parts(self) -> list[tuple[slice, slice, int]]:
        """For each width: its filters, its features, and the number of places of a filter."""
        parts, first_filter, first_feature = [], 0, 0
        for width in self.widths:
            places = self.embedding_dim - width + 1
            filters = slice(first_filter, first_filter + self.channels)
            features = slice(first_feature, first_feature + self.channels * places)
            parts.append((filters, features, places))
            first_filter, first_feature = filters.stop, features.stop
        return parts

    def parseval(self, like: Tensor) -> Tensor:
        """Weight of each frequency in an inner product of real signals of length K, [F].

        Frequencies 0 and, with K even, K/2 stand once in the full transform; rfft leaves out the
        twin of each of the others, so these count twice.
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
    """Rows of the table, stacked (Eqs. 2, 3); index V, the pad, is a zero row."""
    return nnf.embedding(histories, nnf.pad(table, (0, 0, 0, 1)))


def direct_cross_features(
    table: Float[Tensor, "V K"],
    histories: Int[Tensor, "B N"],
    filters: list[Float[Tensor, "_ N _"]],
    biases: list[Float[Tensor, " _"]],
    weight: Float[Tensor, "O D"] | None = None,
) -> Float[Tensor, "B _"]:
    """As `cross_features`, by PyTorch's convolution: the slow form."""
    maps = embedding_maps(table, histories)  # [B, N, K]
    parts = []
    for filter_, bias in zip(filters, biases, strict=True):
        signals = nnf.conv1d(maps, filter_, bias)  # N input channels: [B, C, K − H_l + 1]
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
    """Cross features after ReLU (Eqs. 2–5), [B, D], channel by channel of each width.

    Parameters
    ----------
    table : Tensor [V, K]
    histories : int [B, N]
        Which rows each map stacks; index V is a zero row.
    filters : list of Tensor [channels, N, H_l]
        The filters of each width, widths ascending.
    biases : list of Tensor [channels]
    weight : Tensor [O, D], optional
        Weight of the linear layer that follows. The result is then the product with it, [B, O],
        and the gradient of the features is never held whole.
    """
    k = table.shape[1]
    if histories.numel() < len(table):
        # Most rows of the table do not occur: transform only those that do.
        used, histories = torch.unique(histories, return_inverse=True)
        # `used` ascends, so the pad, if it occurs, is its last index and stays one past the end.
        table = table.index_select(0, used[used < len(table)])
    rows = torch.fft.rfft(nnf.pad(table, (0, 0, 0, 1)), n=k)  # [V + 1, F], the pad's is zero
    transformed = torch.cat([torch.fft.rfft(filter_, n=k) for filter_ in filters])  # [C, N, F]
    layout = Layout(k, tuple(filter_.shape[2] for filter_ in filters), len(biases[0]))
    spectra = transformed.conj().permute(2, 1, 0).contiguous()  # [F, N, C]
    bias = torch.cat(biases)  # [C]
    histories = histories.long()
    if histories.device.type != "cpu":  # a block's shape would have to come from the device first
        return _apply(rows, spectra, bias, weight, histories, None, layout)
    pads = _pads_in_front(histories, pad=len(rows) - 1)
    order = _by_pads(pads)
    features = _apply(rows, spectra, bias, weight, histories[order], pads[order], layout)
    return features.index_select(0, order.argsort())


def _apply(*arguments: Any) -> Tensor:
    features: Tensor = _CrossFeatures.apply(*arguments)  # type: ignore[no-untyped-call]
    return features


def _pads_in_front(histories: Tensor, pad: int) -> Tensor:
    """How many pads each history starts with, int64 [B]; one row of it is always kept."""
    # cumprod turns the first row that is no pad, and all after it, into zeros.
    return (histories[:, :-1] == pad).long().cumprod(1).sum(1)


def _by_pads(pads: Tensor) -> Tensor:
    """Order of maps in which neighbours have about as many pads, in each thread's part of them."""
    order = pads.argsort(stable=True)
    threads = torch.get_num_threads()
    # Dealt out like cards: each thread's part has short and long histories, so none waits long.
    return torch.cat([order[first::threads] for first in range(threads)])


class _CrossFeatures(torch.autograd.Function):
    """Complex rows [V + 1, F] and filters [F, N, C] to features [B, D] or their product [B, O]."""

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
            work = Workspace(rows, filters, layout)
            for several in blocks(part, BLOCKS_A_PRODUCT * work.size):
                for block in blocks(several, work.size):
                    index = _without_pads(histories, pads, block)  # [b, n], n ≤ N
                    maps = work.maps(rows, index)  # [F, b, n]
                    products = work.products(len(index))  # [F, b, C]
                    # Pads were cut in front, so the last rows of the filters belong to them.
                    last_rows = matrices[:, -2 * index.shape[1] :]
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
        # The gradient of irfft is rfft times Parseval's weights. The weights are the same for all
        # maps, so they multiply the small matrices, and at the end the gradient of these.
        parseval = ctx.layout.parseval(rows)[:, None, None]  # [F, 1, 1]
        matrices = _as_real(filters)  # [F, 2N, 2C]
        transposed = (matrices * parseval).mT.contiguous()  # [F, 2C, 2N]

        def run(part: slice) -> list[Tensor | None]:
            work = Workspace(rows, filters, ctx.layout)
            d_rows, d_matrices = torch.zeros_like(rows), torch.zeros_like(matrices)
            d_biases = grad.new_zeros(filters.shape[2])
            for block, d_features in _feature_gradients(grad, weight, part, work.size):
                index = _without_pads(histories, pads, block)
                maps = work.maps(rows, index)  # gathered again, not kept: [F, b, n]
                d_products = work.products_gradient(d_features, features[block], d_biases)
                columns = 2 * index.shape[1]
                d_matrices[:, -columns:].baddbmm_(_pairs(maps).mT, _pairs(d_products))
                # The maps are not needed any more: their gradient takes their memory.
                torch.bmm(_pairs(d_products), transposed[:, :, -columns:], out=_pairs(maps))
                work.add_rows(d_rows, index, maps)
            d_weight = None if weight is None else grad[part].T @ features[part]  # [O, D]
            return [d_rows, _as_complex(d_matrices * parseval), d_biases, d_weight]

        parts = _each_part(histories, run)
        sums = []
        for gradients in zip(*parts, strict=True):  # of all threads, one kind after the other
            first, *others = gradients
            sums.append(None if first is None else sum(others, first))
        return *sums, None, None, None


def _without_pads(histories: Tensor, pads: Tensor | None, block: slice) -> Tensor:
    """Histories of a block, without columns in front that hold nothing but pads."""
    return histories[block] if pads is None else histories[block, int(pads[block].min()) :]


def _pairs(x: Tensor) -> Tensor:
    """Complex [F, B, n] as real [F, B, 2n], the same memory."""
    return torch.view_as_real(x).flatten(2)


def _as_real(filters: Tensor) -> Tensor:
    """Real matrices [F, 2N, 2C] whose product with pairs is that with the filters [F, N, C].

    (a + ib)(c + id) is the row [a, b] times the matrix [[c, d], [−d, c]]; its second row is i
    times the first.
    """
    by_real = torch.view_as_real(filters.resolve_conj())  # [F, N, C, 2]
    by_imaginary = torch.view_as_real(filters * 1j)
    return torch.stack((by_real, by_imaginary), dim=2).flatten(3).flatten(1, 2)


def _as_complex(d_matrices: Tensor) -> Tensor:
    """Gradient of the filters, [F, N, C], from that of their matrices, [F, 2N, 2C]."""
    frequencies, rows, columns = d_matrices.shape
    d = d_matrices.view(frequencies, rows // 2, 2, columns // 2, 2)
    # c stands twice in [[c, d], [−d, c]], d once with each sign: sum over where each stands.
    return torch.complex(d[:, :, 0, :, 0] + d[:, :, 1, :, 1], d[:, :, 0, :, 1] - d[:, :, 1, :, 0])


def _each_part(histories: Tensor, run: Callable[[slice], T]) -> list[T]:
    """Run on parts of the maps, one a thread; an accelerator has one part."""
    if histories.device.type != "cpu":
        return [run(slice(0, len(histories)))]
    return in_parts(len(histories), LEAST_PART, run)


def _feature_gradients(
    grad: Tensor, weight: Tensor | None, part: slice, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Each block of maps and the gradient of its features, [size, D]."""
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
    """Buffers of one block, used again for the next: fresh memory costs more than the sums.

    Parameters
    ----------
    rows : complex Tensor [V + 1, F]
    filters : complex Tensor [F, N, C]
    layout : Layout
    """

    def __init__(self, rows: Tensor, filters: Tensor, layout: Layout) -> None:
        frequencies, length, channels = filters.shape
        map_bytes = frequencies * length * rows.element_size()
        self.size = max(1, block_bytes(rows, BLOCK_BYTES) // map_bytes)  # maps of a block
        self.layout = layout
        self.parts = layout.parts()
        # Filters as wide as the map come last; their one feature needs no inverse transform.
        self.several = layout.channels * sum(places > 1 for _, _, places in self.parts)
        self.parseval = layout.parseval(rows)
        self._gathered = rows.new_empty((self.size * length, frequencies))
        self._maps = rows.new_empty(frequencies * self.size * length)
        self._products = rows.new_empty(frequencies * self.size * channels)
        self._spectra = rows.new_empty((self.size, self.several, frequencies))
        k = layout.embedding_dim
        # Zeros, because backward writes a filter's places only and transforms all K.
        self._signals = self._spectra.real.new_zeros((self.size, self.several, k))

    def maps(self, rows: Tensor, index: Tensor) -> Tensor:
        """Transformed maps of a block, [F, B, N]."""
        gathered = self._gathered[: index.numel()]  # [B · N, F]
        torch.index_select(rows, 0, index.flatten(), out=gathered)
        shape = (rows.shape[1], *index.shape)
        maps = self._maps[: rows.shape[1] * index.numel()].view(shape)
        # Frequencies first: each is one matrix of the batched product.
        return maps.copy_(gathered.view(*index.shape, -1).permute(2, 0, 1))

    def products(self, size: int) -> Tensor:
        """Room for products [F, B, C]."""
        frequencies = len(self.parseval)
        channels = len(self._products) // (frequencies * self.size)
        return self._products[: frequencies * size * channels].view(frequencies, size, channels)

    def write_features(self, products: Tensor, biases: Tensor, out: Tensor) -> None:
        """Features of products [F, B, C], after bias and ReLU, into out [B, D]."""
        size = len(out)
        spectra, signals = self._spectra[:size], self._signals[:size]
        # A constant added to a signal of length K stands K times in its frequency 0.
        products[0] += self.layout.embedding_dim * biases
        if self.several > 0:
            spectra.copy_(products[:, :, : self.several].permute(1, 2, 0))  # [B, C, F]
            torch.fft.irfft(spectra, n=self.layout.embedding_dim, out=signals)  # [B, C, K]
        for channels, features, places in self.parts:
            target = out[:, features].view(size, -1, places)
            if places > 1:
                torch.clamp_min(signals[:, channels, :places], 0, out=target)
            else:
                # One place: by Parseval its value is a weighted sum over the frequencies.
                values = (products[:, :, channels].real * self.parseval[:, None, None]).sum(0)
                torch.clamp_min(values, 0, out=target[..., 0])

    def products_gradient(self, grad: Tensor, features: Tensor, d_biases: Tensor) -> Tensor:
        """Gradient of the products, [F, B, C], from that of the features; adds up the biases'.

        Parseval's weights are left out here: `backward` multiplies them elsewhere.
        """
        size = len(grad)
        spectra, signals = self._spectra[:size], self._signals[:size]
        d_products = self.products(size)
        for channels, where, places in self.parts:
            shape = (size, channels.stop - channels.start, places)
            part = signals[:, channels, :places] if places > 1 else grad.new_empty(shape)
            # The gradient passes where the feature is above zero.
            incoming, values = grad[:, where].view(shape), features[:, where].view(shape)
            torch.ops.aten.threshold_backward.grad_input(incoming, values, 0, grad_input=part)
            if places == 1:
                d_biases[channels] += part.sum(dim=(0, 2))
                d_products[:, :, channels] = part[..., 0]
        if self.several > 0:
            torch.fft.rfft(signals, out=spectra)
            # A bias adds to all places; their sum is frequency 0.
            d_biases[: self.several] += spectra[:, :, 0].real.sum(0)
            d_products[:, :, : self.several] = spectra.permute(2, 0, 1)
        return d_products

    def add_rows(self, d_rows: Tensor, index: Tensor, d_maps: Tensor) -> None:
        """Add the gradient of each map's rows, [F, B, N], to the table's, [V + 1, F]."""
        gathered = self._gathered[: index.numel()]
        gathered.view(*index.shape, -1).copy_(d_maps.permute(1, 2, 0))
        # Complex numbers as pairs of real ones, the same memory.
        table = torch.view_as_real(d_rows).flatten(1)
        table.index_add_(0, index.flatten(), torch.view_as_real(gathered).flatten(1))

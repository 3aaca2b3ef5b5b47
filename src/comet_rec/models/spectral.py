"""Cross features in the frequency domain, a block of maps at a time.

With Ê the transform of the map's rows along K and Ŵ that of a filter, the correlation of Eq. 4 is
``irfft(Σ_n Ê[n] · conj(Ŵ[n]))``: one product [B, N]×[N, channels] per frequency. Blocks are small
enough for the cache, and backward gathers the maps again instead of keeping them. Maps with the
fewest pads come first, so that a block leaves out the columns that hold nothing but pads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from comet_rec.models.threads import in_parts
from comet_rec.models.workspace import Layout, Workspace

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Complex, Float, Int

LEAST_PART = 32
"""Fewest maps that are worth a thread of their own."""

BLOCKS_A_PRODUCT = 4
"""Blocks whose features meet the next layer's weight, or get their gradient, in one product."""


T = TypeVar("T")


def cross_features(
    rows: Complex[Tensor, "V F"],
    filters: Complex[Tensor, "F N C"],
    biases: Float[Tensor, " C"],
    histories: Int[Tensor, "B N"],
    layout: Layout,
    weight: Float[Tensor, "O D"] | None = None,
) -> Float[Tensor, "B _"]:
    """Cross features after ReLU (Eq. 4, 5), [B, D]; or their product with a layer's weight, [B, O].

    Parameters
    ----------
    rows : Tensor [V, F]
        Transformed rows; the pad's is zero.
    filters : Tensor [F, N, C]
        Conjugated transforms of the filters of all widths.
    biases : Tensor [C]
    histories : Tensor [B, N]
        Which rows each map stacks.
    layout : Layout
    weight : Tensor [O, D], optional
        Of the linear layer that follows; with it the features' gradient is never held whole.
    """
    histories = histories.long()
    if histories.device.type != "cpu":  # blocks would wait for their shapes
        return _apply(rows, filters, biases, weight, histories, None, layout)
    pads = _pads_in_front(histories, pad=len(rows) - 1)
    order = _by_pads(pads)
    found = _apply(rows, filters, biases, weight, histories[order], pads[order], layout)
    return found.index_select(0, order.argsort())


def _apply(*arguments: Any) -> Tensor:
    found: Tensor = _CrossFeatures.apply(*arguments)  # type: ignore[no-untyped-call]
    return found


def _pads_in_front(histories: Tensor, pad: int) -> Tensor:
    """How many pads each history starts with, int64 [B]; one row of it is always kept."""
    return (histories[:, :-1] == pad).long().cumprod(1).sum(1)


def _by_pads(pads: Tensor) -> Tensor:
    """Order of maps in which neighbours have about as many pads, in each thread's part of them."""
    order = pads.argsort(stable=True)
    threads = torch.get_num_threads()
    return torch.cat([order[first::threads] for first in range(threads)])


class _CrossFeatures(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, filters: Tensor, biases: Tensor, weight: Tensor | None,
        histories: Tensor, pads: Tensor | None, layout: Layout,
    ) -> Tensor:  # fmt: skip
        features = biases.new_empty((len(histories), layout.features))
        out = features
        if weight is not None:
            out = biases.new_empty((len(histories), len(weight)))
        matrices = _as_real(filters)

        def run(part: slice) -> None:
            work = Workspace(rows, filters, layout)
            for several in _blocks(part, BLOCKS_A_PRODUCT * work.size):
                for block in _blocks(several, work.size):
                    index = _shown(histories, pads, block)
                    maps = work.maps(rows, index)
                    products = work.products(len(index))
                    met = matrices[:, -2 * index.shape[1] :]
                    torch.bmm(_pairs(maps), met, out=_pairs(products))
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
        grad = grads[0]
        # The weights of Parseval stand in the matrices and, at the end, in their gradient.
        weights = ctx.layout.parseval(rows)[:, None, None]
        matrices = _as_real(filters)
        transposed = (matrices * weights).mT.contiguous()

        def run(part: slice) -> list[Tensor | None]:
            work = Workspace(rows, filters, ctx.layout)
            d_rows, d_matrices = torch.zeros_like(rows), torch.zeros_like(matrices)
            d_biases = grad.new_zeros(filters.shape[2])
            for block, d_features in _feature_gradients(grad, weight, part, work.size):
                index = _shown(histories, pads, block)
                maps = work.maps(rows, index)
                d_products = work.products_gradient(d_features, features[block], d_biases)
                columns = 2 * index.shape[1]
                d_matrices[:, -columns:].baddbmm_(_pairs(maps).mT, _pairs(d_products))
                # Into the maps, which are not needed any more.
                met = transposed[:, :, -columns:]
                torch.bmm(_pairs(d_products), met, out=_pairs(maps))
                work.add_rows(d_rows, index, maps)
            d_weight = None if weight is None else grad[part].T @ features[part]
            return [d_rows, _as_complex(d_matrices * weights), d_biases, d_weight]

        found = _each_part(histories, run)
        sums = [None if of[0] is None else sum(of[1:], of[0]) for of in zip(*found, strict=True)]
        return *sums, None, None, None


def _shown(histories: Tensor, pads: Tensor | None, block: slice) -> Tensor:
    """Histories of a block, without columns in front that hold nothing but pads."""
    return histories[block] if pads is None else histories[block, int(pads[block].min()) :]


def _pairs(x: Tensor) -> Tensor:
    """Complex [F, B, n] as real [F, B, 2n], the same memory."""
    return torch.view_as_real(x).flatten(2)


def _as_real(filters: Tensor) -> Tensor:
    """Real matrices [F, 2N, 2C] whose product with pairs is that with the filters [F, N, C]."""
    by_real = torch.view_as_real(filters.resolve_conj())
    by_imaginary = torch.view_as_real(filters * 1j)
    return torch.stack((by_real, by_imaginary), dim=2).flatten(3).flatten(1, 2)


def _as_complex(d_matrices: Tensor) -> Tensor:
    """Gradient of the filters, [F, N, C], from that of their matrices, [F, 2N, 2C]."""
    frequencies, rows, columns = d_matrices.shape
    d = d_matrices.view(frequencies, rows // 2, 2, columns // 2, 2)
    return torch.complex(d[:, :, 0, :, 0] + d[:, :, 1, :, 1], d[:, :, 0, :, 1] - d[:, :, 1, :, 0])


def _each_part(histories: Tensor, run: Callable[[slice], T]) -> list[T]:
    """Run on parts of the maps, one a thread; an accelerator has one part."""
    if histories.device.type != "cpu":
        return [run(slice(0, len(histories)))]
    return in_parts(len(histories), LEAST_PART, run)


def _blocks(part: slice, size: int) -> Iterator[slice]:
    for first in range(part.start, part.stop, size):
        yield slice(first, min(first + size, part.stop))


def _feature_gradients(
    grad: Tensor, weight: Tensor | None, part: slice, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Each block of maps and the gradient of its features, [size, D]."""
    if weight is None:
        for block in _blocks(part, size):
            yield block, grad[block]
        return
    several = max(1, min(BLOCKS_A_PRODUCT * size, part.stop - part.start))
    buffer = grad.new_empty((several, weight.shape[1]))
    for outer in _blocks(part, several):
        product = torch.mm(grad[outer], weight, out=buffer[: outer.stop - outer.start])
        for block in _blocks(outer, size):
            yield block, product[block.start - outer.start : block.stop - outer.start]

"""The first two layers of ConvNCF over outer products, a block of pairs at a time.

A 2×2 convolution with stride 2 sees patches that do not overlap, so it is a product; over
p ⊗ q it is one of rank two. With four numbers of p and a one in a row (for the bias) of P, and
the filters applied to q in H, a pair's first layer is ``P @ H``, already in the order in which the
second layer's patches follow one another. It takes 128 KiB a pair at K = 64: blocks stay in the
cache, and backward makes them again instead of keeping them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float

BLOCK_BYTES = 2_200_000
"""Of the first layer's output."""


def two_layers(
    users: Float[Tensor, "P K"],
    items: Float[Tensor, "P K"],
    first: tuple[Float[Tensor, "C 1 2 2"], Float[Tensor, " C"]],
    second: tuple[Float[Tensor, "C C 2 2"], Float[Tensor, " C"]],
) -> Float[Tensor, "P S C"]:
    """Two convolutions (2×2, stride 2, ReLU) of each pair's p ⊗ q, S = (K/4)².

    Parameters
    ----------
    users, items : Tensor [P, K]
        K a multiple of four.
    first, second : weight and bias of a layer
    """
    left, right = _factors(users, items, *first)
    weight = patch_weight(second[0])
    found: Tensor = _TwoLayers.apply(left, right, weight, second[1])  # type: ignore[no-untyped-call]
    return found


def patch_weight(weight: Float[Tensor, "O I 2 2"]) -> Float[Tensor, "I4 O"]:
    """A filter bank as the matrix that a flattened [2, 2, I] patch is multiplied with."""
    return weight.permute(2, 3, 1, 0).reshape(-1, len(weight))


def _factors(users: Tensor, items: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """P [pairs, K/4, 5] and H [pairs, 5, K/4 · 4C] of the first layer."""
    pairs, k = users.shape
    side, channels = k // 4, len(bias)
    bank = weight[:, 0].permute(2, 1, 0).reshape(2, 2 * channels)  # item's place × (user's, C)
    of_items = (items.reshape(-1, 2) @ bank).view(pairs, side, 2, 2, channels)
    rows = of_items.permute(0, 3, 1, 2, 4).reshape(pairs, 2, side, 1, 2 * channels)
    zeros = torch.zeros_like(rows)
    ones = bias.repeat(4).view(1, 1, 1, 2, -1).expand(pairs, 1, side, 2, -1)
    upper, lower = torch.cat([rows, zeros], dim=3), torch.cat([zeros, rows], dim=3)
    right = torch.cat([upper, lower, ones], dim=1).view(pairs, 5, -1)
    left = torch.cat([users.reshape(pairs, side, 4), users.new_ones(pairs, side, 1)], dim=2)
    return left, right


class _TwoLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pairs, side, _ = left.shape
        out = left.new_empty((pairs, side * side, len(bias)))
        for block in _blocks(right, side):
            patches = torch.bmm(left[block], right[block]).relu_().view(-1, len(weight))
            torch.addmm(bias, patches, weight, out=out[block].view(-1, len(bias)))
        out.relu_()
        ctx.save_for_backward(left, right, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        left, right, weight, out = ctx.saved_tensors
        side, channels = left.shape[1], weight.shape[1]
        grad = torch.ops.aten.threshold_backward(grads[0].contiguous(), out, 0.0)
        of_left, of_right = torch.empty_like(left), torch.empty_like(right)
        of_weight = torch.zeros_like(weight)
        for block in _blocks(right, side):
            maps = torch.bmm(left[block], right[block]).relu_()
            patches, above = maps.view(-1, len(weight)), grad[block].view(-1, channels)
            of_weight.addmm_(patches.T, above)
            below = torch.ops.aten.threshold_backward(above @ weight.T, patches, 0.0).view_as(maps)
            torch.bmm(below, right[block].transpose(1, 2), out=of_left[block])
            torch.bmm(left[block].transpose(1, 2), below, out=of_right[block])
        return of_left, of_right, of_weight, grad.sum(dim=(0, 1))


def _blocks(right: Tensor, side: int) -> Iterator[slice]:
    size = max(1, BLOCK_BYTES // (right.shape[2] * side * right.element_size()))
    for start in range(0, len(right), size):
        yield slice(start, min(start + size, len(right)))

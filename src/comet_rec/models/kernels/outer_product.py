"""The first two layers of ConvNCF over outer products, a block of pairs at a time.

The input is the map M = p ⊗ q, M[x, y] = p[x] · q[y]. A 2×2 filter w with stride 2 reads patches
that do not overlap. So its output at (x, y) is a product of rank two:

    Σ_a Σ_b w[a, b] · p[2x + a] · q[2y + b] + bias
        = p[2x] · (w[0, :] · q_y) + p[2x + 1] · (w[1, :] · q_y) + bias,   q_y = q[2y : 2y + 2].

The map itself is never computed. One cell after two layers depends on a 4×4 patch of the map, and
so on four numbers of p and four of q:

    q: 4 numbers ──filters──► columns of H [5, …]     (four rows for p, one for the bias)
    p: 4 numbers, and a one ─► a row of P [1, 5]
         P @ H ─► first layer, in the order of the second layer's patches ─► ReLU
               ─► · second layer's filters [4C, C] + bias ─► ReLU ─► one cell of [K/4, K/4]

The output of the first layer takes 128 KiB per pair at K = 64. A block of it stays in the cache,
and the backward pass computes it again instead of keeping it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec import verify
from comet_rec.parallel import blocks

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float

BLOCK_BYTES = 2_200_000
"""Size in bytes of a block of the first layer's output."""


def direct_two_layers(
    users: Float[Tensor, "P K"],
    items: Float[Tensor, "P K"],
    first: tuple[Float[Tensor, "C 1 2 2"], Float[Tensor, " C"]],
    second: tuple[Float[Tensor, "C C 2 2"], Float[Tensor, " C"]],
) -> Float[Tensor, "P S C"]:
    """The same result as `two_layers`, by PyTorch's convolutions (slow, for tests)."""
    maps = (users[:, :, None] * items[:, None, :])[:, None]  # [P, 1, K, K]
    for weight, bias in (first, second):
        maps = torch.relu(nnf.conv2d(maps, weight, bias, stride=2))
    return maps.flatten(2).mT  # [P, C, K/4, K/4] → [P, S, C]


def two_layers(
    users: Float[Tensor, "P K"],
    items: Float[Tensor, "P K"],
    first: tuple[Float[Tensor, "C 1 2 2"], Float[Tensor, " C"]],
    second: tuple[Float[Tensor, "C C 2 2"], Float[Tensor, " C"]],
) -> Float[Tensor, "P S C"]:
    """Output of two convolutional layers over the outer product p ⊗ q of each pair, [P, S, C].

    Both layers have 2×2 filters, stride 2 and ReLU. S = (K/4)² is the number of output cells.

    Parameters
    ----------
    users, items : Tensor [P, K]
        Vectors p and q of each pair; K must be a multiple of four.
    first, second : pair of Tensor
        Weight and bias of the first and of the second layer.
    """
    if verify.slow():
        return direct_two_layers(users, items, first, second)
    left, right = _factors(users, items, *first)
    weight = patch_weight(second[0])
    maps: Tensor = _TwoLayers.apply(left, right, weight, second[1])  # type: ignore[no-untyped-call]
    return maps


def patch_weight(weight: Float[Tensor, "O I 2 2"]) -> Float[Tensor, "I4 O"]:
    """Filters of a layer as a matrix [4 I, O], which multiplies flattened patches [2, 2, I]."""
    return weight.permute(2, 3, 1, 0).reshape(-1, len(weight))


def _factors(users: Tensor, items: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Factors P [pairs, K/4, 5] and H [pairs, 5, K/4 · 4C] whose product is the first layer."""
    pairs, k = users.shape
    side, channels = k // 4, len(bias)
    # Products w[a, :] · q_y, for both a: a patch has two numbers of q.
    bank = weight[:, 0].permute(2, 1, 0).reshape(2, 2 * channels)  # [b, (a, C)]
    item_parts = (items.reshape(-1, 2) @ bank).view(pairs, side, 2, 2, channels)
    rows = item_parts.permute(0, 3, 1, 2, 4).reshape(pairs, 2, side, 1, 2 * channels)
    # The first two of four numbers of p belong to the upper patches, the last two to the lower.
    zeros = torch.zeros_like(rows)
    upper, lower = torch.cat([rows, zeros], dim=3), torch.cat([zeros, rows], dim=3)
    # The last number in a row of P is one, and multiplies the bias.
    biases = bias.repeat(4).view(1, 1, 1, 2, -1).expand(pairs, 1, side, 2, -1)
    right = torch.cat([upper, lower, biases], dim=1).view(pairs, 5, -1)
    left = torch.cat([users.reshape(pairs, side, 4), users.new_ones(pairs, side, 1)], dim=2)
    return left, right


class _TwoLayers(torch.autograd.Function):
    """Output [pairs, S, C] of both layers, with a backward pass of its own.

    The inputs are the factors P and H, and the weight [4C, C] and bias of the second layer.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pairs, side, _ = left.shape
        out = left.new_empty((pairs, side * side, len(bias)))
        for block in _blocks_of_pairs(right, side):
            patches = torch.bmm(left[block], right[block]).relu_().view(-1, len(weight))
            torch.addmm(bias, patches, weight, out=out[block].view(-1, len(bias)))
        out.relu_()
        ctx.save_for_backward(left, right, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        left, right, weight, out = ctx.saved_tensors
        side, channels = left.shape[1], weight.shape[1]
        # ReLU passes the gradient on only where the second layer's output is above zero.
        grad = torch.ops.aten.threshold_backward(grads[0].contiguous(), out, 0.0)
        d_left, d_right = torch.empty_like(left), torch.empty_like(right)
        d_weight = torch.zeros_like(weight)
        for block in _blocks_of_pairs(right, side):
            maps = torch.bmm(left[block], right[block]).relu_()  # computed again, not kept
            patches, d_out = maps.view(-1, len(weight)), grad[block].view(-1, channels)
            d_weight.addmm_(patches.T, d_out)
            d_patches = torch.ops.aten.threshold_backward(d_out @ weight.T, patches, 0.0)
            d_maps = d_patches.view_as(maps)
            torch.bmm(d_maps, right[block].transpose(1, 2), out=d_left[block])
            torch.bmm(left[block].transpose(1, 2), d_maps, out=d_right[block])
        return d_left, d_right, d_weight, grad.sum(dim=(0, 1))


def _blocks_of_pairs(right: Tensor, side: int) -> Iterator[slice]:
    """Slices of pairs for which the first layer's output takes at most `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // (right.shape[2] * side * right.element_size()))
    return blocks(slice(0, len(right)), size)

"""Cross-entropy over all items, a block of positives at a time.

The logits of a batch would be [B, I], read and written again by each operation. A block of them
fits the cache, and since the loss is one number, its gradient can be had in the same pass: no
logit is computed twice, and none is kept.
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
from torch import Tensor

from comet_rec.models.base import TensorBags
from comet_rec.models.kernels.blocks import block_bytes

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

BLOCK_BYTES = 4_000_000
"""Logits at a time on the CPU."""


def catalogue_softmax(
    users: Float[Tensor, "B K"],
    items: Float[Tensor, "I K"],
    targets: Int[Tensor, " B"],
    smoothing: float,
    reduction: Literal["mean", "sum"],
    masked: TensorBags | None = None,
) -> Float[Tensor, ""]:
    """−Σ log softmax(items · user)_target, or its mean over the positives.

    With smoothing ε the target is (1 − ε) · one-hot + ε / I. Unless `masked` says otherwise no
    item is left out: other positives of the same user are among those that the target is told
    from.

    Parameters
    ----------
    users : Tensor [B, K]
        Vector of each positive's user, h ⊙ z_u.
    items : Tensor [I, K]
        Vectors of all items.
    targets : int64 [B]
        The positives' items.
    smoothing : float
    reduction : {"mean", "sum"}
    masked : TensorBags or None
        Items left out for each positive, never its own; without smoothing.
    """
    total: Tensor = _CatalogueSoftmax.apply(users, items, targets, smoothing, masked)  # type: ignore[no-untyped-call]
    return total / len(users) if reduction == "mean" else total


class _CatalogueSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, targets: Tensor, smoothing: float,
        masked: TensorBags | None,
    ) -> Tensor:  # fmt: skip
        d_users, d_items = torch.empty_like(users), torch.zeros_like(items)
        row = len(items) * items.element_size()
        size = max(1, min(len(users), block_bytes(items, BLOCK_BYTES) // row))
        buffer = items.new_empty((size, len(items)))
        middle = items.mean(dim=0)
        total = items.new_zeros(())
        for first in range(0, len(users), size):
            block = slice(first, min(first + size, len(users)))
            x, target = users[block], targets[block]
            rows = torch.arange(len(x), device=x.device)
            logits = torch.mm(x, items.T, out=buffer[: len(x)])
            wanted = (1 - smoothing) * logits[rows, target] + smoothing * (x @ middle)
            if masked is not None:
                mask(logits, masked[block])
            most = logits.amax(dim=1, keepdim=True)
            # From here on the buffer holds what is proportional to the probabilities.
            sums = logits.sub_(most).exp_().sum(dim=1, keepdim=True)
            total += (most[:, 0] + sums[:, 0].log() - wanted).sum()
            logits[rows, target] -= (1 - smoothing) * sums[:, 0]
            torch.mm(logits, items, out=d_users[block]).div_(sums).sub_(smoothing * middle)
            d_items.addmm_(logits.T, x / sums)
        d_items -= smoothing / len(items) * users.sum(dim=0)
        ctx.save_for_backward(d_users, d_items)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        d_users, d_items = ctx.saved_tensors
        return d_users * grads[0], d_items * grads[0], None, None, None


def mask(logits: Float[Tensor, "B C"], masked: TensorBags) -> None:
    """Put −∞ where the bag of each row says, in place."""
    logits[masked.owners, masked.members] = -torch.inf

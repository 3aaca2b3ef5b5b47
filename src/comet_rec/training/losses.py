"""Losses on logits."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch.nn.functional as nnf
from torch import Tensor

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float


def binary_cross_entropy(
    logits: Float[Tensor, " P"], labels: Float[Tensor, " P"], reduction: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Eq. 9: −Σ y·log σ(x) + (1 − y)·log(1 − σ(x)), or its mean over the pairs."""
    return nnf.binary_cross_entropy_with_logits(logits, labels, reduction=reduction)

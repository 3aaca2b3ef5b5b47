"""Losses on logits."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


def binary_cross_entropy(
    logits: Float[Tensor, " P"], labels: Float[Tensor, " P"], reduction: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Eq. 9: −Σ y·log σ(x) + (1 − y)·log(1 − σ(x)), or its mean over the pairs."""
    return nnf.binary_cross_entropy_with_logits(logits, labels, reduction=reduction)


def bayesian_personalised_ranking(
    logits: Float[Tensor, " P"],
    labels: Float[Tensor, " P"],
    groups: Int[Tensor, " P"],
    reduction: Literal["mean", "sum"],
) -> Float[Tensor, ""]:
    """−Σ log σ(x_positive − x_negative) over the negatives (Rendle et al. 2009), or its mean.

    Parameters
    ----------
    logits, labels : Tensor [P]
    groups : int64 [P]
        Number of the positive that each pair is, or was drawn for.
    """
    observed = labels > 0
    own = torch.zeros_like(logits[observed]).index_put((groups[observed],), logits[observed])
    differences = own[groups[~observed]] - logits[~observed]
    losses = nnf.softplus(-differences)
    return losses.mean() if reduction == "mean" else losses.sum()

"""Losses on logits."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.models.base import TensorBags
from comet_rec.training.catalogue import mask

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
    # A batch of users who touched everything has no negatives.
    return losses.sum() / max(len(losses), 1) if reduction == "mean" else losses.sum()


def sampled_softmax(
    own: Float[Tensor, " B"],
    logits: Float[Tensor, "B C"],
    log_weights: Float[Tensor, " C"],
    places: Int[Tensor, " B"],
    smoothing: float,
    reduction: Literal["mean", "sum"],
    masked: TensorBags | None = None,
) -> Float[Tensor, ""]:
    """`catalogue_softmax` with the sum over the catalogue estimated from drawn items.

    The positive enters as it is, every other drawn item with ``exp(x + log_weight)``, the
    positive's own column left out. The expectation of that sum is the sum over all items, since
    a weight is how often the item was drawn over how often it was to be (log Q correction).
    The mean logit of the smoothed target is estimated with the same weights.

    Parameters
    ----------
    own : Tensor [B]
        Logits of the positives.
    logits : Tensor [B, C]
        Of each positive's user and the drawn items.
    log_weights : Tensor [C]
    places : int64 [B]
        Column of the positive's own item; −1 where it was not drawn.
    smoothing : float
    reduction : {"mean", "sum"}
    masked : TensorBags or None
        Columns left out for each positive; without smoothing.
    """
    hits = torch.nonzero(places >= 0)[:, 0]
    columns = places[hits]
    others = (logits + log_weights).index_put(
        (hits, columns), own.new_full((len(hits),), -torch.inf)
    )
    if masked is not None:
        mask(others, masked)
    total = torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1)
    losses = total - own
    if smoothing > 0:
        weights = log_weights.exp()
        twice = torch.zeros_like(own).index_put((hits,), weights[columns])
        mean = (own + logits @ weights - twice * own) / (1 + weights.sum() - twice)
        losses = (1 - smoothing) * losses + smoothing * (total - mean)
    return losses.mean() if reduction == "mean" else losses.sum()

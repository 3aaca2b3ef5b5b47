"""Losses of a training step: losses on pairs, and the softmax over all items or sampled items.

The logits [B, I] of a full softmax are computed in blocks of rows that fit the cache. The same pass
computes the gradient of a block, so the logits are computed once and not kept.
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec import verify
from comet_rec.config import TrainConfig
from comet_rec.data.batches import Batch
from comet_rec.data.histories import Ragged
from comet_rec.parallel import block_bytes, blocks
from comet_rec.precision import product_dtype

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

BLOCK_BYTES = 2_000_000
"""Size in bytes of a block of logits on a CPU."""


def objective(
    model: Any, batch: Batch, config: TrainConfig, rng: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and the logits of its (user, item) pairs.

    With a softmax loss, the pairs are only the positives.

    Parameters
    ----------
    model : Trainable
        For a softmax it must be a `TwoTower` that passes `models.base.check`.
    batch : Batch
        Pairs with labels. For a softmax, positives and all or sampled items.
    config : TrainConfig
    rng : torch.Generator or None
        Draws dropout; None switches dropout off.
    """
    if config.loss == "softmax":
        return _softmax(model, batch, config, rng)
    logits = model(batch, rng)
    if config.loss == "bpr":
        loss = bayesian_personalised_ranking(logits, batch.labels, batch.groups, config.reduction)
    elif config.loss == "gbce":
        power = gbce_power(config.negatives, batch.n_items, config.calibration)
        loss = generalised_cross_entropy(logits, batch.labels, power, config.reduction)
    else:
        loss = binary_cross_entropy(logits, batch.labels, config.reduction)
    return loss, logits


def _softmax(
    model: Any, batch: Batch, config: TrainConfig, rng: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    users, items = model.positives_and_items(batch, rng)
    options = config.reduction, batch.masked
    positives = (users * items.index_select(0, batch.pair_items)).sum(dim=1)  # logits, [B]
    if batch.shared is None:
        return full_softmax(users, items, batch.pair_items, *options), positives
    logits = users @ items.index_select(0, batch.shared.columns).T  # [B, C]
    weights, places = batch.shared.log_weights, batch.shared.positive_columns
    return sampled_softmax(positives, logits, weights, places, *options), positives


def binary_cross_entropy(
    logits: Float[Tensor, " P"], labels: Float[Tensor, " P"], reduction: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy (Eq. 9): −Σ [y·log σ(x) + (1 − y)·log(1 − σ(x))], or the mean."""
    return nnf.binary_cross_entropy_with_logits(logits, labels, reduction=reduction)


def generalised_cross_entropy(
    logits: Float[Tensor, " P"],
    labels: Float[Tensor, " P"],
    power: float,
    reduction: Literal["mean", "sum"],
) -> Float[Tensor, ""]:
    """gBCE: −Σ [y·log σ(x)^β + (1 − y)·log(1 − σ(x))] with β = `power`, or the mean.

    With few sampled negatives, binary cross-entropy overestimates the probability of every item. A
    power below 1 corrects that (Petrov and Macdonald 2023, Eq. 14).
    """
    # log σ(x)^β is β·log σ(x): the power is a weight of the positives.
    weights = torch.where(labels > 0, power, 1.0).to(logits.dtype)
    return nnf.binary_cross_entropy_with_logits(logits, labels, weights, reduction=reduction)


def gbce_power(negatives: int, n_items: int, calibration: float) -> float:
    """Power β = α (t (1 − 1/α) + 1/α) of gBCE, with the sampling rate α = k/(n − 1) and t.

    The arguments are the number k of negatives of a positive, the number n of items, and t.
    """
    rate = min(1.0, negatives / max(n_items - 1, 1))
    return 1 - calibration * (1 - rate)


def bayesian_personalised_ranking(
    logits: Float[Tensor, " P"],
    labels: Float[Tensor, " P"],
    groups: Int[Tensor, " P"],
    reduction: Literal["mean", "sum"],
) -> Float[Tensor, ""]:
    """BPR loss −Σ log σ(x_positive − x_negative) over all negatives, or the mean.

    See Rendle et al. 2009.

    Parameters
    ----------
    logits, labels : Tensor [P]
    groups : int64 [P]
        Number of the positive that each pair belongs to: the positive itself, or one of its
        negatives.
    """
    observed = labels > 0
    # Logits of the positives in the order of their numbers, [B].
    positives = torch.zeros_like(logits[observed]).index_put((groups[observed],), logits[observed])
    differences = positives[groups[~observed]] - logits[~observed]
    losses = nnf.softplus(-differences)
    # `max`: a batch has no negatives if all its users interacted with every item.
    return losses.sum() / max(len(losses), 1) if reduction == "mean" else losses.sum()


def sampled_softmax(
    own: Float[Tensor, " B"],
    logits: Float[Tensor, "B C"],
    log_weights: Float[Tensor, " C"],
    places: Int[Tensor, " B"],
    reduction: Literal["mean", "sum"],
    masked: Ragged | None = None,
) -> Float[Tensor, ""]:
    """Softmax cross-entropy of each positive among all items, estimated from sampled items.

    The denominator is the sum of exp(x) for the positive and ``exp(x + log_weight)`` for every
    other sampled item. ``exp(log_weight)`` is the number of draws of an item over the expected
    number. So the expectation of the sum is the sum over all items (log Q correction).

    Parameters
    ----------
    own : Tensor [B]
        Logits of the positives.
    logits : Tensor [B, C]
        Logits of each positive's user with the sampled items.
    log_weights : Tensor [C]
        Corrections of the sampled items (`data.sampling.Negatives.shared`).
    places : int64 [B]
        Column of each positive's own item; −1 if the item was not sampled.
    reduction : {"mean", "sum"}
    masked : Ragged or None
        For each positive, the columns to leave out of the denominator.
    """
    # Leave out the positive's own column: its logit enters separately, without a weight.
    hits = torch.nonzero(places >= 0)[:, 0]
    columns = places[hits]
    others = (logits + log_weights).index_put(
        (hits, columns), own.new_full((len(hits),), -torch.inf)
    )
    if masked is not None:
        mask(others, masked)
    losses = torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own  # [B]
    return losses.mean() if reduction == "mean" else losses.sum()


def full_softmax(
    users: Float[Tensor, "B K"],
    items: Float[Tensor, "I K"],
    targets: Int[Tensor, " B"],
    reduction: Literal["mean", "sum"],
    masked: Ragged | None = None,
) -> Float[Tensor, ""]:
    """Softmax cross-entropy of each positive among all items, summed or averaged.

    The logits are the inner products of the positive's user vector with all item vectors. Other
    positives of the same user count as negatives, unless `masked` leaves them out.

    Parameters
    ----------
    users : Tensor [B, K]
        Vector h ⊙ z_u of each positive's user.
    items : Tensor [I, K]
        Vectors of all items.
    targets : int64 [B]
        Items of the positives.
    reduction : {"mean", "sum"}
    masked : Ragged or None
        For each positive, the items to leave out of the softmax, without the positive itself.
    """
    if verify.slow():
        return direct_softmax(users, items, targets, reduction, masked)
    total: Tensor = _FullSoftmax.apply(users, items, targets, masked)  # type: ignore[no-untyped-call]
    return total / len(users) if reduction == "mean" else total


def direct_softmax(
    users: Float[Tensor, "B K"],
    items: Float[Tensor, "I K"],
    targets: Int[Tensor, " B"],
    reduction: Literal["mean", "sum"],
    masked: Ragged | None = None,
) -> Float[Tensor, ""]:
    """The same result as `full_softmax`, by PyTorch's cross-entropy (slow, for tests)."""
    logits = users @ items.T  # [B, I]
    if masked is not None:
        logits = logits.index_put((masked.rows, masked.values), logits.new_tensor(-torch.inf))
    return nnf.cross_entropy(logits, targets, reduction=reduction)


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, targets: Tensor, masked: Ragged | None
    ) -> Tensor:
        dtype = product_dtype(items)
        left, right = users.to(dtype), items.to(dtype)
        d_users, d_items = torch.empty_like(users), torch.zeros_like(items)
        row = len(items) * right.element_size()
        size = max(1, min(len(users), block_bytes(items, BLOCK_BYTES) // row))
        logits_buffer = right.new_empty((size, len(items)))
        probabilities_buffer = torch.empty_like(logits_buffer)
        total = items.new_zeros(())
        for block in blocks(slice(0, len(users)), size):
            x, target = left[block], targets[block]
            rows = torch.arange(len(x), device=x.device)
            logits = torch.mm(x, right.T, out=logits_buffer[: len(x)])
            target_logits = logits[rows, target]
            if masked is not None:
                mask(logits, masked[block])
            largest = logits.amax(dim=1)
            probabilities = torch.softmax(logits, dim=1, out=probabilities_buffer[: len(x)])
            # log Σ exp(x) = x_largest − log p_largest, so no second pass over the logits is needed.
            # The largest probability is at least 1 / I, so its logarithm is always finite.
            log_largest = probabilities.amax(dim=1).to(total.dtype).log()
            total += (largest.to(total.dtype) - log_largest - target_logits).sum()
            probabilities[rows, target] -= 1  # now the gradient of the logits
            if dtype == items.dtype:
                torch.mm(probabilities, right, out=d_users[block])
                d_items.addmm_(probabilities.T, x)
            else:  # the sum over blocks stays in the dtype of `items`
                d_users[block] = probabilities @ right
                d_items += probabilities.T @ x
        ctx.save_for_backward(d_users, d_items)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        d_users, d_items = ctx.saved_tensors
        return d_users * grads[0], d_items * grads[0], None, None


def mask(logits: Float[Tensor, "B C"], masked: Ragged) -> None:
    """Set ``logits[r, c]`` to −∞ for each column c in row r of `masked`, in place."""
    logits[masked.rows, masked.values] = -torch.inf

"""What one training step minimises: a model's logits of a batch, and their loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from comet_rec.config import TrainConfig
from comet_rec.models.base import TensorBatch
from comet_rec.training.catalogue import catalogue_softmax
from comet_rec.training.losses import (
    bayesian_personalised_ranking,
    binary_cross_entropy,
    sampled_softmax,
)


def objective(
    model: Any, batch: TensorBatch, config: TrainConfig, rng: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Loss of a batch, and logits of its pairs: of the positives alone for the softmax.

    Parameters
    ----------
    model : Trainable
        For the softmax a `TwoTower`, and one whose training logit is an inner product
        (`models.base.check`).
    batch : TensorBatch
        As the loss wants it: pairs with labels, or positives beside shared items.
    config : TrainConfig
    rng : torch.Generator or None
        Draws dropout.
    """
    if config.loss == "softmax":
        return _softmax(model, batch, config, rng)
    logits = model(batch, rng)
    if config.loss == "bpr":
        loss = bayesian_personalised_ranking(logits, batch.labels, batch.groups, config.reduction)
    else:
        loss = binary_cross_entropy(logits, batch.labels, config.reduction)
    return loss, logits


def _softmax(
    model: Any, batch: TensorBatch, config: TrainConfig, rng: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    users, items = model.positives_and_items(batch, rng)
    how = config.label_smoothing, config.reduction, batch.masked
    own = (users * items.index_select(0, batch.pair_items)).sum(dim=1)
    if batch.shared is None:
        return catalogue_softmax(users, items, batch.pair_items, *how), own
    logits = users @ items.index_select(0, batch.shared.columns).T
    weights, places = batch.shared.log_weights, batch.shared.own
    return sampled_softmax(own, logits, weights, places, *how), own

"""Learning rate of a step."""

from __future__ import annotations

import math

from comet_rec.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, per_epoch: int, horizon: int) -> float:
    """Rate of step number `step`, counted from 0.

    Parameters
    ----------
    config : TrainConfig
    step : int
    per_epoch : int
        Steps of an epoch.
    horizon : int
        Epochs at whose end a falling rate reaches zero.
    """
    done = min(1.0, step / (horizon * per_epoch))
    share = 1.0
    if config.schedule == "linear":
        share = 1 - done
    elif config.schedule == "cosine":
        share = (1 + math.cos(math.pi * done)) / 2
    if config.warmup > 0:
        share *= min(1.0, (step + 1) / (config.warmup * per_epoch))
    return config.learning_rate * share

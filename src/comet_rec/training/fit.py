"""From a config and a log to a finished run: choose the number of epochs, refit, and finish."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from comet_rec.artefact.run import Run, SecondModel
from comet_rec.config import Config
from comet_rec.data.batches import Batches
from comet_rec.data.histories import input_histories
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import NonFiniteError, TrainingInterrupted
from comet_rec.evaluation.scoring import blended, vectors
from comet_rec.models import base
from comet_rec.random import torch_seed
from comet_rec.training import blend, pretraining
from comet_rec.training.checkpoints import Found, Hooks, log_line, open_folder
from comet_rec.training.trainer import Progress, Trainer, frozen
from comet_rec.training.validation import Validation

CPU = torch.device("cpu")


class Stage(NamedTuple):
    """One training, from initial parameters to the end.

    Parameters
    ----------
    name : str
    rows : Interactions
        Rows to train on.
    epochs : int
        Largest number of epochs; 0 means the number that validation chose.
    held : HeldOut or None
        Validation items that choose the best epoch; None trains all epochs.
    """

    name: str
    rows: Interactions
    epochs: int
    held: HeldOut | None = None


def stages_of(config: Config, data: Split | Interactions) -> list[Stage]:
    """Stages of a training: one with validation and maybe a refit, or one on all rows of a log."""
    if not isinstance(data, Split):
        return [Stage("all", data, config.train.full_epochs)]
    validation = Stage("validation", data.train, config.train.epochs, data.validation)
    return [validation, Stage("refit", data.known, 0)] if config.train.refit else [validation]


def fit(
    config: Config,
    data: Split | Interactions,
    *,
    second: Config | Run | None = None,
    starts: Sequence[Run] = (),
    hooks: Hooks | None = None,
    device: torch.device = CPU,
) -> Run:
    """Train a model and return its run; test items are never read, and no test metric is computed.

    Parameters
    ----------
    config : Config
    data : Split or Interactions
        The validation items of a split choose the number of epochs. A log without a split is used
        for training as a whole.
    second : Config, Run or None
        Second model of a blend: its complete config, or its finished run on the same data.
    starts : sequence of Run
        Pre-trained models for the initial parameters.
    hooks : Hooks, optional
    device : torch.device

    Raises
    ------
    ConfigError, NonFiniteError, TrainingInterrupted
    """
    hooks = hooks or Hooks()
    split, log = (data, data.interactions) if isinstance(data, Split) else (None, data)
    given = [second] if isinstance(second, Run) else []
    assert (second is None) == (config.blend.model == "none")
    pretraining.check(starts, given, config, log, split)
    open_folder(hooks, config)

    # Train the second model first, because its scores help to choose the epochs of the main model.
    if isinstance(second, Config):
        blend.check_begun(hooks, second.name)
        inner = hooks.of_blend(second.name)
        waiting = blend.waiting(second, data, inner)
        second = waiting or blend.keep(fit(second, data, hooks=inner, device=device), inner)

    others = [*starts, second] if second else starts
    found = Found(config, log, hooks, split.hash if split else "", pretraining.digests(others))
    found.resume()
    for stage in stages_of(config, data):
        if stage.held is not None and found.epochs > 0:
            continue  # resumed in the refit: validation has already chosen the epochs
        validate = None
        if stage.held is not None:
            scores = blend.validation_scores(second, stage.rows) if second else None
            validate = Validation(config, stage.held, stage.rows, scores, found.weights)
        model = fresh_model(config, log, starts, refitted=stage.name != "validation")
        if base.non_iterative(config.name):
            found.lines.append(solved(model, stage, validate))
            found.epochs = 1
            continue
        model = model.to(device)
        histories = input_histories(stage.rows, model.histories) if validate else None
        epochs = stage.epochs or found.epochs
        if validate is None:
            found.epochs = epochs
        trainer = Trainer(
            model, batches_of(stage.rows, config, model), config.train,
            seed=config.seed, device=device, horizon=max(config.train.epochs, epochs),
            validate=partial(validate, model, histories) if validate else None,
        )  # fmt: skip
        trainer.report = partial(found.note, stage.name, trainer)
        found.restore(stage.name, trainer)
        try:
            state = trainer.run(epochs)
        except TrainingInterrupted:
            found.save(stage.name, trainer)
            raise
        if validate is not None:
            found.epochs = state.best_epoch
            found.selected = frozen(model) if config.train.refit else {}
    return finished(found, model, data, starts, second, given=bool(given))


def fresh_model(config: Config, log: Interactions, starts: Sequence[Run], *, refitted: bool) -> Any:
    """Model with initial parameters, drawn from the seed or taken from pre-trained models."""
    seed = torch_seed(config.seed, "parameters")
    model = base.build(config.name, config.model, log.n_users, log.n_items, seed)
    if starts:
        pretraining.initialise(model, starts, refitted=refitted)
    return model


def solved(model: Any, stage: Stage, validate: Validation | None) -> dict[str, Any]:
    """Fit a non-iterative model and return its line of the training log."""
    began = time.perf_counter()
    model.fit(stage.rows)
    seconds = time.perf_counter() - began
    figures = None if validate is None else validate(model)
    progress = Progress(1, 1, 1, 1, 0.0, len(stage.rows), seconds, figures, finished_epoch=True)
    return log_line(stage.name, progress) | {"loss": None}


def finished(
    found: Found, model: Any, data: Split | Interactions, starts: Sequence[Run],
    second: Run | None, *, given: bool,
) -> Run:  # fmt: skip
    """Run of a trained model; its vectors use the histories with the validation rows."""
    rows = data.known if isinstance(data, Split) else data
    users: Any = None
    items: Any = None
    part = None
    if base.two_tower(found.config.name):
        users, items = vectors(model, rows)
    if second is not None:
        # A refit keeps the weight of the epoch that validation chose.
        weight = found.weights[found.epochs - 1] if found.weights else found.config.blend.weight
        weight = float(np.float32(weight))
        epochs = 0 if given else second.epochs
        part = SecondModel(second.state, weight, epochs, second.selected)
        users, items = blended(users, items, second.user_vectors, second.item_vectors, weight)
    if any(v is not None and not bool(torch.isfinite(v).all()) for v in (users, items)):
        raise NonFiniteError("the trained vectors are not finite; lower train.learning_rate")
    lines = found.lines
    if second is not None and not given:
        lines = [{**x, "stage": f"{second.config.name} {x['stage']}"} for x in second.log] + lines
    return Run(
        config=found.config,
        epochs=found.epochs,
        state=frozen(model),
        selected=found.selected or None,
        started_from=pretraining.names([*starts, second] if second and given else starts),
        blend=part,
        interactions=found.log,
        split=data if isinstance(data, Split) else None,
        user_vectors=users,
        item_vectors=items,
        log=lines,
    )


def batches_of(rows: Interactions, config: Config, model: Any) -> Batches:
    """Batches of training rows, with the settings of a config and of a model.

    Raises
    ------
    ConfigError
        When the model does not support the loss.
    """
    base.check(config)
    train = config.train
    return Batches(
        rows,
        batch_size=train.batch_size,
        negatives=train.negatives,
        histories=model.histories,
        seed=config.seed,
        positives_per_user=train.positives_per_user,
        negative_pool=train.negative_pool,
        sampling=train.sampling,
        popularity_power=train.popularity_power,
        softmax_items=train.softmax_items if train.loss == "softmax" else None,
        mask_known_positives=train.mask_known_positives,
    )

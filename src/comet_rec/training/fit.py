"""The steps from a config and a log to a trained model: choose the epochs, refit, finish."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from comet_rec import processes
from comet_rec.artefact.run import Run, SecondModel
from comet_rec.config import Config
from comet_rec.data.batches import Batches
from comet_rec.data.histories import input_histories
from comet_rec.data.interactions import Interactions
from comet_rec.data.sequences import SequenceBatches
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import CometWarning, ConfigError, NonFiniteError, TrainingInterrupted
from comet_rec.evaluation.ranking import Ranks, drawn_users, weighed_full_ranks, weighed_ranks
from comet_rec.evaluation.scoring import (
    PairScores,
    blended,
    full_users,
    held_scores,
    vectors,
    with_new_users,
)
from comet_rec.models import base
from comet_rec.models.interfaces import Scorer
from comet_rec.random import torch_seed
from comet_rec.training import blend, kept, pretraining
from comet_rec.training.checkpoints import (
    Found,
    Hooks,
    digests,
    log_line,
    open_folder,
    started_from,
)
from comet_rec.training.trainer import Progress, Trainer, frozen

CPU = torch.device("cpu")
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Weights of a blend's second model that validation tries."""
FULL_SCORES = 500_000_000
"""Largest number of scores in the full ranking after an epoch. If all users would need more, only a
sample of the users is ranked."""
LEAST_USERS = 2_000
"""Smallest size of that sample of users. With fewer users, noise would hide the change between
epochs."""
PAIR_SCORES = 20_000_000
"""Largest number of scores in the full ranking of a `PairScorer`. Such a model is about a thousand
times as slow, so the limit holds even if fewer than `LEAST_USERS` users remain."""


TRIAL_SECONDS = 1.0
"""Seconds of trial steps after which the time of a step is known well enough."""


class Stage(NamedTuple):
    """One run of the training loop, from initial parameters to the last epoch.

    Parameters
    ----------
    name : str
        "validation", "refit" or "all".
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
    """Stages of a training on `data`.

    A split has a stage with validation and, if `train.refit` is set, a refit. A log without
    held-out rows has one stage on all rows.
    """
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
        The validation items of a split choose the number of epochs. All rows of a log are used for
        training.
    second : Config, Run or None
        Second model of a blend: its complete config, or a run that was trained on the same data.
    starts : sequence of Run
        Pre-trained models for the initial parameters.
    hooks : Hooks, optional
        Progress reports, a stop signal, and checkpoints.
    device : torch.device
        Device to train on.

    Raises
    ------
    ConfigError, NonFiniteError, TrainingInterrupted
    """
    hooks = hooks or Hooks()
    split, log = (data, data.interactions) if isinstance(data, Split) else (None, data)
    given = [second] if isinstance(second, Run) else []
    assert (second is None) == (config.blend.model == "none")
    if starts or given:
        pretraining.check(starts, given, config, log, split)
    check_equal(config, log, split)
    open_folder(hooks, config)

    # Train the second model first, because its scores help to choose the epochs of the main model.
    share = time_share(config, second, data, starts, hooks, device)
    if isinstance(second, Config):
        blend.check_begun(hooks, second.name)
        inner = hooks.of_blend(second.name, share)
        place = inner.checkpoints and inner.checkpoints / blend.RUN
        trained = kept.waiting(place, second, data) if place else None
        if trained is None:
            trained = fit(second, data, hooks=inner, device=device)
            if place and processes.rank() == 0:
                kept.keep(trained, place)
            processes.wait()
        second = trained

    others = [*starts, second] if second else starts
    found = Found(config, log, hooks, split.hash if split else "", digests(others))
    found.resume()
    for stage in stages_of(config, data):
        if stage.held is not None and found.epochs > 0:
            continue  # resumed in the refit: validation has already chosen the epochs
        validate = None
        if stage.held is not None:
            scores = blend.validation_scores(second, stage.rows, stage.held) if second else None
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
        reserved = second_final_seconds(second) if hooks.final and not given else 0.0
        trainer = Trainer(
            model, batches_of(stage.rows, config, model), config.train,
            seed=config.seed, device=device, horizon=max(config.train.epochs, epochs),
            validate=partial(validate, model, histories) if validate else None,
            deadline=None if stage.name == "refit" else hooks.deadline(reserved),
            repeats=config.train.refit + hooks.final if validate else 0,
        )  # fmt: skip
        trainer.report = partial(found.note, stage.name, trainer)
        found.restore(stage.name, trainer)
        try:
            state = trainer.run(epochs)
        except TrainingInterrupted:
            found.save(stage.name, trainer)
            raise
        if trainer.late:
            found.epochs = state.epoch
            warnings.warn(
                f"time limit: {config.name} was trained for {state.epoch} of {epochs} epochs",
                CometWarning,
                stacklevel=2,
            )
        if validate is not None:
            found.epochs = state.best_epoch
            found.selected = frozen(model) if config.train.refit else {}
    return finished(found, model, data, starts, second, given=bool(given))


def check_equal(config: Config, log: Interactions, split: Split | None) -> None:
    """Check that all processes train the same model on the same data.

    Raises
    ------
    ConfigError
        When they do not, e.g. because a file changed while they read it.
    """
    if processes.size() > 1:
        mine = (config.to_toml(), log.fingerprint, split.hash if split else "")
        if processes.any_of(processes.from_first(mine) != mine)[0]:
            raise ConfigError(
                "the processes have read different logs or settings; start them again when the log "
                "is complete"
            )


def time_share(
    config: Config, second: Config | Run | None, data: Split | Interactions, starts: Sequence[Run],
    hooks: Hooks, device: torch.device,
) -> float:  # fmt: skip
    """Share of a blend's second model in the estimated time of the training; 0 without one.

    Report the estimate to ``hooks.estimate``. A few trial steps are made only if that is set, or if
    a time limit must be shared. With several processes there is no estimate, and the second model
    may take half of the time.
    """
    trains_second = isinstance(second, Config)
    if hooks.estimate is None and (hooks.time_limit is None or not trains_second):
        return 0.0
    if processes.size() > 1:  # trial steps end by the clock, which differs between processes
        return 0.5 if trains_second else 0.0
    first = 0.0
    if isinstance(second, Config):
        first = estimated_seconds(second, data, [], hooks, device)
    total = first + estimated_seconds(config, data, starts, hooks, device)
    if hooks.estimate is not None and total > 0:
        hooks.estimate(total)
    return first / total if total > 0 else 0.0


def estimated_seconds(
    config: Config, data: Split | Interactions, starts: Sequence[Run], hooks: Hooks,
    device: torch.device,
) -> float:  # fmt: skip
    """Estimated seconds of all stages of a training, from trial steps on a model of its own.

    The trial changes no number of the training, because all draws are functions of the seed.
    """
    if base.non_iterative(config.name):
        return 0.0
    stage, *refits = stages_of(config, data)
    model = fresh_model(config, stage.rows, starts, refitted=False).to(device)
    batches = batches_of(stage.rows, config, model)
    trainer = Trainer(model, batches, config.train, seed=config.seed, device=device)
    training = trainer.step_seconds(TRIAL_SECONDS) * len(batches)
    validating = 0.0
    if stage.held is not None:
        began = time.perf_counter()
        scores = held_scores(model, stage.rows, stage.held)
        # A blend ranks the scores of two models: here the model stands in for the second one, too.
        second = None if config.blend.model == "none" else scores
        Validation(config, stage.held, stage.rows, second)(model)
        validating = time.perf_counter() - began
    repeats = len(refits) + hooks.final
    return stage.epochs * (training * (1 + repeats) + validating)


def second_final_seconds(second: Run | None) -> float:
    """Estimated seconds of the final training of a blend's second model, from its log."""
    if second is None or not second.log:
        return 0.0
    epochs = [line["train_seconds"] for line in second.log]
    return float(second.epochs * sum(epochs) / len(epochs))


def fresh_model(config: Config, log: Interactions, starts: Sequence[Run], *, refitted: bool) -> Any:
    """New model with initial parameters, random or from the pre-trained models `starts`.

    `refitted` chooses the parameters of the pre-trained models after their refit.
    """
    seed = torch_seed(config.seed, "parameters")
    model = base.build(config.name, config.model, log.n_users, log.n_items, seed)
    if starts:
        pretraining.initialise(model, starts, refitted=refitted)
    return model


def solved(model: Any, stage: Stage, validate: Validation | None) -> dict[str, Any]:
    """Fit a non-iterative model on the rows of `stage`, and return its line of the training log."""
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
    """Build the `Run` of a trained model; it includes user and item vectors if the model has them.

    The vectors are computed from histories with the validation rows. `second` is the model that is
    blended in, and `given` is true if the caller passed it already trained.
    """
    rows = data.known if isinstance(data, Split) else data
    users: Any = None
    items: Any = None
    part = None
    if base.two_tower(found.config.name):
        users, items = vectors(model, rows)
        users = with_new_users(model, users, rows)
    if second is not None:
        # A refit keeps the weight of the epoch that validation chose.
        weight = found.weights[found.epochs - 1] if found.weights else found.config.blend.weight
        weight = float(np.float32(weight))
        epochs = 0 if given else second.epochs
        part = SecondModel(second.state, weight, epochs, second.selected)
        users, items = blended(users, items, second.user_vectors, second.item_vectors, weight)
    check_vectors(users, items)
    before = [*starts, second] if second and given else starts
    lines = found.lines
    if second is not None and not given:
        lines = [{**x, "stage": f"{second.config.name} {x['stage']}"} for x in second.log] + lines
    return Run(
        config=found.config,
        epochs=found.epochs,
        state=frozen(model),
        selected=found.selected or None,
        started_from=started_from(before),
        blend=part,
        interactions=found.log,
        reading=dict(found.log.reading),
        split=data if isinstance(data, Split) else None,
        user_vectors=users,
        item_vectors=items,
        log=lines,
    )


def check_vectors(*vectors: Tensor | None) -> None:
    """Refuse trained vectors that are not finite; None stands for a model without vectors.

    Raises
    ------
    NonFiniteError
    """
    if any(v is not None and not bool(torch.isfinite(v).all()) for v in vectors):
        raise NonFiniteError("the trained vectors are not finite; lower train.learning_rate")


def batches_of(rows: Interactions, config: Config, model: Any, positives: Any = None) -> Batches:
    """Batches of the training rows, as the config demands and with the histories of the model.

    `positives` limits the positives to some of the rows, bool [R].

    Raises
    ------
    ConfigError
        When the model does not support the loss.
    """
    base.check(config)
    train = config.train
    histories = model.histories
    kind = Batches
    if histories is not None and histories.steps > 0:
        kind = SequenceBatches
        if train.positives_per_user > 1:
            raise ConfigError(
                f"train.positives_per_user = {train.positives_per_user}: {config.name} trains on "
                "all rows of a sequence together; leave the setting out"
            )
    return kind(
        rows,
        batch_size=train.batch_size,
        negatives=train.negatives,
        histories=histories,
        seed=config.seed,
        positives_per_user=train.positives_per_user,
        negative_pool=train.negative_pool,
        sampling=train.sampling,
        popularity_power=train.popularity_power,
        softmax_items=train.softmax_items if train.loss == "softmax" else None,
        mask_known_positives=train.mask_known_positives,
        positives=positives,
    )


def validated_users(model: str, scores: Scorer) -> int:
    """Largest number of users to rank in full after an epoch, for the model named `model`."""
    if not isinstance(scores, PairScores):
        return max(LEAST_USERS, FULL_SCORES // max(scores.n_items, 1))
    return min(full_users(model) or PAIR_SCORES, max(1, PAIR_SCORES // max(scores.n_items, 1)))


@dataclass(frozen=True)
class Validation:
    """Ranks the validation items after each epoch; an object is called with the model.

    Parameters
    ----------
    config : Config
        If ``train.selection_metric`` is "full", there is a full ranking too.
    held : HeldOut
    rows : Interactions
        The training rows. A full ranking leaves out the items that a user has in these rows. It
        does not leave out test items.
    second : Scorer or None
        Scores of a blend's second model, trained on the same rows; None without a blend.
    weights : list of float
        List to which each validation appends the best weight of the second model.
    """

    config: Config
    held: HeldOut
    rows: Interactions
    second: Scorer | None = None
    weights: list[float] = field(default_factory=list)

    def __call__(self, model: Any, histories: Any = None) -> dict[str, float]:
        """Validation metrics of the model; for a blend, with the best weight of the second model.

        `histories` are the model's input histories, for models that read them.
        """
        scores = held_scores(model, self.rows, self.held, histories)
        return self.figures(scores) if self.second is None else self.blended(scores)

    def figures(self, scores: Scorer) -> dict[str, float]:
        """HR@k and NDCG@k over sampled candidates.

        If ``train.selection_metric`` is "full", metrics of the full ranking are added ("full
        HR@10").
        """
        return self._of_weights(scores, None, (0.0,))[0.0]

    def blended(self, scores: Scorer) -> dict[str, float]:
        """Metrics of the blended scores with the best weight, which is appended to `weights`.

        The blended score is the score in `scores` plus weight times the second model's score.
        """
        by_weight = self._of_weights(scores, self.second, WEIGHTS)
        best = max(by_weight, key=lambda weight: self.config.train.merit(by_weight[weight]))
        self.weights.append(float(np.float32(best)))
        return by_weight[best]

    def _of_weights(
        self, scores: Scorer, second: Scorer | None, weights: tuple[float, ...]
    ) -> dict[float, dict[str, float]]:
        ranks = weighed_ranks(scores, second, weights, self.held)
        by_weight = {w: self._means(part) for w, part in zip(weights, ranks, strict=True)}
        if self.config.train.selection_metric == "full":
            held = drawn_users(self.held, validated_users(self.config.name, scores))
            full_ranks = weighed_full_ranks(scores, second, weights, held, self.rows)
            for weight, ranks_of_weight in zip(weights, full_ranks, strict=True):
                full = self._means(ranks_of_weight)
                by_weight[weight] |= {f"full {name}": value for name, value in full.items()}
        return by_weight

    def _means(self, ranks: Ranks) -> dict[str, float]:
        return ranks.means(self.config.protocol.ties)[0]


VALIDATION_METRICS = ("HR@10", "NDCG@10", "full NDCG@10")
"""The main validation metrics, in the order in which texts and tables show them."""


def validation_text(figures: Mapping[str, float]) -> str:
    """Short text of the main validation metrics, for a line of progress."""
    shown = [name for name in VALIDATION_METRICS if name in figures]
    return " ".join(f"{name} {figures[name]:.4f}" for name in shown)

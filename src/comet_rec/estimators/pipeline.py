"""From a config and a log to a finished run: training, evaluation and artefact composed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from comet_rec.artefact.checkpoint import load_checkpoint, save_checkpoint
from comet_rec.artefact.run import Run, protocol_entry
from comet_rec.config import Config
from comet_rec.data.batches import Batches
from comet_rec.data.histories import shown
from comet_rec.data.interactions import Interactions
from comet_rec.data.randomness import generator, torch_seed
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import ConfigError, NonFiniteError, TrainingInterrupted
from comet_rec.estimators.scoring import model_scores, run_scores, vectors
from comet_rec.estimators.start import Start
from comet_rec.evaluation.ranking import Report, Scores, full_ranks, sampled_ranks
from comet_rec.models import base
from comet_rec.training.trainer import Progress, Trainer, TrainState, frozen

CHECKPOINT_SECONDS = 120.0


@dataclass
class Hooks:
    """What the caller wants to hear and decide while a model is trained.

    Parameters
    ----------
    report : callable
        Called with the stage ("validation", "refit", "all") and the progress.
    stop : callable
        True asks for a stop after the present step.
    checkpoints : Path or None
        Folder for the state of an unfinished training.
    resume : bool
        Go on from the checkpoint there.
    """

    report: Callable[[str, Progress], None] = lambda stage, progress: None
    stop: Callable[[], bool] = lambda: False
    checkpoints: Path | None = None
    resume: bool = False


@dataclass
class _Session:
    """One fit: the stages that it goes through share the config, the log and the hooks."""

    config: Config
    interactions: Interactions
    device: torch.device
    hooks: Hooks
    held: str  # what is held out: the protocol's hash, or nothing
    start: Start
    lines: list[dict[str, Any]] = field(default_factory=list)
    chosen_epochs: int = 0
    selected: dict[str, Tensor] = field(default_factory=dict)  # before a refit
    resumed: tuple[dict[str, Tensor], dict[str, Any]] | None = None

    def fresh_model(self, stage: str) -> Any:
        """Model with the parameters that the seed draws, or that trained models start it with."""
        log, config = self.interactions, self.config
        seed = torch_seed(config.seed, "parameters")
        model = base.build(config.name, config.model, log.n_users, log.n_items, seed)
        self.start.apply(model, refitted=stage != "validation")
        return model if isinstance(model, base.ClosedForm) else model.to(self.device)

    def train(
        self, stage: str, rows: Interactions, epochs: int, validation: HeldOut | None = None
    ) -> tuple[Any, TrainState]:
        """Train a fresh model on these rows; with `validation`, stop and choose by it."""
        model, config = self.fresh_model(stage), self.config
        batches = batches_of(rows, config, model)
        validate = None
        if validation is not None:
            histories = shown(rows, model.histories)

            def validate() -> dict[str, float]:
                return _validated(model_scores(model, rows, histories), validation)

        trainer = Trainer(
            model, batches, config.train, seed=config.seed, device=self.device,
            validate=validate, stop=self.hooks.stop,
            horizon=config.train.full_epochs if stage == "all" else config.train.epochs,
        )  # fmt: skip
        trainer.report = self._reporter(stage, trainer)
        if self.resumed is not None and self.resumed[1]["stage"] == stage:
            restore(trainer, *self.resumed)
            self.resumed = None
        try:
            return model, trainer.run(epochs)
        except TrainingInterrupted:
            self._checkpoint(stage, trainer)
            raise

    def _reporter(self, stage: str, trainer: Trainer) -> Callable[[Progress], None]:
        saved = time.monotonic()

        def report(progress: Progress) -> None:
            nonlocal saved
            if progress.finished_epoch:
                self.lines.append(_line(stage, progress))
            self.hooks.report(stage, progress)
            # Not at an epoch's end: the trainer has not turned the page yet.
            if not progress.finished_epoch and time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._checkpoint(stage, trainer)
                saved = time.monotonic()

        return report

    def _checkpoint(self, stage: str, trainer: Trainer) -> None:
        if self.hooks.checkpoints is None:
            return
        state = trainer.state
        tensors = {f"model.{k}": v for k, v in frozen(trainer.model).items()}
        tensors |= {f"best.{k}": v for k, v in (state.best or {}).items()}
        tensors |= {f"selected.{k}": v for k, v in self.selected.items()}
        if trainer.averaged is not None:
            tensors |= {f"average.{k}": v for k, v in trainer.averaged.values.items()}
        for index, values in trainer.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        about = {k: v for k, v in vars(state).items() if k != "best"}
        save_checkpoint(
            self.hooks.checkpoints,
            tensors,
            {
                "stage": stage,
                "step": state.epoch * len(trainer.batches) + state.batch,
                "state": about,
                "lines": self.lines,
                "chosen_epochs": self.chosen_epochs,
                "identity": self.identity(),
            },
        )

    def resume(self) -> None:
        """Load the checkpoint that `hooks` asks to go on from.

        Raises
        ------
        ConfigError
            When there is none, or it belongs to another config or log.
        """
        if not self.hooks.resume or self.hooks.checkpoints is None:
            return
        self.resumed = load_checkpoint(self.hooks.checkpoints)
        if self.resumed is None:
            raise ConfigError(
                f"{self.hooks.checkpoints}: nothing to resume; leave --resume out to start anew"
            )
        about = self.resumed[1]
        if about["identity"] != self.identity():
            raise ConfigError(
                f"{self.hooks.checkpoints}: begun with other settings or other data; "
                "give the same command, or remove the folder to start anew"
            )
        self.lines = about["lines"]
        self.chosen_epochs = about["chosen_epochs"]
        selected = self.resumed[0]
        self.selected = {
            k.removeprefix("selected."): v for k, v in selected.items() if k.startswith("selected.")
        }

    def identity(self) -> str:
        """What must be equal for a checkpoint to be gone on from."""
        parts = self.config.to_toml(), self.interactions.fingerprint, self.held, self.start.digest
        return "\n".join(parts)


def fit_split(
    config: Config, split: Split, device: torch.device, hooks: Hooks, start: Start
) -> Run:
    """Train on the training rows, choose the epoch on the validation items, measure on the test.

    Raises
    ------
    ConfigError, NonFiniteError, TrainingInterrupted
    """
    session = _Session(config, split.interactions, device, hooks, split.hash, start)
    start.check(base.model_class(config.name), config, split.interactions, split)
    if base.closed_form(config.name):
        model = _closed_form(session, split.train, split.known, split.validation)
    else:
        session.resume()
        if session.chosen_epochs == 0:
            model, state = session.train(
                "validation", split.train, config.train.epochs, split.validation
            )
            session.chosen_epochs = state.best_epoch
            session.selected = frozen(model) if config.train.refit else {}
        if config.train.refit:
            model, _ = session.train("refit", split.known, session.chosen_epochs)
    run = _finished(session, model, split.known, split)
    report = measure(run, split)
    return replace(run, metrics=report.to_dict())


def validate(
    config: Config, split: Split, device: torch.device, hooks: Hooks
) -> tuple[dict[str, float], int]:
    """Train on the training rows alone: figures of the validation items, and the best epoch.

    Nothing of the test items is read; searches are made of this.

    Raises
    ------
    ConfigError, NonFiniteError, TrainingInterrupted
    """
    session = _Session(config, split.interactions, device, hooks, split.hash, Start())
    if base.closed_form(config.name):
        alone = replace(session, config=replace(config, train=replace(config.train, refit=False)))
        _closed_form(alone, split.train, split.known, split.validation)
        return dict(alone.lines[0]["validation"]), 1
    _, state = session.train("validation", split.train, config.train.epochs, split.validation)
    return state.best_validation, state.best_epoch


def fit_all(
    config: Config, log: Interactions, device: torch.device, hooks: Hooks, start: Start
) -> Run:
    """Train on the whole log for the preset's number of epochs; nothing is measured."""
    session = _Session(config, log, device, hooks, "", start)
    start.check(base.model_class(config.name), config, log, None)
    if base.closed_form(config.name):
        return _finished(session, _closed_form(session, log, log, None), log, None)
    session.resume()
    session.chosen_epochs = config.train.full_epochs
    model, _ = session.train("all", log, config.train.full_epochs)
    return _finished(session, model, log, None)


def _closed_form(
    session: _Session, rows: Interactions, known: Interactions, validation: HeldOut | None
) -> Any:
    """Solve on the training rows, measure on the validation items, solve again under a refit."""
    model = session.fresh_model("validation")
    stages = [("validation", rows)]
    if session.config.train.refit and validation is not None:
        stages.append(("refit", known))
    for stage, given in stages:
        began = time.perf_counter()
        model.fit(given)
        seconds = time.perf_counter() - began
        figures = None
        if stage == "validation" and validation is not None:
            figures = _validated(model_scores(model, rows), validation)
        progress = Progress(1, 1, 1, 1, 0.0, len(given), seconds, figures, finished_epoch=True)
        session.lines.append(_line(stage, progress) | {"loss": None})
    session.chosen_epochs = 1
    return model


def _validated(scores: Scores, held: HeldOut) -> dict[str, float]:
    return Report("", {}, held.users, sampled_ranks(scores, held), None).sampled


def measure(run: Run, split: Split, *, full: bool = True) -> Report:
    """Figures of the test items.

    Parameters
    ----------
    run : Run
    split : Split
        Of the log that the run was trained on.
    full : bool
        Also rank the whole catalogue, seen items left out; for models whose pairs are dear, for
        a sample of the test users.
    """
    scores = run_scores(run)
    entry = protocol_entry(split)
    return Report(
        run.config.name,
        {"hash": entry["hash"], **entry["settings"]},
        split.test.users,
        sampled_ranks(scores, split.test),
        full_ranks(scores, _full_sample(run, split.test), split.known) if full else None,
        split.protocol.ties,
    )


def _full_sample(run: Run, held: HeldOut) -> HeldOut:
    """Test users whose full ranking is made: all, or the model's number of them, one draw."""
    most = getattr(base.model_class(run.config.name), "full_users", None)
    if most is None or most >= len(held):
        return held
    rows = np.sort(generator(0, "full.users").permutation(len(held))[:most])
    return HeldOut(held.users[rows], held.positives[rows], held.candidates[rows])


def batches_of(rows: Interactions, config: Config, model: Any) -> Batches:
    """Batches of these training rows under a config, for a model.

    Raises
    ------
    ConfigError
        When the loss does not suit the model.
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
        mask_touched=train.mask_touched,
    )


def restore(trainer: Trainer, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Put a trainer where the checkpoint stood."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    trainer.model.load_state_dict(under("model."))
    saved: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimizer.").items():
        index, key = name.split(".", 1)
        saved.setdefault(int(index), {})[key] = value
    whole = trainer.optimizer.state_dict()
    trainer.optimizer.load_state_dict({**whole, "state": saved})
    if trainer.averaged is not None:
        for name, value in under("average.").items():
            trainer.averaged.values[name].copy_(value)
    best = under("best.")
    trainer.state = TrainState(**about["state"], best=best or None)


def _finished(session: _Session, model: Any, rows: Interactions, split: Split | None) -> Run:
    users, items = vectors(model, rows) if isinstance(model, base.TwoTower) else (None, None)
    if any(v is not None and not bool(torch.isfinite(v).all()) for v in (users, items)):
        raise NonFiniteError("the trained vectors are not finite; lower train.learning_rate")
    return Run(
        config=session.config,
        epochs=session.chosen_epochs,
        state=frozen(model),
        selected=session.selected or None,
        started_from=session.start.names,
        interactions=session.interactions,
        split=split,
        user_vectors=users,
        item_vectors=items,
        log=session.lines,
    )


def _line(stage: str, progress: Progress) -> dict[str, Any]:
    return {
        "stage": stage,
        "epoch": progress.epoch,
        "positives": progress.positives,
        "train_seconds": round(progress.train_seconds, 3),
        "loss": progress.loss,
        "validation": progress.validation,
    }

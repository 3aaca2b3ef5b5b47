"""One fit: its stages share the config, the log, the hooks and the checkpoints."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from comet_rec.artefact.checkpoint import (
    REMEDY,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from comet_rec.artefact.plain import one_line
from comet_rec.config import Config
from comet_rec.data import arrays
from comet_rec.data.arrays import Array
from comet_rec.data.batches import Batches
from comet_rec.data.histories import shown
from comet_rec.data.interactions import Interactions
from comet_rec.data.randomness import torch_seed
from comet_rec.data.split import HeldOut
from comet_rec.errors import ArtefactError, ConfigError, TrainingInterrupted
from comet_rec.estimators.scoring import model_scores
from comet_rec.estimators.start import Start
from comet_rec.estimators.validation import Validation, validation_text
from comet_rec.models import base
from comet_rec.training.trainer import Progress, Trainer, TrainState, frozen, parameter_groups

CHECKPOINT_SECONDS = 120.0
TASTE_WEIGHT = "taste_weight"


@dataclass
class Hooks:
    """What the caller wants to hear and decide while a model is trained.

    Parameters
    ----------
    report : callable
        Called with the stage ("validation", "refit", "all"; a companion's has its name in front)
        and the progress.
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

    def check(self) -> None:
        """Refuse to go on from nothing.

        Raises
        ------
        ConfigError
        """
        if self.resume and self.checkpoints is not None and not has_checkpoint(self.checkpoints):
            raise ConfigError(
                f"{self.checkpoints}: nothing to resume; leave --resume out to start anew"
            )


@dataclass
class Session:
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
        if stage == "refit" and TASTE_WEIGHT in self.selected:
            model.taste_weight.copy_(self.selected[TASTE_WEIGHT])
        return model if base.non_iterative(config.name) else model.to(self.device)

    def train(
        self, stage: str, rows: Interactions, epochs: int, validation: HeldOut | None = None
    ) -> tuple[Any, TrainState]:
        """Train a fresh model on these rows; with `validation`, stop and choose by it."""
        model, config = self.fresh_model(stage), self.config
        batches = batches_of(rows, config, model)
        validate = None
        if validation is not None:
            histories = shown(rows, model.histories)
            validating = Validation(config, validation, rows)

            def validate() -> dict[str, float]:
                if getattr(model, "taste", None) is not None:
                    return validating.weighed(model, histories)
                return validating.figures(model_scores(model, rows, histories))

        trainer = Trainer(
            model, batches, config.train, seed=config.seed, device=self.device,
            validate=validate, stop=self.hooks.stop,
            horizon=max(config.train.epochs, epochs),
        )  # fmt: skip
        trainer.report = self._reporter(stage, trainer)
        if self.resumed is not None and self.resumed[1]["stage"] == stage:
            self._restore(trainer, *self.resumed)
            self.resumed = None
        try:
            return model, trainer.run(epochs)
        except TrainingInterrupted:
            self._checkpoint(stage, trainer)
            raise

    def _restore(self, trainer: Trainer, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        try:
            restore(trainer, tensors, about)
        except (ValueError, KeyError) as error:
            raise ArtefactError(
                f"{self.hooks.checkpoints}: not of this training ({one_line(str(error))}); {REMEDY}"
            ) from None

    def _reporter(self, stage: str, trainer: Trainer) -> Callable[[Progress], None]:
        saved = time.monotonic()

        def report(progress: Progress) -> None:
            nonlocal saved
            if progress.finished_epoch:
                self.lines.append(log_line(stage, progress))
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
        if trainer.averaged is not None:
            tensors |= {f"average.{k}": v for k, v in trainer.averaged.values.items()}
        for index, values in trainer.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        about = {k: v for k, v in vars(state).items() if k != "best"}
        step = state.epoch * len(trainer.batches) + state.batch
        self._save(tensors, {"stage": stage, "step": step, "state": about})

    def _save(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        if self.hooks.checkpoints is None:
            return
        tensors |= {f"selected.{k}": v for k, v in self.selected.items()}
        about |= {
            "lines": self.lines, "chosen_epochs": self.chosen_epochs, "identity": self.identity()
        }  # fmt: skip
        save_checkpoint(self.hooks.checkpoints, tensors, about)

    def keep_choice(self) -> None:
        """Put what the validation items chose on disk: companions' refits come next."""
        self._save({}, {"stage": "chosen", "step": 0})

    def resume(self) -> None:
        """Load the checkpoint that `hooks` asks to go on from.

        Raises
        ------
        ConfigError
            When there is none, or it belongs to another model, config or log.
        """
        if not self.hooks.resume or self.hooks.checkpoints is None:
            return
        self.hooks.check()
        self.resumed = load_checkpoint(self.hooks.checkpoints, self._declared)
        if self.resumed is None:
            return  # stopped before this model's own training had begun
        tensors, about = self.resumed
        self.lines = about["lines"]
        self.chosen_epochs = about["chosen_epochs"]
        self.selected = under(tensors, "selected.")
        wanted = base.state_arrays(
            self.config, self.interactions.n_users, self.interactions.n_items
        )
        if about["stage"] in ("chosen", "refit") and self.selected.keys() != wanted.keys():
            raise ArtefactError(
                f"{self.hooks.checkpoints}: parameters that validation chose are missing; {REMEDY}"
            )

    def _declared(self, about: Mapping[str, Any]) -> dict[str, Array]:
        """What the tensors of a checkpoint of this training must be."""
        checkpoints, config, log = self.hooks.checkpoints, self.config, self.interactions
        assert checkpoints is not None
        if about.get("identity") != self.identity():
            raise begun_otherwise(checkpoints)
        stages = {"all"} if not self.held else {"validation"}
        if self.held and config.train.refit:
            stages |= {"chosen", "refit"}
        chosen, stage = about.get("chosen_epochs", 0), about["stage"]
        most = max(config.train.epochs, config.train.full_epochs)
        if stage not in stages or (chosen > 0) == (stage == "validation") or chosen > most:
            raise ValueError(f"{chosen} of {most} epochs chosen, stage {stage}")
        if not {"lines", "chosen_epochs"} <= about.keys():
            raise ValueError("it has no log, or no number of epochs")
        return checkpoint_arrays(config, log.n_users, log.n_items)

    def identity(self) -> str:
        """What must be equal for a checkpoint to be gone on from."""
        parts = self.config.to_toml(), self.interactions.fingerprint, self.held, self.start.digest
        return "\n".join(parts)


def begun_otherwise(checkpoints: Path) -> ConfigError:
    """What to say of an unfinished training that is not this one."""
    return ConfigError(
        f"{checkpoints}: begun with another model, other settings or other data; give the same "
        "command, or remove the folder to start anew"
    )


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


def checkpoint_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """What the tensors of an unfinished training's checkpoint must be; `restore` asks for all."""
    state = arrays.optional(base.state_arrays(config, n_users, n_items))
    found: dict[str, Array] = {}
    for room in ("model", "best", "average", "selected"):
        found |= arrays.under(room, state)
    if base.non_iterative(config.name):
        return found
    model = base.build(config.name, config.model, n_users, n_items, 0)
    parameters = itertools.chain(*parameter_groups(model))
    for index, parameter in enumerate(parameters):
        moment = Array(shape=tuple(parameter.shape), optional=True)
        adam = {"step": Array(shape=(), optional=True), "exp_avg": moment, "exp_avg_sq": moment}
        found |= arrays.under(f"optimizer.{index}", adam)
    return found


def restore(trainer: Trainer, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Put a trainer where the checkpoint stood; its tensors are as `checkpoint_arrays` declares.

    Raises
    ------
    ValueError
        When one is missing, or the plain data are not of this training.
    """
    state = {name: about["state"][name] for name in vars(TrainState()) if name != "best"}
    best = under(tensors, "best.")
    saved: dict[int, dict[str, Tensor]] = {}
    for name, value in under(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        saved.setdefault(int(index), {})[key] = value

    names = set(trainer.model.state_dict())
    averaged = {} if trainer.averaged is None else trainer.averaged.values
    complete = under(tensors, "model.").keys() == names
    complete &= under(tensors, "average.").keys() == averaged.keys()
    complete &= not best or best.keys() == names
    complete &= all(len(moments) == 3 for moments in saved.values())
    if not complete:
        raise ValueError("a tensor is missing")
    if bool(best) != bool(state["best_validation"]) or state["batch"] > len(trainer.batches):
        raise ValueError("its state is impossible")
    if best:
        trainer.config.merit(state["best_validation"])

    trainer.model.load_state_dict(under(tensors, "model."))
    whole = trainer.optimizer.state_dict()
    trainer.optimizer.load_state_dict({**whole, "state": saved})
    for name, value in under(tensors, "average.").items():
        averaged[name].copy_(value)
    trainer.state = TrainState(**state, best=best or None)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def log_line(stage: str, progress: Progress) -> dict[str, Any]:
    """What `log.jsonl` says of a finished epoch."""
    return {
        "stage": stage,
        "epoch": progress.epoch,
        "positives": progress.positives,
        "train_seconds": round(progress.train_seconds, 3),
        "loss": progress.loss,
        "validation": progress.validation,
    }


def tell_epochs(stage: str, progress: Progress) -> None:
    """A line on stderr at the end of each epoch."""
    if not progress.finished_epoch:
        return
    figures = f", {validation_text(progress.validation)}" if progress.validation else ""
    where = f"{stage} epoch {progress.epoch}/{progress.epochs}"
    sys.stderr.write(f"{where}: loss {progress.loss:.4f}{figures}\n")
    sys.stderr.flush()

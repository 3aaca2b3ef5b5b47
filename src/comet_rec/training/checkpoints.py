"""State of an unfinished training, in memory and as a checkpoint to resume from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from comet_rec.artefact.checkpoint import (
    BLEND,
    REMEDY,
    forget,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from comet_rec.artefact.untrusted import one_line
from comet_rec.config import Config
from comet_rec.data.arrays import Array, optional, under
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ArtefactError, ConfigError
from comet_rec.models import base
from comet_rec.training import trainer as training
from comet_rec.training.trainer import Progress, Trainer

CHECKPOINT_SECONDS = 120.0


@dataclass(frozen=True)
class Hooks:
    """Hooks of the caller into a training: report, stop, and checkpoints.

    Parameters
    ----------
    report : callable
        Called with the stage ("validation", "refit", "all"; with the name of a blend's second model
        in front) and the progress.
    stop : callable
        Returns true to stop after the current step.
    checkpoints : Path or None
        Folder for the state of an unfinished training.
    resume : bool
        Resume from the checkpoint in that folder.
    """

    report: Callable[[str, Progress], None] = lambda stage, progress: None
    stop: Callable[[], bool] = lambda: False
    checkpoints: Path | None = None
    resume: bool = False

    def of_blend(self, name: str) -> Hooks:
        """Hooks of the second model of a blend, which is trained first."""
        folder = None if self.checkpoints is None else self.checkpoints / BLEND

        def report(stage: str, progress: Progress) -> None:
            self.report(f"{name} {stage}", progress)

        resume = self.resume and folder is not None and has_checkpoint(folder)
        return Hooks(report, self.stop, folder, resume)


@dataclass
class Found:
    """State of one training; saved when it is stopped, and every two minutes.

    Parameters
    ----------
    config : Config
    log : Interactions
    hooks : Hooks
    held : str
        Hash of the protocol; empty where nothing is held out.
    starts : str
        Digests of the runs that the model starts from, and of a blend's second model.
    lines : list of dict
        Log, a line an epoch.
    weights : list of float
        Best weight of a blend after each epoch.
    epochs : int
        Epochs that validation chose; 0 before.
    selected : dict of Tensor
        Parameters that validation chose, where a refit follows.
    """

    config: Config
    log: Interactions
    hooks: Hooks
    held: str
    starts: str
    lines: list[dict[str, Any]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    epochs: int = 0
    selected: dict[str, Tensor] = field(default_factory=dict)
    _resumed: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    _saved: float = field(default_factory=time.monotonic)

    @property
    def identity(self) -> str:
        """Text that must be equal before a training resumes from a checkpoint."""
        return "\n".join([self.config.to_toml(), self.log.fingerprint, self.held, self.starts])

    def resume(self) -> None:
        """Load the checkpoint that the caller asks to resume from, or forget an earlier one.

        Raises
        ------
        ConfigError
            When the checkpoint belongs to another model, config or log.
        ArtefactError
            When it is damaged.
        """
        folder = self.hooks.checkpoints
        if folder is None or not self.hooks.resume:
            return
        self._resumed = load_checkpoint(folder, self._declared)
        if self._resumed is None:  # stopped while a blend's second model was trained
            return
        tensors, about = self._resumed
        self.lines = about["lines"]
        self.weights = [float(weight) for weight in about.get("weights", [])]
        self.epochs = about["chosen_epochs"]
        self.selected = training.under(tensors, "selected.")
        names = base.state_arrays(self.config, self.log.n_users, self.log.n_items).keys()
        if about["stage"] == "refit" and self.selected.keys() != names:
            raise ArtefactError(f"{folder}: parameters that validation chose are missing; {REMEDY}")

    def restore(self, stage: str, trainer: Trainer) -> None:
        """Restore a trainer from the checkpoint of this stage, if there is one."""
        if self._resumed is None or self._resumed[1]["stage"] != stage:
            return
        tensors, about = self._resumed
        self._resumed = None
        try:
            trainer.load_state_dict(tensors, about["state"])
        except (ValueError, KeyError) as error:
            raise ArtefactError(
                f"{self.hooks.checkpoints}: not of this training ({one_line(str(error))}); {REMEDY}"
            ) from None

    def note(self, stage: str, trainer: Trainer, progress: Progress) -> bool:
        """Log and report a step or an epoch; whether the caller asks for a stop."""
        if progress.finished_epoch:
            self.lines.append(log_line(stage, progress))
            self.hooks.report(stage, progress)
            # No checkpoint here: the trainer resets its counters only after this call.
            return False
        self.hooks.report(stage, progress)
        if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save(stage, trainer)
        return self.hooks.stop()

    def save(self, stage: str, trainer: Trainer) -> None:
        """Write a checkpoint, if there is a folder for it."""
        self._saved = time.monotonic()
        if self.hooks.checkpoints is None:
            return
        tensors, state = trainer.state_dict()
        tensors |= {f"selected.{name}": value for name, value in self.selected.items()}
        about = {
            "stage": stage,
            "step": trainer.state.epoch * len(trainer.batches) + trainer.state.batch,
            "state": state,
            "lines": self.lines,
            "weights": self.weights,
            "chosen_epochs": self.epochs,
            "identity": self.identity,
        }
        save_checkpoint(self.hooks.checkpoints, tensors, about)

    def _declared(self, about: Mapping[str, Any]) -> dict[str, Array]:
        """Declarations of the tensors in a checkpoint of this training."""
        config, log = self.config, self.log
        assert self.hooks.checkpoints is not None
        if about.get("identity") != self.identity:
            raise begun_otherwise(self.hooks.checkpoints)
        stages = {"all"} if not self.held else {"validation"}
        if self.held and config.train.refit:
            stages.add("refit")
        chosen, stage = about.get("chosen_epochs", 0), about["stage"]
        most = max(config.train.epochs, config.train.full_epochs)
        if stage not in stages or (chosen > 0) == (stage == "validation") or chosen > most:
            raise ValueError(f"{chosen} of {most} epochs chosen, stage {stage}")
        if not {"state", "lines", "chosen_epochs"} <= about.keys():
            raise ValueError("it has no state, no log, or no number of epochs")
        weights = len(about.get("weights", []))
        validated = chosen if stage == "refit" else about["state"]["epoch"]
        if config.blend.model != "none" and self.held and weights < validated:
            raise ValueError(f"{weights} weights of the blend after {validated} epochs")
        return checkpoint_arrays(config, log.n_users, log.n_items)


def open_folder(hooks: Hooks, config: Config) -> None:
    """Check that there is something to resume; otherwise remove an earlier checkpoint.

    Raises
    ------
    ConfigError
        When there is nothing to resume, or the training there had a blend and this one has none.
    """
    folder = hooks.checkpoints
    if folder is None:
        return
    if not hooks.resume:
        forget(folder)
    elif not has_checkpoint(folder):
        raise ConfigError(f"{folder}: nothing to resume; leave --resume out to start anew")
    elif config.blend.model == "none" and (folder / BLEND).is_dir():
        raise begun_otherwise(folder)


def begun_otherwise(checkpoints: Path) -> ConfigError:
    """Error for an unfinished training that is not this one."""
    return ConfigError(
        f"{checkpoints}: begun with another model, other settings or other data; give the same "
        "command, or remove the folder to start anew"
    )


def checkpoint_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Declarations of the tensors in the checkpoint of an unfinished training."""
    selected = under("selected", optional(base.state_arrays(config, n_users, n_items)))
    return training.state_arrays(config, n_users, n_items) | selected


def log_line(stage: str, progress: Progress) -> dict[str, Any]:
    """Line of `log.jsonl` for a finished epoch."""
    return {
        "stage": stage,
        "epoch": progress.epoch,
        "positives": progress.positives,
        "train_seconds": round(progress.train_seconds, 3),
        "loss": progress.loss,
        "validation": progress.validation,
    }

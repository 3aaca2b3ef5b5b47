"""State of an unfinished training, in memory and in a checkpoint on disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from comet_rec import processes
from comet_rec.artefact.checkpoint import (
    BLEND,
    FINAL,
    REMEDY,
    forget,
    has_checkpoint,
    load_checkpoint,
    new_parts_folder,
    parts_folder,
    save_checkpoint,
)
from comet_rec.artefact.parts import digests as digests_of_parts
from comet_rec.artefact.run import Run
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
    """How a caller follows and controls a training: progress reports, a stop signal, checkpoints.

    Parameters
    ----------
    report : callable
        Called with the name of the stage and the progress. The stage is "validation", "refit",
        "all", "final" or "update". For the second model of a blend, the model's name comes first,
        e.g. "fism refit".
    stop : callable
        Returns true to stop the training after the current step.
    checkpoints : Path or None
        Folder for the checkpoints of an unfinished training; None writes no checkpoints. With the
        hooks of `fit`, `final` keeps the measured run there until the final training is done.
    resume : bool
        Whether to resume from the checkpoint in the folder.
    time_limit : float or None
        Seconds after which training ends with the best epoch so far; None for no limit. Epochs with
        validation end so early that the estimated time of a refit and of a final training is left.
        At least one epoch is validated, and a refit and a final training are always complete. The
        time counts from when the hooks were made. Evaluation comes on top.
    final : bool
        Whether `final` follows, so that a limit leaves time for it.
    estimate : callable or None
        Called before training with the estimated seconds of all stages, from a few trial steps.
    began : float
        Start of the time limit, on the clock of `time.monotonic`.
    """

    report: Callable[[str, Progress], None] = lambda stage, progress: None
    stop: Callable[[], bool] = lambda: False
    checkpoints: Path | None = None
    resume: bool = False
    time_limit: float | None = None
    final: bool = False
    estimate: Callable[[float], None] | None = None
    began: float = field(default_factory=time.monotonic)

    def of_blend(self, name: str, share: float = 1.0) -> Hooks:
        """Hooks for the second model of a blend, whose checkpoints are in a folder of their own.

        `name` is the second model's name, which precedes the stage in reports. The second model may
        take the `share` of the time limit.
        """
        inner = self._inside(BLEND, lambda stage: f"{name} {stage}")
        limit = None if self.time_limit is None else self.time_limit * share
        return replace(inner, time_limit=limit, final=self.final, began=self.began)

    def of_final(self) -> Hooks:
        """Hooks for a final training on all rows; reports call its stage "final", not "all"."""
        return self._inside(FINAL, lambda stage: stage.replace("all", "final"))

    def deadline(self, reserved: float = 0.0) -> float | None:
        """Time at which the time limit ends, less `reserved` seconds; None without a limit."""
        return None if self.time_limit is None else self.began + self.time_limit - reserved

    def _inside(self, name: str, label: Callable[[str], str]) -> Hooks:
        """Hooks with checkpoints in the subfolder `name`, whose reports rename the stage."""
        folder = None if self.checkpoints is None else self.checkpoints / name

        def report(stage: str, progress: Progress) -> None:
            self.report(label(stage), progress)

        resume = self.resume and folder is not None and has_checkpoint(folder)
        return Hooks(report, self.stop, folder, resume)


@dataclass
class Found:
    """What an unfinished training has found so far, e.g. its log and the chosen number of epochs.

    It is saved as a checkpoint when the training is stopped, and every two minutes.

    Parameters
    ----------
    config : Config
    log : Interactions
    hooks : Hooks
    held : str
        Hash of the protocol; empty if no rows are held out.
    starts : str
        Digests of the pre-trained models and of a blend's second model.
    lines : list of dict
        Training log, one line for each epoch.
    weights : list of float
        Best weight of a blend's second model after each epoch.
    epochs : int
        Number of epochs that validation chose; 0 before the choice.
    selected : dict of Tensor
        Parameters that validation chose, kept only if a refit follows.
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
        """Text of the config and of the data's hashes.

        A training resumes only from a checkpoint with the same text.
        """
        return "\n".join([self.config.to_toml(), self.log.fingerprint, self.held, self.starts])

    def resume(self) -> None:
        """Load the checkpoint, if the caller asks to resume.

        Raises
        ------
        ConfigError
            When the checkpoint belongs to another model, config or log.
        ArtefactError
            When the checkpoint is damaged.
        """
        folder = self.hooks.checkpoints
        if folder is None or not self.hooks.resume:
            return
        self._resumed = load_checkpoint(folder, self._declared)
        if self._resumed is None:  # stopped while the second model of a blend was in training
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
        """Restore the trainer from the loaded checkpoint, if it was made in this stage."""
        if self._resumed is None or self._resumed[1]["stage"] != stage:
            return
        tensors, about = self._resumed
        self._resumed = None
        try:
            trainer.load_state_dict(tensors, about["state"])
            if trainer.tables is not None:
                self._restore_tables(trainer, about)
        except (ValueError, KeyError) as error:
            raise ArtefactError(
                f"{self.hooks.checkpoints}: does not fit this training ({one_line(str(error))}); "
                f"{REMEDY}"
            ) from None

    def _restore_tables(self, trainer: Trainer, about: Mapping[str, Any]) -> None:
        """Restore the tables, which several processes may have written."""
        assert self.hooks.checkpoints is not None
        assert trainer.tables is not None
        parts = about["tables"]
        folder = parts_folder(self.hooks.checkpoints, parts["folder"])
        is_best = bool(about["state"]["best_validation"])
        best = trainer.tables.load(folder, parts["files"], parts["steps"], best=is_best)
        if best is not None:
            trainer.state.best = (trainer.state.best or {}) | best

    def note(self, stage: str, trainer: Trainer, progress: Progress) -> bool:
        """Report progress after a step or an epoch, and save a checkpoint every two minutes.

        The result is whether the caller asks to stop.
        """
        if progress.finished_epoch:
            self.lines.append(log_line(stage, progress))
            self.hooks.report(stage, progress)
            # No checkpoint here, because the trainer resets its counters only after this call.
            return False
        self.hooks.report(stage, progress)
        due = time.monotonic() - self._saved > CHECKPOINT_SECONDS
        due, stop = processes.any_of(due, self.hooks.stop())
        if due:
            self.save(stage, trainer)
        return stop

    def save(self, stage: str, trainer: Trainer) -> None:
        """Write a checkpoint, if the caller gave a folder; all processes must call this."""
        self._saved = time.monotonic()
        folder = self.hooks.checkpoints
        if folder is None:
            return
        tensors, state = trainer.state_dict()
        tensors |= {f"selected.{name}": value for name, value in self.selected.items()}
        step = trainer.state.epoch * len(trainer.batches) + trainer.state.batch
        about: dict[str, Any] = {
            "stage": stage,
            "step": step,
            "state": state,
            "lines": self.lines,
            "weights": self.weights,
            "chosen_epochs": self.epochs,
            "identity": self.identity,
        }
        if trainer.tables is not None:
            first = processes.rank() == 0
            fresh = processes.from_first(new_parts_folder(folder, stage, step) if first else folder)
            trainer.tables.save(fresh, trainer.state.best)
            about["tables"] = {"folder": fresh.name, "steps": trainer.tables.steps}
        if processes.rank() == 0:
            if trainer.tables is not None:
                about["tables"]["files"] = digests_of_parts(fresh)
            save_checkpoint(folder, tensors, about)
        processes.wait()

    def _declared(self, about: Mapping[str, Any]) -> dict[str, Array]:
        """Expected tensors of a checkpoint; `about` is its other content, which is checked first.

        Raises
        ------
        ConfigError
            When the checkpoint belongs to another training.
        ValueError
            When the content is inconsistent.
        """
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
    """Prepare the folder for checkpoints.

    Check that there is a checkpoint to resume from, or remove the checkpoint of an earlier
    training.

    Raises
    ------
    ConfigError
        When there is no checkpoint to resume from, or when the checkpoint is of a training with a
        blend and this training has none.
    """
    folder = hooks.checkpoints
    if folder is None:
        return
    if not hooks.resume:
        if processes.rank() == 0:
            forget(folder)
        processes.wait()
    elif not has_checkpoint(folder):
        raise ConfigError(f"{folder}: nothing to resume; leave --resume out to start anew")
    elif config.blend.model == "none" and (folder / BLEND).is_dir():
        raise begun_otherwise(folder)


def begun_otherwise(checkpoints: Path) -> ConfigError:
    """Error to raise for a checkpoint that belongs to another training."""
    return ConfigError(
        f"{checkpoints}: this training began with another model, other settings or other data; "
        "give the same command, or remove the folder to start anew"
    )


def checkpoint_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Expected name, type and shape of each tensor in a checkpoint.

    The tensors are the trainer's state and the parameters that validation chose.
    """
    selected = under("selected", optional(base.state_arrays(config, n_users, n_items)))
    return training.state_arrays(config, n_users, n_items) | selected


def log_line(stage: str, progress: Progress) -> dict[str, Any]:
    """Line of `log.jsonl`, the training log, for a finished epoch."""
    return {
        "stage": stage,
        "epoch": progress.epoch,
        "positives": progress.positives,
        "train_seconds": round(progress.train_seconds, 3),
        "loss": progress.loss,
        "validation": progress.validation,
    }


def digests(runs: Iterable[Run]) -> str:
    """Digests of the runs' parameters from before their refit, joined into one text."""
    return " ".join(digest(run.selected or run.state) for run in runs)


def started_from(runs: Iterable[Run]) -> tuple[str, ...]:
    """Names and digests of pre-trained models, as the run that started from them stores them."""
    return tuple(f"{run.config.name} {digest(run.state)}" for run in runs)


def digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over the names and values of parameters."""
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(name.encode())
        sha.update(tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()

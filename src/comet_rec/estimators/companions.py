"""Models that another model holds a part of: trained first, by themselves (ADR 0029).

Each stage of the model has theirs before it: what validation items choose, then what a refit gives.
With a folder for checkpoints a finished companion waits there for the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from comet_rec.artefact.checkpoint import (
    COMPANIONS,
    forget,
    has_checkpoint,
    has_own_checkpoint,
)
from comet_rec.artefact.run import Run, load_run, save_run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.estimators.presets import preset
from comet_rec.estimators.session import Hooks, begun_otherwise
from comet_rec.estimators.start import Start

Fit = Callable[[Config, Hooks], Run]
Refit = Callable[[Run, Hooks], Run]
CHOSEN, REFITTED = "chosen", "refitted"
"""Folders of a companion's finished runs."""


def companion_configs(config: Config, log: Interactions) -> dict[str, Config]:
    """Config of each companion by its model: its preset with the sizes that are shared."""
    found = {}
    for name, (chosen, shared, epochs) in getattr(config.model, "companions", {}).items():
        own = preset(chosen, name, log).with_settings(shared)
        full_epochs = epochs or own.train.full_epochs
        train = replace(
            own.train, refit=config.train.refit, full_epochs=full_epochs,
            select_by=config.train.select_by,
        )  # fmt: skip
        found[name] = replace(own, seed=config.seed, train=train, protocol=config.protocol)
    return found


@dataclass
class Companions:
    """The companions of one training.

    Parameters
    ----------
    given : Start
        Runs that take their place; none to train them.
    configs : dict of Config
        Of those to be trained, by model.
    log : Interactions
    held : str
        What is held out: the split's hash, or nothing.
    hooks : Hooks
    """

    given: Start
    configs: dict[str, Config]
    log: Interactions
    held: str
    hooks: Hooks
    runs: dict[str, Run] = field(default_factory=dict)

    @staticmethod
    def of(config: Config, log: Interactions, held: str, hooks: Hooks, given: Start) -> Companions:
        """Those that a model with this config wants; what an earlier training left is forgotten.

        Raises
        ------
        ConfigError
            When there is nothing to resume, or what is there has other companions.
        """
        hooks.check()
        found = Companions(
            given, {} if given.runs else companion_configs(config, log), log, held, hooks
        )
        if hooks.checkpoints is None:
            return found
        if not hooks.resume:
            forget(hooks.checkpoints)
        begun = {path.parent.name for path in hooks.checkpoints.glob(f"{COMPANIONS}/*/*")}
        if begun - found.configs.keys():
            raise begun_otherwise(hooks.checkpoints)
        return found

    @property
    def start(self) -> Start:
        """What the model starts from."""
        return Start(list(self.runs.values())) if self.runs else self.given

    @property
    def epochs(self) -> dict[str, int]:
        """Passes that each was trained for."""
        return {name: run.epochs for name, run in self.runs.items()}

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Log of their trainings."""
        return [
            {**line, "stage": f"{name} {line['stage']}"}
            for name, run in self.runs.items()
            for line in run.log
        ]

    def choose(self, fit: Fit) -> Start:
        """Train each, as far as its validation items choose.

        Raises
        ------
        ConfigError
            When one that waits was trained with other settings, or the model went on without it.
        TrainingInterrupted
        """
        for name, config in self.configs.items():
            self._check_begun(name)
            self.runs[name] = self._kept(name, CHOSEN, partial(fit, config))
        return self.start

    def refit(self, refit: Refit) -> Start:
        """Train each of those chosen again, with the validation rows.

        Raises
        ------
        ConfigError, TrainingInterrupted
            As `choose`.
        """
        for name, run in self.runs.items():
            self.runs[name] = self._kept(name, REFITTED, partial(refit, run))
        return self.start

    def _check_begun(self, name: str) -> None:
        """Refuse a model's own checkpoint without its companion before anything is trained."""
        home = self.hooks.checkpoints
        if home is None or not self.hooks.resume or not has_own_checkpoint(home):
            return
        if not (home / COMPANIONS / name / CHOSEN).is_dir():
            raise ConfigError(
                f"{home}: begun from a {name} that was given, or by another version; give it "
                "again, or remove the folder to start anew"
            )

    def _kept(self, name: str, stage: str, train: Callable[[Hooks], Run]) -> Run:
        """The finished run of a stage: the one that waits, else a training that then does."""
        home = self.hooks.checkpoints
        place = None if home is None else home / COMPANIONS / name / stage
        if place is not None and place.is_dir():
            return self._waiting(name, place)
        # Of a stage's own: what a kill left of one must not be read by the next.
        checkpoints = None if place is None else place.with_name(f"{stage}-checkpoints")
        own = Hooks(
            report=lambda stage, progress: self.hooks.report(f"{name} {stage}", progress),
            stop=self.hooks.stop,
            checkpoints=checkpoints,
            resume=checkpoints is not None and has_checkpoint(checkpoints),
        )
        run = train(own)
        if place is not None and checkpoints is not None:
            save_run(run, place)
            shutil.rmtree(checkpoints, ignore_errors=True)
        return run

    def _waiting(self, name: str, folder: Path) -> Run:
        run = load_run(folder)
        same = run.config.to_toml() == self.configs[name].to_toml()
        same &= run.interactions.fingerprint == self.log.fingerprint
        most = max(run.config.train.epochs, run.config.train.full_epochs)
        if not same or run.epochs > most or (run.split.hash if run.split else "") != self.held:
            raise ConfigError(
                f"{self.hooks.checkpoints}: holds a {name} of other settings or other data; give "
                "the same command, or remove the folder to start anew"
            )
        return run

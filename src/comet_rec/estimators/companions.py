"""Models that another model holds a part of: trained first, by themselves (ADR 0029)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from comet_rec.artefact.checkpoint import COMPANIONS, forget, has_checkpoint
from comet_rec.artefact.run import Run, load_run, save_run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.estimators.presets import preset
from comet_rec.estimators.session import Hooks
from comet_rec.estimators.start import Start

Fit = Callable[[Config, Hooks], Run]


def companion_configs(config: Config, log: Interactions) -> dict[str, Config]:
    """Config of each companion by its model: preset `paper` with the sizes that are shared."""
    found = {}
    for name, shared in getattr(config.model, "companions", {}).items():
        own = preset("paper", name, log).with_settings(shared)
        train = replace(own.train, refit=config.train.refit)
        found[name] = replace(own, seed=config.seed, train=train, protocol=config.protocol)
    return found


def with_companions(
    start: Start, config: Config, log: Interactions, held: str, hooks: Hooks, fit: Fit
) -> tuple[Start, list[dict[str, Any]]]:
    """A start that holds the companions, and the log of their trainings; a given start stays.

    With a folder for checkpoints a finished companion waits there for the rest.

    Parameters
    ----------
    start : Start
    config : Config
        Of the model that holds them.
    log : Interactions
    held : str
        What is held out: the split's hash, or nothing.
    hooks : Hooks
    fit : callable
        Trains one of a config under hooks.

    Raises
    ------
    ConfigError
        When one that waits there was trained with other settings.
    TrainingInterrupted
    """
    hooks.check()
    wanted = {} if start.runs else companion_configs(config, log)
    home = None if hooks.checkpoints is None else hooks.checkpoints / COMPANIONS
    if home is not None and not hooks.resume:
        forget(home.parent)
    runs, lines = [], []
    for name, own in wanted.items():
        run = _waiting(name, own, log, held, home) or _trained(name, own, hooks, home, fit)
        runs.append(run)
        lines += [{**line, "stage": f"{name} {line['stage']}"} for line in run.log]
    return Start(runs) if runs else start, lines


def _waiting(
    name: str, config: Config, log: Interactions, held: str, home: Path | None
) -> Run | None:
    """A finished companion of an unfinished training."""
    if home is None or not (home / name / "run").is_dir():
        return None
    run = load_run(home / name / "run")
    same = run.config.to_toml() == config.to_toml()
    same &= run.interactions.fingerprint == log.fingerprint
    if not same or (run.split.hash if run.split else "") != held:
        raise ConfigError(
            f"{home / name}: a {name} of other settings or other data; give the same command, or "
            "remove the folder to start anew"
        )
    return run


def _trained(name: str, config: Config, hooks: Hooks, home: Path | None, fit: Fit) -> Run:
    checkpoints = None if home is None else home / name / "checkpoints"
    own = Hooks(
        report=lambda stage, progress: hooks.report(f"{name} {stage}", progress),
        stop=hooks.stop,
        checkpoints=checkpoints,
        resume=checkpoints is not None and has_checkpoint(checkpoints),
    )
    run = fit(config, own)
    if home is not None and checkpoints is not None:
        save_run(run, home / name / "run")
        shutil.rmtree(checkpoints, ignore_errors=True)
    return run

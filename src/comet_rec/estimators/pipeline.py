"""From a config and a log to a finished run: training, evaluation and artefact composed."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from comet_rec.artefact.run import Run
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import NonFiniteError
from comet_rec.estimators.companions import Companions
from comet_rec.estimators.scoring import model_scores, vectors
from comet_rec.estimators.session import Hooks, Session, log_line
from comet_rec.estimators.start import Start
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.estimators.validation import Validation
from comet_rec.models import base
from comet_rec.training.trainer import Progress, frozen


def fit_split(
    config: Config, split: Split, device: torch.device, hooks: Hooks, start: Start
) -> Run:
    """Train on the training rows, choose the epoch on the validation items; nothing is measured.

    Raises
    ------
    ConfigError, NonFiniteError, TrainingInterrupted
    """
    companions = Companions.of(config, split.interactions, split.hash, hooks, start)
    session = _session(config, split, device, hooks, companions, {})
    session.resume()
    if base.non_iterative(config.name):
        model = _closed_form(session, split.train, split.known, split.validation)
    else:
        if session.chosen_epochs == 0:
            model = _chosen(session, split)
            if config.train.refit and companions.runs:
                session.keep_choice()
        if config.train.refit:
            session.start = companions.refit(partial(_refitted_alone, split, device))
            model = _refitted(session, split)
    return _finished(session, model, split.known, split, companions)


def _session(
    config: Config, split: Split, device: torch.device, hooks: Hooks, companions: Companions,
    trained: dict[str, Run],
) -> Session:  # fmt: skip
    """Session of a training on a split, its companions chosen; `trained` has and keeps them."""

    def companion(own: Config, hooks: Hooks) -> Run:
        key = own.to_toml()
        if key not in trained:
            trained[key] = _chosen_alone(split, device, own, hooks)
        return trained[key]

    start = companions.choose(companion)
    start.check(config, split.interactions, split)
    return Session(config, split.interactions, device, hooks, split.hash, start)


def _chosen(session: Session, split: Split) -> Any:
    """Model of the epoch that the validation items choose."""
    epochs = session.config.train.epochs
    model, state = session.train("validation", split.train, epochs, split.validation)
    session.chosen_epochs = state.best_epoch
    session.selected = frozen(model) if session.config.train.refit else {}
    return model


def _refitted(session: Session, split: Split) -> Any:
    """Model trained for as many epochs with the validation rows."""
    return session.train("refit", split.known, session.chosen_epochs)[0]


def _chosen_alone(split: Split, device: torch.device, config: Config, hooks: Hooks) -> Run:
    """A companion before its refit."""
    session = Session(config, split.interactions, device, hooks, split.hash, Start())
    session.resume()
    return _finished(session, _chosen(session, split), split.known, split)


def _refitted_alone(split: Split, device: torch.device, chosen: Run, hooks: Hooks) -> Run:
    """A companion after it."""
    session = Session(chosen.config, split.interactions, device, hooks, split.hash, Start())
    session.lines, session.chosen_epochs = list(chosen.log), chosen.epochs
    session.selected = dict(chosen.selected or {})
    session.resume()
    return _finished(session, _refitted(session, split), split.known, split)


@undisturbed
def validate(
    config: Config, split: Split, device: torch.device, hooks: Hooks, trained: dict[str, Run]
) -> tuple[dict[str, float], int]:
    """Train on the training rows alone: figures of the validation items, and the best epoch.

    Nothing of the test items is read; searches are made of this. `trained` is what earlier calls
    with this split left there: companions by their config, which are not trained again.

    Raises
    ------
    ConfigError, NonFiniteError, TrainingInterrupted
    """
    config = replace(config, train=replace(config.train, refit=False))
    companions = Companions.of(config, split.interactions, split.hash, hooks, Start())
    session = _session(config, split, device, hooks, companions, trained)
    if base.non_iterative(config.name):
        _closed_form(session, split.train, split.known, split.validation)
        return dict(session.lines[0]["validation"]), 1
    _, state = session.train("validation", split.train, config.train.epochs, split.validation)
    return state.best_validation, state.best_epoch


def fit_all(
    config: Config, log: Interactions, device: torch.device, hooks: Hooks, start: Start
) -> Run:
    """Train on the whole log for the preset's number of epochs; nothing is measured."""

    def companion(own: Config, hooks: Hooks) -> Run:
        return fit_all(own, log, device, hooks, Start())

    companions = Companions.of(config, log, "", hooks, start)
    start = companions.choose(companion)
    start.check(config, log, None)
    session = Session(config, log, device, hooks, "", start)
    session.resume()
    if base.non_iterative(config.name):
        return _finished(session, _closed_form(session, log, log, None), log, None)
    session.chosen_epochs = config.train.full_epochs
    model, _ = session.train("all", log, config.train.full_epochs)
    return _finished(session, model, log, None, companions)


def _closed_form(
    session: Session, rows: Interactions, known: Interactions, validation: HeldOut | None
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
            figures = Validation(session.config, validation, rows).figures(
                model_scores(model, rows)
            )
        progress = Progress(1, 1, 1, 1, 0.0, len(given), seconds, figures, finished_epoch=True)
        session.lines.append(log_line(stage, progress) | {"loss": None})
    session.chosen_epochs = 1
    return model


def _finished(
    session: Session,
    model: Any,
    rows: Interactions,
    split: Split | None,
    companions: Companions | None = None,
) -> Run:
    """Its run; in each stage of its log the lines of the companions are first."""
    before, epochs = ([], {}) if companions is None else (companions.lines, companions.epochs)
    users, items = vectors(model, rows) if base.two_tower(session.config.name) else (None, None)
    if any(v is not None and not bool(torch.isfinite(v).all()) for v in (users, items)):
        raise NonFiniteError("the trained vectors are not finite; lower train.learning_rate")
    return Run(
        config=session.config,
        epochs=session.chosen_epochs,
        state=frozen(model),
        selected=session.selected or None,
        started_from=session.start.names,
        companion_epochs=epochs,
        interactions=session.interactions,
        split=split,
        user_vectors=users,
        item_vectors=items,
        log=sorted([*before, *session.lines], key=lambda line: line["stage"].endswith("refit")),
    )

"""Figures of a finished run, and of any other model under the same protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from comet_rec.artefact.run import Run, protocol_entry
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import ConfigError, InputError
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.evaluation.ranking import Report, drawn_users, full_ranks, sampled_ranks
from comet_rec.evaluation.scoring import FunctionScores, full_users, run_scores
from comet_rec.models.interfaces import Scorer

if TYPE_CHECKING:
    from comet_rec.estimators.estimator import Estimator


Score = Callable[[Any, list[Any]], Any]
"""A model of somebody else: a user id and item ids, in the log's own ids, to a score for each."""


def evaluate(model: Estimator | Score, split: Split | None = None, *, full: bool = True) -> Report:
    """Figures of a trained model on the test items of a split.

    Parameters
    ----------
    model : estimator or callable
        A callable is any other model: ``model(user_id, item_ids)`` gives a score for each item,
        the higher the better. It must not have seen the test items.
    split : Split, optional
        Default: the one that the model was trained on. Another one must hold out the same rows
        (its candidates may differ). A callable needs one.
    full : bool
        Also rank the whole catalogue; seen items are left out.

    Raises
    ------
    ConfigError
        When the model was trained on rows that the split holds out.
    InputError
        For what is no model, or no split; for a callable that gives another number of scores.
    NonFiniteError
        When a score is NaN or infinite.
    """
    if not isinstance(full, (bool, np.bool_)):
        raise InputError(f"full = {full!r}: must be True or False")
    run = getattr(model, "run", None)
    if isinstance(model, type):
        raise InputError(f"evaluate: {model.__name__} is a class; give a fitted model of it")
    if split is not None and not isinstance(split, Split):
        raise InputError(f"evaluate: {type(split).__name__} is no split; give leave_one_out(log)")
    if not isinstance(run, Run):
        if not callable(model) or split is None:
            raise InputError(
                "evaluate: give a fitted model, or a function of a user id and item ids and a split"
            )
        scores = FunctionScores(model, split.interactions)
        return _report(type(model).__name__, scores, split, split.test if full else None)
    trained_on = run.split
    if trained_on is None:
        raise ConfigError(
            "this model was trained on the whole log, so nothing honest can be measured; "
            "fit it on a split"
        )
    split = trained_on if split is None else split
    same_log = split.interactions.fingerprint == trained_on.interactions.fingerprint
    if not same_log or bool((split.part != trained_on.part).any()):
        raise ConfigError(
            "the model was trained on another log or split; fit it on the split that you measure"
        )
    return measure(run, split, full=full)


@undisturbed
def measure(run: Run, split: Split, *, full: bool = True) -> Report:
    """Figures of the test items.

    Parameters
    ----------
    run : Run
    split : Split
        Split of the log that the run was trained on.
    full : bool
        Also rank the whole catalogue, seen items left out; for models whose pairs are dear, for
        a sample of the test users.
    """
    ranked = drawn_users(split.test, full_users(run.config.name)) if full else None
    return _report(run.config.name, run_scores(run), split, ranked)


def measured(run: Run) -> Run:
    """The run with the figures of its test items, if it holds any out."""
    if run.split is None or run.metrics is not None:
        return run
    return replace(run, metrics=measure(run, run.split).to_dict())


def _report(name: str, scores: Scorer, split: Split, ranked: HeldOut | None) -> Report:
    entry = protocol_entry(split)
    return Report(
        name,
        {"hash": entry["hash"], **entry["settings"]},
        split.test.users,
        sampled_ranks(scores, split.test),
        None if ranked is None else full_ranks(scores, ranked, split.known),
        split.protocol.ties,
        None if ranked is None else ranked.users,
    )

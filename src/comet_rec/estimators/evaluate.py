"""Evaluation of a trained model, or of any scoring function, on the test items of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from comet_rec.artefact.run import Run, protocol_entry
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import ConfigError, InputError
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.evaluation.by_time import findings
from comet_rec.evaluation.ranking import Report, drawn_users, full_ranks, sampled_ranks
from comet_rec.evaluation.scoring import FunctionScores, full_users, run_scores
from comet_rec.models.interfaces import Scorer

if TYPE_CHECKING:
    from comet_rec.estimators.estimator import Estimator


Score = Callable[[Any, list[Any]], Any]
"""Model of another library, as a function: user id and list of item ids → a score per item."""


def evaluate(model: Estimator | Score, split: Split | None = None, *, full: bool = True) -> Report:
    """Evaluate a model on the test items of a split: HR@k and NDCG@k.

    ``report["NDCG@10"]`` is the sampled metric: the test item is ranked among its sampled
    candidates. ``report.full["NDCG@10"]`` ranks the test item among all items.

    Parameters
    ----------
    model : estimator or callable
        A fitted estimator, or a function ``model(user_id, item_ids)`` that returns a score per
        item. Higher scores are better. The function must not know the test items. In a split by
        time it is asked for a user's lists by the user alone, so it knows no later rows.
    split : Split, optional
        Default: the split that the model was trained on. Another split must hold out the same
        rows; its candidates may differ. A function needs a split.
    full : bool
        Also compute the full ranking, over all items that the user has not seen. ConvNCF, which
        scores slowly, ranks a sample of the test users only.

    Returns
    -------
    Report
        Metrics, standard errors and the rank of each test item. `Report.full` is None with
        ``full=False``.

    Raises
    ------
    ConfigError
        When the model was not trained on this split, so that it may know the test items.
    InputError
        When `model` is neither fitted nor a function, `split` is not a split, or a function
        returns a wrong number of scores.
    NonFiniteError
        When a score is NaN or infinite.
    """
    if not isinstance(full, (bool, np.bool_)):
        raise InputError(f"full = {full!r}: must be True or False")
    run = getattr(model, "run", None)
    if isinstance(model, type):
        raise InputError(f"evaluate: {model.__name__} is a class; give a fitted model of it")
    if split is not None and not isinstance(split, Split):
        raise InputError(
            f"evaluate: {type(split).__name__} is not a split; give leave_one_out(log) "
            "or time_split(log)"
        )
    if not isinstance(run, Run):
        if not callable(model) or split is None:
            raise InputError(
                "evaluate: give a fitted model, or a function model(user_id, item_ids) and a split"
            )
        queries = split.test.queries
        owners = None if queries is None else queries.users
        scores = FunctionScores(model, split.interactions, owners)
        return _report(type(model).__name__, scores, split, split.test if full else None)
    trained_on = run.split
    if trained_on is None:
        raise ConfigError(
            "this model was trained on the full log, so no test items are held out; "
            "fit it on a split"
        )
    if run.final:
        raise ConfigError(
            "this model was trained once more on every row, test items included; the metrics of "
            "the earlier model are in model.run.metrics"
        )
    split = trained_on if split is None else split
    same_log = split.interactions.fingerprint == trained_on.interactions.fingerprint
    if not same_log or bool((split.part != trained_on.part).any()):
        raise ConfigError(
            "the model was trained on another log or split; fit it on the split that you evaluate"
        )
    return measure(run, split, full=full)


@undisturbed
def measure(run: Run, split: Split, *, full: bool = True) -> Report:
    """Evaluate a run on the test items of a split that is known to fit the run.

    Parameters
    ----------
    run : Run
    split : Split
        A split of the log that the run was trained on. The run must not know its test items.
    full : bool
        Also compute the full ranking, without seen items. For models with costly pair scores
        only a sample of the test users is ranked.
    """
    ranked = drawn_users(split.test, full_users(run.config.name)) if full else None
    return _report(run.config.name, run_scores(run, split.test), split, ranked)


def measured(run: Run) -> Run:
    """Return the run with test metrics; they are measured if it has a split and no metrics yet."""
    if run.split is None or run.metrics is not None:
        return run
    return replace(run, metrics=measure(run, run.split).to_dict())


def _report(name: str, scores: Scorer, split: Split, ranked: HeldOut | None) -> Report:
    entry = protocol_entry(split)
    sampled = sampled_ranks(scores, split.test)
    full = None if ranked is None else full_ranks(scores, ranked, split.known)
    more = None
    if split.test.queries is not None:
        more = findings(scores, split, sampled, ranked, full)
    return Report(
        name,
        {"hash": entry["hash"], **entry["settings"]},
        np.unique(split.test.users),
        sampled,
        full,
        split.protocol.ties,
        None if ranked is None else np.unique(ranked.users),
        more,
    )

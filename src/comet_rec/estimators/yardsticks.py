"""Yardsticks: simple models that are measured beside a trained model, on the same split.

The comparison that gives advice uses validation items, so that test items choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from comet_rec.artefact.run import Run, second_config
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import CometError, by_reader
from comet_rec.estimators.presets import preset
from comet_rec.evaluation.metrics import TieRule
from comet_rec.evaluation.paired import mean_difference
from comet_rec.evaluation.ranking import drawn_users, full_ranks, sampled_ranks
from comet_rec.evaluation.scoring import (
    VectorScores,
    blended,
    full_users,
    held_scores,
    held_vectors,
    vectors,
)
from comet_rec.models import base
from comet_rec.models.ease import MIRRORED
from comet_rec.models.interfaces import Scorer
from comet_rec.models.itemknn import ROW_BLOCK_BYTES
from comet_rec.random import torch_seed
from comet_rec.training.fit import validated_users

NAMES = ("popularity", "itemknn", "ease")
"""Models that serve as yardsticks."""
METRIC = "NDCG@10"
MEMORY_GIB = 2.0
"""Largest estimated memory of a yardstick, in GiB.

A machine with 8 GiB has that much left beside a training. For EASE, the limit is at 13,000 items.
"""
PAIRS_PER_ROW = 1_000
"""Largest number of item pairs per row of the log, summed over the users' histories.

ItemKNN and EASE count these pairs. Above the limit, counting takes more than about a tenth of
COMET's training time, at 25 million pairs and 30,000 positives per second.
"""


def compared(run: Run) -> dict[str, Any]:
    """Measure the yardsticks on the split of a run, and compare them with the run's model.

    The comparison on validation items takes models that know the training rows alone: the run's
    model as validation chose it, from before a refit. On the test items, the yardsticks are
    refitted with the validation rows if the model was.

    Parameters
    ----------
    run : Run
        A run with a split and metrics, whose weights do not know the test items.

    Returns
    -------
    dict
        "metric" is the metric on validation items, and "users" the number of users compared.
        "models" has an entry for the run's model and one for each yardstick: its name "model", and
        NDCG@10 as "validation", and as "sampled" and "full" on the test items. "difference" is the
        run's model minus the yardstick on the validation items, "low" to "high" its 95 % interval.
        "left_out" says which yardsticks were left out and why.
    """
    assert run.split is not None
    assert run.metrics is not None
    split, train = run.split, run.config.train
    ties = split.protocol.ties
    full = train.selection_metric == "full"
    scores = _validation_scores(run, split)
    held = split.validation
    if full:
        held = drawn_users(held, validated_users(run.config.name, scores))
    reference = _values(scores, held, split.train, ties, full=full)
    full_means = run.metrics["full"]
    models: list[dict[str, Any]] = [
        {
            "model": run.config.name,
            "validation": float(reference.mean()),
            "sampled": run.metrics["sampled"][METRIC],
            "full": None if full_means is None else full_means[METRIC],
            "difference": None,
            "low": None,
            "high": None,
        }
    ]
    left_out = []
    for name in NAMES:
        if name == run.config.name:
            continue
        config = preset("auto", name, split.interactions)
        reason = too_large(config, split.train)
        if reason is None:
            try:
                models.append(_measured(config, run, held, reference, full=full))
            except (CometError, MemoryError) as error:  # must not cost the user a trained model
                reason = str(error) or "not enough memory"
        if reason is not None:
            left_out.append(f"{name}: {reason}")
    return {
        "metric": f"full {METRIC}" if full else METRIC,
        "users": len(reference),
        "models": models,
        "left_out": left_out,
    }


def advice(comparison: Mapping[str, Any]) -> str:
    """One sentence: whether a yardstick is ahead of the model or level with it, and what to do.

    `comparison` is the result of `compared`. A yardstick is ahead if the 95 % interval of the
    difference on validation items is below 0, and level if the interval contains 0.
    """
    model, *yardsticks = comparison["models"]
    name = model["model"]
    ahead = [entry for entry in yardsticks if entry["high"] < 0]
    level = [entry for entry in yardsticks if entry["low"] <= 0 <= entry["high"]]
    if not yardsticks:
        return f"yardsticks were not measured, so nothing is known about simpler models than {name}"
    if not ahead and not level:
        return f"{name} is ahead of every yardstick on the validation items"
    best = max(ahead or level, key=lambda entry: float(entry["validation"]))["model"]
    remedy = by_reader(python=f"fit the model {best!r}", shell=f"train with --model {best}")
    if ahead:
        return f"{best} is ahead of {name} on the validation items: {remedy}"
    return (
        f"{best} is level with {name} on the validation items: their difference may be chance. For "
        f"a simpler and faster model, {remedy}"
    )


def too_large(config: Config, rows: Interactions) -> str | None:
    """Why a yardstick with this config would cost too much on these rows; None if it would not."""
    pairs = _pairs(rows)
    if config.name != "popularity" and pairs > PAIRS_PER_ROW * len(rows):
        return f"the users' items make {pairs:,} pairs, above {PAIRS_PER_ROW:,} per row"
    memory = memory_of(config, rows) / 2**30
    if memory > MEMORY_GIB:
        return f"needs about {memory:.1f} GiB for {rows.n_items:,} items, above {MEMORY_GIB:g} GiB"
    return None


def memory_of(config: Config, rows: Interactions) -> int:
    """Estimate of the memory that fitting a yardstick takes at its peak, in bytes."""
    items = rows.n_items
    if config.name == "popularity":
        return 8 * items
    if config.name == "ease":
        users = np.unique(rows.users).size
        matrix = 12 * items**2  # float64, and a float32 copy
        if users < items:  # then EASE inverts a float64 matrix over users
            matrix = 4 * items**2 + 8 * users**2
        return matrix + 16 * min(MIRRORED, items) * items  # and two blocks of columns in float64
    # Two blocks of similarities. Kept similarities take 20 bytes each, twice when they are joined.
    kept = min(_pairs(rows), items * config.get("model.neighbours"))
    return 2 * min(ROW_BLOCK_BYTES, 12 * _pairs(rows)) + 40 * int(kept)


def _pairs(rows: Interactions) -> int:
    """Number of pairs of items that users have together, summed over users."""
    history_lengths = np.bincount(rows.users).astype(np.int64)
    return int((history_lengths**2).sum())


def _measured(
    config: Config, run: Run, held: HeldOut, reference: npt.NDArray[np.float64], *, full: bool
) -> dict[str, Any]:
    """Entry of a yardstick: its figures, and the paired difference to the run's model.

    `reference` has the metric of the run's model for each user of `held`.
    """
    split = run.split
    assert split is not None
    ties = split.protocol.ties
    model = _fitted(config, split.train)
    values = _values(held_scores(model, split.train, held), held, split.train, ties, full=full)
    difference, low, high = mean_difference(reference, values)
    if run.config.train.refit:
        model = _fitted(config, split.known)
    scores = held_scores(model, split.known, split.test)
    entry = {
        "model": config.name,
        "validation": float(values.mean()),
        "sampled": float(_values(scores, split.test, split.known, ties, full=False).mean()),
        "full": None,
        "difference": difference,
        "low": low,
        "high": high,
    }
    if run.metrics is not None and run.metrics["full"] is not None:
        ranked = drawn_users(split.test, full_users(run.config.name))
        entry["full"] = float(_values(scores, ranked, split.known, ties, full=True).mean())
    return entry


def _fitted(config: Config, rows: Interactions) -> Any:
    """A non-iterative model with this config, fitted on the rows."""
    seed = torch_seed(config.seed, "parameters")
    model = base.build(config.name, config.model, rows.n_users, rows.n_items, seed)
    model.fit(rows)
    return model


def _validation_scores(run: Run, split: Split) -> Scorer:
    """Scores of a run's model for its validation items, as when validation chose the epoch."""
    if base.non_iterative(run.config.name):
        return held_scores(_fitted(run.config, split.train), split.train, split.validation)
    log, blend = run.interactions, run.blend
    model = base.restored(run.config, run.selected or run.state, log)
    if blend is None:
        return held_scores(model, split.train, split.validation)
    second = base.restored(second_config(run.config), blend.selected or blend.state, log)
    queries = split.validation.queries

    def sides(part: Any) -> tuple[Tensor, Tensor]:
        if queries is None:
            return vectors(part, split.train)
        return held_vectors(part, split.train, queries)

    return VectorScores(*blended(*sides(model), *sides(second), blend.weight))


def _values(
    scores: Scorer, held: HeldOut, seen: Interactions, ties: TieRule, *, full: bool
) -> npt.NDArray[np.float64]:
    """NDCG@10 of each user of `held`, float64 [U], in the full ranking or among candidates."""
    ranks = full_ranks(scores, held, seen) if full else sampled_ranks(scores, held)
    return ranks.of_users(METRIC, ties)

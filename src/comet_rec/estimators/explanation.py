"""Explanation of a score: how much each item of the user's history contributes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.artefact.run import Run
from comet_rec.data.histories import Ragged, fold_in, input_history
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError
from comet_rec.estimators.newcomers import folded_in
from comet_rec.evaluation.scoring import run_scores
from comet_rec.models.attribution import TOLERANCE
from comet_rec.models.interfaces import NonIterative

Int64 = npt.NDArray[np.int64]
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Contributions of a history to one score, the largest first.

    Parameters
    ----------
    items : int64 [n]
        Items of the history.
    contributions : float64 [n]
        They add up to `score` − `without_history`.
    score, without_history : float
        The score, and the score with an empty history.
    """

    items: Int64
    contributions: npt.NDArray[np.float64]
    score: float
    without_history: float

    def table(self, run: Run) -> Table:
        """Table with one row for each item of the history; see `Estimator.explain`."""
        count = len(self.items)
        return Table(
            {
                "item_id": run.interactions.item_ids.external(self.items),
                "contribution": self.contributions,
                "rank": np.arange(count) + 1,
                "score": np.full(count, self.score),
                "without_history": np.full(count, self.without_history),
            }
        )


def of_user(run: Run, user: int, item: int, tolerance: float = TOLERANCE) -> Explanation:
    """Contribution of each item of a user's history to one score; see `Estimator.explain`."""

    def history(model: Any) -> Int64:
        if isinstance(model, NonIterative):
            return run.known.items_of(user)
        return _without_pads(input_history(run.known, model.histories, user), run)

    def score() -> float:
        return float(run_scores(run).score_pairs(np.array([user]), np.array([[item]]))[0, 0])

    return _explained(run, item, history, score, tolerance)


def of_history(
    run: Run, items: Int64, item: int, user: int | None = None, tolerance: float = TOLERANCE
) -> Explanation:
    """Contribution of each item of a given history to one score.

    Parameters
    ----------
    run : Run
    items : int64 [n]
        Distinct items of the history, oldest first.
    item : int
        Item whose score is explained.
    user : int, optional
        User of the log who has this history now; by default, the user is new.
    tolerance : float
        Largest error of the sum of the contributions.
    """

    def history(model: Any) -> Int64:
        if isinstance(model, NonIterative):
            return items
        histories = fold_in([items], model.histories, run.interactions.n_items)
        row = histories[0:1].values if isinstance(histories, Ragged) else histories[0]
        return _without_pads(row, run)

    def score() -> float:
        source = folded_in(run, [items], CPU, None if user is None else np.array([user]))
        if isinstance(source, Tensor):
            assert run.item_vectors is not None
            return float(source[0].double() @ run.item_vectors[item].double())
        return float(source(np.array([0]))[0, item])

    return _explained(run, item, history, score, tolerance)


def _without_pads(row: Tensor, run: Run) -> Int64:
    items = row.numpy().astype(np.int64)
    return items[items < run.interactions.n_items]


def _explained(
    run: Run, item: int, history: Callable[[Any], Int64], score: Callable[[], float],
    tolerance: float,
) -> Explanation:  # fmt: skip
    """Explain the score of `item`; `history` gives the items that a model reads, oldest first."""
    models: list[tuple[Any, float]] = [(run.model, 1.0)]
    if run.blend is not None:
        models.append((run.second_model, run.blend.weight))
    contributions: dict[int, float] = {}
    column = 0  # first column of the current model in the run's vectors
    readers = 0  # number of models that read histories
    for model, weight in models:
        z_item = None
        if run.item_vectors is not None:
            width = len(model.weight)
            z_item = run.item_vectors[item, column : column + width]
            column += width
        if not model.folds_in:
            continue
        readers += 1
        items = history(model)
        parts = weight * model.contributions(items, item, z_item, tolerance)
        for row, part in zip(items.tolist(), parts.tolist(), strict=True):
            contributions[row] = contributions.get(row, 0.0) + part
    if readers == 0:
        raise ConfigError(
            f"{run.config.name} reads no history, so no row explains a score; train a model that "
            "reads histories, e.g. comet"
        )
    total = score()
    ordered = np.array(sorted(contributions), dtype=np.int64)
    values = np.array([contributions[each] for each in ordered.tolist()])
    order = np.argsort(-values, kind="stable")
    return Explanation(ordered[order], values[order], total, total - float(values.sum()))

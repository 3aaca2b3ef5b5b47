"""Explanation of a score: how much each item of the user's history contributes to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from comet_rec.artefact.run import Run
from comet_rec.data.histories import Ragged, input_histories
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError
from comet_rec.estimators.lists import known
from comet_rec.evaluation.scoring import run_scores
from comet_rec.models.interfaces import NonIterative

Int64 = npt.NDArray[np.int64]


def explained(run: Run, user: Any, item: Any) -> Table:
    """Contribution of each item of a user's history to one score; see `Estimator.explain`."""
    log = run.interactions
    user_index = int(known(log.user_ids, [user], "user")[0])
    item_index = int(known(log.item_ids, [item], "item")[0])
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
            z_item = run.item_vectors[item_index, column : column + width]
            column += width
        if not model.folds_in:
            continue
        readers += 1
        history = _history(run, model, user_index)
        parts = weight * model.contributions(history, item_index, z_item)
        for row, part in zip(history.tolist(), parts.tolist(), strict=True):
            contributions[row] = contributions.get(row, 0.0) + part
    if readers == 0:
        raise ConfigError(
            f"{run.config.name} reads no history, so no row explains a score; train a model that "
            "reads histories, e.g. comet"
        )
    scores = run_scores(run).score_pairs(np.array([user_index]), np.array([[item_index]]))
    score = float(scores[0, 0])
    items = np.array(sorted(contributions), dtype=np.int64)
    parts = np.array([contributions[item] for item in items.tolist()])
    order = np.argsort(-parts, kind="stable")
    return Table(
        {
            "item_id": log.item_ids.external(items[order]),
            "contribution": parts[order],
            "rank": np.arange(len(items)) + 1,
            "score": np.full(len(items), score),
            "without_history": np.full(len(items), score - parts.sum()),
        }
    )


def _history(run: Run, model: Any, user: int) -> Int64:
    """Item indices of the history that `model` reads for `user`, in the order of the history."""
    if isinstance(model, NonIterative):
        starts = run.known.user_starts
        return run.known.items[starts[user] : starts[user + 1]].astype(np.int64)
    histories, _ = input_histories(run.known, model.histories)
    if isinstance(histories, Ragged):
        row: Tensor = histories[user : user + 1].values
    else:
        assert histories is not None
        row = histories[user]
    items = row.numpy().astype(np.int64)
    return items[items < run.interactions.n_items]  # without the pad index

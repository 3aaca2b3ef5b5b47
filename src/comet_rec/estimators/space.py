"""Scores of pairs and the two matrices behind them, by the user's own ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.artefact.run import Run
from comet_rec.data.id_lists import id_list
from comet_rec.data.ids import Ids
from comet_rec.errors import ConfigError, InputError
from comet_rec.estimators.lists import unknown_id
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import run_scores

Float32 = npt.NDArray[np.float32]


def scores(run: Run, users: Iterable[Any], items: Iterable[Any]) -> Float32:
    """Scores of pairs; see `Estimator.score`."""
    left = _known(run.interactions.user_ids, users, "user")
    right = _known(run.interactions.item_ids, items, "item")
    if len(left) != len(right):
        raise InputError(
            f"score: {len(left)} users and {len(right)} items; give an item for each user"
        )
    return checked(run_scores(run).pairs(left, right[:, None]))[:, 0]


def _known(ids: Ids, given: Iterable[Any], role: str) -> npt.NDArray[np.int64]:
    what = f"{role}s"
    stored, indices = ids.lookup(id_list(given, what), what)
    missing = indices < 0
    if missing.any():
        unknown = ids.as_external(stored[missing])
        raise unknown_id(ids, unknown, len(indices), role, policies=False)
    return indices


def matrix(run: Run, side: str) -> tuple[npt.NDArray[Any], Float32]:
    """Ids and vectors of a side, "user" or "item"; see `Estimator.user_vectors`."""
    vectors = run.user_vectors if side == "user" else run.item_vectors
    if vectors is None:
        raise ConfigError(f"{run.config.name} has no vectors: its scores are no inner product")
    ids = run.interactions.user_ids if side == "user" else run.interactions.item_ids
    return ids.external(np.arange(len(ids))), vectors.numpy().copy()

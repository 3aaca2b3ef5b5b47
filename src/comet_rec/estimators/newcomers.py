"""Vectors or scores of users whose history came with a request, computed without training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.artefact.run import Run
from comet_rec.data.histories import Ragged, fold_in
from comet_rec.errors import ConfigError
from comet_rec.estimators.ranker import Int64, Source
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import vectors_from_histories
from comet_rec.models import base
from comet_rec.models.interfaces import TwoTower


def folds_in(run: Run) -> bool:
    """Whether the model, or the second model of a blend, can score users by a new history."""
    if base.non_iterative(run.config.name):
        return bool(run.model.folds_in)
    return any(reads_histories(model) for model, _ in _models(run))


def folded_in(
    run: Run, histories: list[Int64], device: torch.device, users: Int64 | None = None
) -> Source:
    """Vectors of users from their histories, or a function that scores all items for them.

    Parameters
    ----------
    run : Run
    histories : list of int64 arrays
        Distinct items of each of Q users, oldest first.
    device : torch.device
        Where the towers run.
    users : int64 [Q], optional
        Indices of users of the log, who keep their own embeddings. By default, the users are new.

    Raises
    ------
    ConfigError
        When the model reads no histories.
    """
    if not folds_in(run):
        raise ConfigError(
            f"{run.config.name} cannot fold in new users, because it reads no histories; train a "
            "model that reads histories, e.g. comet"
        )
    n_items = run.interactions.n_items
    if base.two_tower(run.config.name):
        parts = [
            weight * _user_vectors(model, histories, n_items, device, users)
            for model, weight in _models(run)
        ]
        vectors = torch.cat(parts, dim=1)  # [Q, K + K of the second model]
        checked(vectors.numpy())
        return vectors
    ragged = Ragged.of_rows(histories)
    items, starts = ragged.values.numpy(), ragged.starts.numpy()
    ones = np.ones(len(items), dtype=np.float32)
    matrix = csr_array((ones, items, starts), shape=(len(histories), n_items))  # [Q, I]
    matrix.sort_indices()
    # −1 is the index of a user without parameters.
    indices = np.full(len(histories), -1) if users is None else users
    return lambda places: checked(run.model.score_all(indices[places], matrix[places]))


def _models(run: Run) -> list[tuple[Any, float]]:
    """The model, and the second model of a blend, with the weights of their scores."""
    if run.blend is None:
        return [(run.model, 1.0)]
    return [(run.model, 1.0), (run.second_model, run.blend.weight)]


def reads_histories(model: Any) -> bool:
    """Whether `model` encodes new users from their histories."""
    return isinstance(model, TwoTower) and model.histories is not None and model.folds_in


def _user_vectors(
    model: Any, histories: list[Int64], n_items: int, device: torch.device, users: Int64 | None
) -> Tensor:
    """Encode users from their histories, [Q, K].

    A model that reads no histories gives new users zeros.
    """
    if not reads_histories(model):
        if users is None:
            return torch.zeros(len(histories), len(model.weight))
        padded = None
    else:
        padded = fold_in(histories, model.histories, n_items)
    return vectors_from_histories(model.to(device), padded, users).cpu()

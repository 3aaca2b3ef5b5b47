"""Similar users and items: the cosine of vectors without their biases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.artefact.run import Run, second_config
from comet_rec.config import Config, is_whole
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError, InputError
from comet_rec.estimators.lookup import known
from comet_rec.models import base
from comet_rec.retrieval.exact import top_k


def neighbours(run: Run, role: Literal["user", "item"], ids: Iterable[Any], k: int) -> Table:
    """Find the k users or items, as `role` says, that are most similar to each of `ids`.

    See `Estimator.similar_items`.
    """
    if not is_whole(k) or k < 1:
        raise InputError(f"k = {k!r}: must be a whole number above 0")
    vectors, names = run.item_vectors, run.interactions.item_ids
    if role == "user":
        vectors, names = run.user_vectors, run.interactions.user_ids
    if vectors is None:
        raise ConfigError(
            f"{run.config.name} has no vectors to compare: its scores are not inner products; "
            "use a model with vectors, e.g. comet or mf"
        )
    indices = known(names, ids, role)
    unit = nnf.normalize(factors(run, vectors, role), dim=1)  # [n, W]
    # Mask row, column: an id is not similar to itself. Unused places keep index -1.
    itself = np.arange(len(indices)), indices
    similar = np.full((len(indices), min(k, len(unit))), -1, dtype=np.int64)
    cosines = np.zeros(similar.shape, dtype=np.float32)
    queries = unit[torch.from_numpy(indices)]  # [Q, W]
    for block, top_indices, scores in top_k(queries, unit, k, masked=itself):
        similar[block], cosines[block] = top_indices, scores
    row, column = np.nonzero(similar >= 0)
    return Table(
        {
            f"{role}_id": names.external(indices[row]),
            f"similar_{role}_id": names.external(similar[row, column]),
            "similarity": cosines[row, column],
            "rank": column + 1,
        }
    )


def factors(run: Run, vectors: Tensor, role: str) -> Tensor:
    """Factor columns of user or item vectors, without their bias columns.

    The columns of a blended second model are multiplied by its weight.
    """
    width = base.model_class(run.config.name).vector_dim(run.config.model)
    parts = [vectors[:, : _factor_dim(run.config)]]
    if run.blend is not None:
        # The second model's columns of users are already multiplied by the weight.
        scale = run.blend.weight if role == "item" else 1.0
        second = vectors[:, width : width + _factor_dim(second_config(run.config))]
        parts.append(scale * second)
    return torch.cat(parts, dim=1)


def _factor_dim(config: Config) -> int:
    dim: int = base.model_class(config.name).factor_dim(config.model)
    return dim

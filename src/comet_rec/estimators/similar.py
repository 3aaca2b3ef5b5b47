"""Similar users and items: the cosine of vectors without their biases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
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

Role = Literal["user", "item"]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def neighbours(run: Run, role: Role, ids: Iterable[Any], k: int) -> Table:
    """Find the k users or items, as `role` says, that are most similar to each of `ids`.

    See `Estimator.similar_items`.
    """
    if not is_whole(k) or k < 1:
        raise InputError(f"k = {k!r}: must be a whole number above 0")
    names = run.interactions.item_ids if role == "item" else run.interactions.user_ids
    indices = known(names, ids, role)
    similar, cosines = nearest(run, role, indices, k)
    row, column = np.nonzero(similar >= 0)
    return Table(
        {
            f"{role}_id": names.external(indices[row]),
            f"similar_{role}_id": names.external(similar[row, column]),
            "similarity": cosines[row, column],
            "rank": column + 1,
        }
    )


def nearest(run: Run, role: Role, indices: Int64, k: int) -> tuple[Int64, Float32]:
    """Indices and cosines of the most similar users or items of each of Q, [Q, k'], best first.

    Each of Q has n − 1 others, so k' is at most n − 1.

    Raises
    ------
    ConfigError
        When the model has no vectors.
    """
    vectors = run.item_vectors if role == "item" else run.user_vectors
    if vectors is None:
        raise ConfigError(
            f"{run.config.name} has no vectors to compare: its scores are not inner products; "
            "use a model with vectors, e.g. comet or mf"
        )
    unit = nnf.normalize(factors(run, vectors, role), dim=1)  # [n, W]
    # Mask row, column: an id is not similar to itself.
    itself = np.arange(len(indices)), indices
    k = min(k, len(unit) - 1)
    similar = np.empty((len(indices), k), dtype=np.int64)
    cosines = np.empty(similar.shape, dtype=np.float32)
    queries = unit[torch.from_numpy(indices)]  # [Q, W]
    for block, top_indices, scores in top_k(queries, unit, k, masked=itself):
        similar[block], cosines[block] = top_indices, scores
    return similar, cosines


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

"""EASE: embarrassingly shallow autoencoders (Steck, WWW 2019)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import lapack
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.config import positive
from comet_rec.data.arrays import Array, indices
from comet_rec.data.interactions import Interactions
from comet_rec.errors import CometWarning, ConfigError
from comet_rec.models.interfaces import FoldIn, NonIterative

MIRRORED = 1024
"""Number of rows or columns of a large matrix that are computed at a time."""


@dataclass(frozen=True, kw_only=True)
class EASEConfig:
    """Settings of EASE.

    Parameters
    ----------
    l2 : float
        λ, the number added to the diagonal of XᵀX.
    memory_gib : float
        Largest memory of the dense matrices, in GiB. An items × items matrix takes 12 bytes per
        cell if float64 fits (up to 23,170 items by default), otherwise 4 (up to 40,132 items). With
        fewer users than items it takes 4 bytes per cell, plus 8 or 4 for each cell of a
        users × users matrix. Blocks of 1,024 columns need some more memory.
    beyond : {"popular", "error"}
        What to do if the matrix of all items does not fit into `memory_gib`. "popular" uses only
        as many of the most popular items as fit, scores all others 0, and gives a `CometWarning`.
        "error" raises a `ConfigError`.
    """

    l2: float = 500.0
    memory_gib: float = 6.0
    beyond: str = "popular"

    def __post_init__(self) -> None:
        positive(self, "model", "l2", "memory_gib")
        if self.beyond not in ("popular", "error"):
            raise ConfigError(f"model.beyond = {self.beyond!r}: must be 'popular' or 'error'")


class EASE(NonIterative, FoldIn):
    """Score x_u B, B = I − P diag(1/P), P = (XᵀX + λI)⁻¹ (Steck 2019, Eq. 8).

    X is the matrix of interactions, users × items, and x_u its row of user u. The weights B are
    stored in float32. With fewer users than items, the matrix over users is inverted instead, by
    Woodbury's identity λP = I − Xᵀ(XXᵀ + λI)⁻¹X.
    """

    def __init__(
        self, config: EASEConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        self.config = config
        self.n_items = n_items
        self.items = np.arange(0)
        self._weights = torch.zeros((0, 0))

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """The weights B of the ranked items, [kept, kept].

        It is a new view of the tensor each time. PyTorch moves a tensor to shared memory when it is
        sent to another process, and frees the memory that an old view still shows.
        """
        view: npt.NDArray[np.float32] = self._weights.numpy()
        return view

    def fit(self, log: Interactions) -> None:
        """Compute the weights B from the training rows in `log`.

        Raises
        ------
        ConfigError
            When the items do not fit into `memory_gib` and `beyond` is "error", or when the matrix
            is singular.
        """
        memory, most = self.config.memory_gib * 2**30, log.n_items
        if memory < 4 * most**2:
            needed = (
                f"EASE needs {4 * log.n_items**2 / 2**30:.1f} GiB for {log.n_items:,} items "
                f"and model.memory_gib = {self.config.memory_gib:g}"
            )
            if self.config.beyond == "error":
                raise ConfigError(f"{needed}; raise memory_gib, or set model.beyond = popular")
            most = int(np.sqrt(memory / 4))
            warnings.warn(
                f"{needed}: all but the {most:,} most popular items score 0; raise "
                "model.memory_gib to rank more items",
                CometWarning,
                stacklevel=2,
            )
        counts = np.bincount(log.items, minlength=log.n_items)
        self.items = np.sort(np.argsort(-counts, kind="stable")[:most])
        x = log.matrix[:, self.items]
        x = x[np.diff(x.indptr) > 0]
        users = len(x.indptr) - 1
        by_users = users < most and memory >= 4 * most**2 + 4 * users**2
        doubles = 4 * most**2 + 8 * users**2 if by_users else 12 * most**2
        dtype = np.float64 if memory >= doubles else np.float32
        solve = _solved_over_users if by_users else _solved_over_items
        weights = solve(x.astype(dtype), self.config.l2)
        if weights is None:
            also = "" if dtype is np.float64 else " or, for float64, a larger model.memory_gib"
            raise ConfigError(
                f"model.l2 = {self.config.l2}: the matrix is singular; give a larger l2{also}"
            )
        np.fill_diagonal(weights, 0)
        self._weights = torch.from_numpy(weights.astype(np.float32, copy=False))

    def score_all(
        self, users: npt.NDArray[np.int64], histories: csr_array
    ) -> npt.NDArray[np.float32]:
        """Scores of all n items, [B, n], from the users' items in `histories` [B, n].

        Items that did not fit into memory score 0.
        """
        scores = np.asarray(histories[:, self.items] @ self.weights, dtype=np.float32)
        if len(self.items) == self.n_items:
            return scores
        all_scores = np.zeros((len(scores), self.n_items), dtype=np.float32)
        all_scores[:, self.items] = scores
        return all_scores

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Contribution B_ji of each item j of a history to the score of item i.

        It is 0 if j or i did not fit into memory.
        """
        place = np.full(self.n_items, -1)
        place[self.items] = np.arange(len(self.items))
        ranked = (place[history] >= 0) & (place[item] >= 0)
        return np.where(ranked, self.weights[place[history], place[item]], 0.0).astype(np.float64)

    @staticmethod
    def arrays(config: EASEConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        items = indices(("kept",), n_items, order="increasing")
        return {"items": items, "weights": Array(shape=("kept", "kept"))}

    def state_dict(self) -> dict[str, Tensor]:
        """The fitted parameters as named tensors."""
        return {"items": torch.from_numpy(self.items), "weights": self._weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.items, self._weights = state["items"].numpy().copy(), state["weights"]


def _solved_over_items(x: csr_array, l2: float) -> npt.NDArray[Any] | None:
    """The weights −P diag(1/P), which equal B except on the diagonal; None for a singular matrix.

    `x` is the matrix X of interactions, users × items.
    """
    inverse = _inverted(_gram(x), l2)
    if inverse is not None:
        inverse /= -np.diag(inverse).copy()
    return inverse


def _solved_over_users(x: csr_array, l2: float) -> npt.NDArray[np.float32] | None:
    """The same result as `_solved_over_items`, by inverting a matrix over users.

    With W = Xᵀ(XXᵀ + λI)⁻¹X, −P_ij / P_jj = W_ij / (1 − W_jj).
    """
    transposed = x.T.tocsr()
    inverse = _inverted(_gram(transposed), l2)
    if inverse is None:
        return None
    n_items = x.shape[1]
    weights = np.empty((n_items, n_items), dtype=np.float32)
    diagonal = np.empty(n_items, dtype=x.dtype)
    for first in range(0, n_items, MIRRORED):
        rows = slice(first, first + MIRRORED)
        columns = transposed @ (transposed[rows] @ inverse).T  # columns of W, which is symmetric
        weights[rows] = columns.T
        diagonal[rows] = np.diag(columns[rows])
    weights /= (1 - diagonal).astype(np.float32)
    return weights


def _gram(x: csr_array) -> npt.NDArray[Any]:
    """Dense XᵀX in column-major order, computed a block of columns at a time."""
    transposed = x.T.tocsr()
    gram = np.empty((x.shape[1], x.shape[1]), dtype=x.dtype, order="F")
    for first in range(0, x.shape[1], MIRRORED):
        columns = slice(first, first + MIRRORED)
        gram[:, columns] = (transposed[columns] @ x).toarray().T
    return gram


def _inverted(gram: npt.NDArray[Any], l2: float) -> npt.NDArray[Any] | None:
    """Inverse of ``gram + λI``, which overwrites `gram`; None for a singular matrix.

    The result is in row-major order. LAPACK expects column-major order and writes only the lower
    triangle. The transpose is a row-major upper triangle, and the loop mirrors it into the lower
    one.
    """
    gram[np.diag_indices_from(gram)] += l2
    double = gram.dtype == np.float64
    factorise = lapack.dpotrf if double else lapack.spotrf
    invert = lapack.dpotri if double else lapack.spotri
    factor, failed = factorise(gram, lower=1, overwrite_a=1)
    if failed:
        return None
    inverse, failed = invert(factor, lower=1, overwrite_c=1)
    if failed:
        return None
    upper: npt.NDArray[Any] = inverse.T
    for first in range(0, len(upper), MIRRORED):
        rows = slice(first, first + MIRRORED)
        corner = upper[rows, rows]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        upper[first + MIRRORED :, rows] = upper[rows, first + MIRRORED :].T
    return upper

"""ItemKNN: cosine similarity between items (Sarwar et al. 2001; Deshpande, Karypis 2004)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.config import not_negative, positive
from comet_rec.data.arrays import Array, indices, starts
from comet_rec.data.interactions import Interactions
from comet_rec.models.interfaces import FoldIn, NonIterative

ROW_BLOCK_BYTES = 256 * 2**20
"""Largest memory of a block of similarities, in bytes, before only the nearest items are kept."""


@dataclass(frozen=True, kw_only=True)
class ItemKNNConfig:
    """Settings of ItemKNN.

    Parameters
    ----------
    neighbours : int
        Number of most similar items that are kept for each item. Among equal similarities, the
        items with lower indices are kept.
    shrink : float
        Number added to the denominator of the cosine. It lowers the similarity of items with few
        common users.
    """

    neighbours: int = 100
    shrink: float = 10.0

    def __post_init__(self) -> None:
        positive(self, "model", "neighbours")
        not_negative(self, "model", "shrink")


class ItemKNN(NonIterative, FoldIn):
    """Score Σ_{j∈N(u)} s_ji, s_ji = c_ji / (√(c_jj c_ii) + shrink).

    c_ji is the number of common users of items j and i. s_ji is 0 unless j is among the nearest
    neighbours of i.
    """

    def __init__(
        self, config: ItemKNNConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        self.config = config
        self.n_items = n_items
        self.similarity: Any = csr_array((n_items, n_items), dtype=np.float32)

    def fit(self, log: Interactions) -> None:
        """Compute the similarities of all items and keep the nearest neighbours of each item."""
        x = log.matrix
        transposed = x.T.tocsr()
        norms = np.sqrt(np.diff(transposed.indptr)).astype(np.float32)
        n, k = log.n_items, min(self.config.neighbours, log.n_items - 1)
        # A similarity takes 12 bytes: a float of 4 and an index of 8. At worst a row has n of them.
        size = max(1, ROW_BLOCK_BYTES // (12 * n))
        rows, columns, values = [], [], []
        for first in range(0, n if k > 0 else 0, size):
            common = transposed[first : first + size] @ x
            common.sort_indices()
            row, column = first + common.tocoo().row, common.indices
            similar = common.data / (norms[row] * norms[column] + self.config.shrink + 1e-12)
            similar[row == column] = 0
            kept = _nearest(similar, common.indptr, k) & (similar > 0)
            rows.append(row[kept])
            columns.append(column[kept])
            values.append(similar[kept])
        if rows:
            place = np.concatenate(columns), np.concatenate(rows)  # transposed: s_ji is in row j
            self.similarity = csr_array((np.concatenate(values), place), shape=(n, n))

    def score_all(
        self, users: npt.NDArray[np.int64], histories: csr_array
    ) -> npt.NDArray[np.float32]:
        """Scores of all n items, [B, n], from the users' items in `histories` [B, n]."""
        return np.asarray((histories @ self.similarity).toarray(), dtype=np.float32)

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Contribution s_ji of each item j of a history to the score of item i."""
        rows = self.similarity[history].toarray()  # [n, I]
        return np.asarray(rows[:, item], dtype=np.float64)

    @staticmethod
    def arrays(config: ItemKNNConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`.

        The tensors are a sparse items × items matrix of similarities in CSR form.
        """
        return {
            "values": Array(shape=("pairs",)),
            "columns": indices(("pairs",), n_items),
            "starts": starts(n_items, "pairs"),
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The fitted parameters as named tensors."""
        s = self.similarity
        return {
            "values": torch.from_numpy(s.data),
            "columns": torch.from_numpy(s.indices.astype(np.int64)),
            "starts": torch.from_numpy(s.indptr.astype(np.int64)),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        # Copies: sending a tensor to another process frees the memory that its views show.
        parts = tuple(state[name].numpy().copy() for name in ("values", "columns", "starts"))
        self.similarity = csr_array(parts, shape=(self.n_items, self.n_items))


def _nearest(
    similar: npt.NDArray[np.float32], starts: npt.NDArray[np.integer], k: int
) -> npt.NDArray[np.bool_]:
    """Whether each similarity is among the k highest of its row; ties go to the first ones."""
    kept = np.ones(len(similar), dtype=np.bool_)
    # `argpartition` alone would choose between equal values differently on different processors.
    for row in np.flatnonzero(np.diff(starts) > k):
        values, chosen = (part[starts[row] : starts[row + 1]] for part in (similar, kept))
        least = np.partition(values, -k)[-k]
        np.greater(values, least, out=chosen)
        chosen[np.flatnonzero(values == least)[: k - chosen.sum()]] = True
    return kept

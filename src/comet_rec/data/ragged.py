"""Ragged rows (CSR): rows of different lengths in one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.interactions import row_places, row_starts

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths, one after the other; row r is ``values[starts[r]:starts[r + 1]]``.

    Parameters
    ----------
    values : int64 [R]
    starts : int64 [n + 1]
        Start of each row in `values`; the last entry is R.
    """

    values: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Tensor:
        """Length of each row, int64 [n]."""
        return self.starts.diff()

    @property
    def rows(self) -> Tensor:
        """Number of the row that each value belongs to, int64 [R]."""
        return torch.arange(len(self), device=self.starts.device).repeat_interleave(self.counts)

    def __getitem__(self, rows: slice | Tensor) -> Ragged:
        """Rows of a slice, or chosen rows [m]; chosen rows need tensors on the CPU."""
        if isinstance(rows, slice):
            starts = self.starts[rows.start : rows.stop + 1]
            return Ragged(self.values[starts[0] : starts[-1]], starts - starts[0])
        # numpy uses one thread here: a background thread makes batches while others compute.
        places, counts = row_places(self.starts.numpy(), rows.numpy())
        return Ragged.of_arrays(self.values.numpy()[places], row_starts(counts))

    def to(self, device: torch.device) -> Ragged:
        """Copy on a device."""
        return Ragged(self.values.to(device), self.starts.to(device))

    @staticmethod
    def of_arrays(values: Int64, starts: Int64) -> Ragged:
        """Ragged rows from values and starts, sharing their memory."""
        return Ragged(torch.from_numpy(values), torch.from_numpy(starts))

    @staticmethod
    def of_rows(rows: list[Int64]) -> Ragged:
        """Ragged rows from a list with one array for each row."""
        values = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        return Ragged.of_arrays(values, row_starts(np.array([len(row) for row in rows], np.int64)))

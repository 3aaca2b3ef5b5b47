"""Whole histories of several owners, one after the other; and beside them cut ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bags:
    """Whole histories of several owners, one after the other.

    Parameters
    ----------
    members : int64 [R]
    starts : int64 [U + 1]
        Where each owner's members begin.
    """

    members: Int64
    starts: Int64

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, owners: Int64) -> Bags:
        """Histories of some of the owners."""
        first = self.starts[owners]
        counts = self.starts[owners + 1] - first
        ends = np.cumsum(counts)
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        members = self.members[np.repeat(first, counts) + within]
        return Bags(members, np.concatenate([[0], ends]).astype(np.int64))

    @staticmethod
    def of(histories: list[Int64]) -> Bags:
        """Bags of histories given one by one."""
        starts = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
        members = np.concatenate([*histories, np.empty(0, np.int64)]).astype(np.int64)
        return Bags(members, starts)

"""Queries: the lists that models make for the held-out items of a split by time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from comet_rec.config import Target
from comet_rec.data.interactions import Int64, Interactions, ranges

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Queries:
    """Lists to make for held-out items: for each list, the user and the user's rows before it.

    Parameters
    ----------
    log : Interactions
        All rows. A user's history is a range of them, because rows are sorted by user and time.
    of_rows : int64 [T]
        Query of each held-out item. Several items of one list share a query.
    users : int64 [Q]
        User of each query, ascending.
    ends : int64 [Q]
        Position in `log` after the last row of the history of each query.
    exists : bool [I]
        Items that had a row before the split. Other items are no candidates and in no history.
    hide_seen : bool
        Whether lists leave out the items of the history.
    """

    log: Interactions
    of_rows: Int64
    users: Int64
    ends: Int64
    exists: Bool
    hide_seen: bool

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: Int64) -> Queries:
        """The queries of some held-out items. All queries keep their numbers."""
        return replace(self, of_rows=self.of_rows[rows])

    @cached_property
    def several(self) -> bool:
        """Whether some query has more than one held-out item."""
        return len(np.unique(self.of_rows)) < len(self.of_rows)

    def histories(self, queries: Int64) -> tuple[Int64, Int64]:
        """Items of the histories of some queries as ragged rows, oldest first.

        Returns
        -------
        rows : int64 [M]
            Position of the query in `queries`, ascending.
        items : int64 [M]
        """
        starts = self.log.user_starts[self.users[queries]]
        places, counts = ranges(starts, self.ends[queries])
        rows = np.repeat(np.arange(len(queries)), counts)
        items = self.log.items[places].astype(np.int64)
        known = self.exists[items]
        return rows[known], items[known]

    def seen(self, queries: Int64) -> tuple[Int64, Int64]:
        """Pairs (position in `queries`, item) that lists leave out; none if seen items are kept.

        Pairs that a filter removed from the log count as seen, as in every ranking.
        """
        if not self.hide_seen:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        rows, items = self.log.with_dropped(*self.histories(queries), self.users[queries])
        known = self.exists[items]
        return rows[known], items[known]


def queries_of(
    log: Interactions, rows: Int64, part: npt.NDArray[np.uint8], code: int, target: Target,
    *, hide_seen: bool,
) -> Queries:  # fmt: skip
    """Queries of the held-out items in these rows of the log.

    Parameters
    ----------
    log : Interactions
    rows : int64 [T]
        Rows of the held-out items, ascending.
    part : uint8 [R]
        Part of each row of the log.
    code : int
        Part of the held-out items. Rows of lower parts come before the split.
    target : str
        For "all", the items of a user share a query whose history ends at the split. Otherwise each
        item has a query, and the history ends before the item.
    hide_seen : bool
    """
    before = part < code
    users = log.users[rows].astype(np.int64)
    ends = rows
    of_rows = np.arange(len(rows))
    if target == "all":
        users, of_rows = np.unique(users, return_inverse=True)
        # Times ascend within a user, so the rows before the split are the first of the user.
        counts = np.bincount(log.users[before], minlength=log.n_users)
        ends = log.user_starts[users] + counts[users]
    return Queries(log, of_rows, users, ends, existing(log, before), hide_seen)


def existing(log: Interactions, rows: Bool) -> Bool:
    """Whether each item has one of the chosen rows, bool [I]."""
    return np.bincount(log.items[rows], minlength=log.n_items) > 0

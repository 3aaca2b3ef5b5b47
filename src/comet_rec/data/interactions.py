"""A log of interactions: pairs of user and item indices with times, and the ids of the indices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from comet_rec import memory
from comet_rec.data.arrays import Array, indices
from comet_rec.data.ids import Ids

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TimeScope = Literal["global", "per_user", "none"]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def not_a_log(data: object, call: str, more: str = "") -> str:
    """Error message for a call that got something else than an `Interactions` object.

    `call` is the function in the message, and `more` is appended to the message.
    """
    return (
        f"{call}: {type(data).__name__} is no log; give what {more}load or read returns, e.g. "
        "read(frame, user=…, item=…)"
    )


def _empty() -> Int32:
    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class Origin:
    """Where the rows of a log came from: columns, and numbers of rows that were left out.

    Parameters
    ----------
    columns : mapping of str to str
        Name of the column of each role that was read: user, item, time, rating, event.
    rows : int
        Number of all rows of the source.
    bad, other_events, low_ratings, repeats, few : int
        Numbers of rows that were left out: bad rows, rows of other events, rows below the rating
        limit, repeated pairs, and rows of users or items with too few interactions.
    first_bad : str
        Place and fault of the first bad row; empty without bad rows.
    """

    columns: Mapping[str, str]
    rows: int
    bad: int = 0
    other_events: int = 0
    low_ratings: int = 0
    repeats: int = 0
    few: int = 0
    first_bad: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """All distinct observed (user, item) pairs (Eq. 1), sorted by user and time.

    Rows with the same user and time keep the order of the file. A repeated pair is kept once, by
    default at its earliest time. Indices follow the order of the sorted ids.

    Parameters
    ----------
    users, items : int32 [R]
        User index and item index of each pair.
    times : int64 [R] or None
        Times in the log's own unit (microseconds for dates and fractions); None without a time
        column.
    time_scope : {"global", "per_user", "none"}
        Whether times are comparable across users, comparable only within a user, or missing.
    user_ids, item_ids : Ids
        The id of each user index and of each item index.
    dropped_users, dropped_items : int32 [D]
        Pairs that a filter removed although their user and item stay in the log. Such pairs are
        never sampled as negatives and never part of histories.
    notes : tuple of str
        Notes for the user from reading the log, one line each: repeated rows, filtered rows,
        skipped rows and more.
    dated : bool
        Whether the times are microseconds since 1970. If not, their unit is unknown.
    zero_users, zero_items : int32 [Z]
        Pairs with a rating of 0, which count as interactions but may be meant as negatives.
    origin : Origin or None
        Columns and numbers of rows of the source; None for a log that was not made by `read`.
    reading : mapping of str to object
        Options that `read` was called with, so that an update reads new rows alike.
    """

    users: Int32
    items: Int32
    times: Int64 | None
    time_scope: TimeScope
    user_ids: Ids
    item_ids: Ids
    dropped_users: Int32 = field(default_factory=_empty)
    dropped_items: Int32 = field(default_factory=_empty)
    notes: tuple[str, ...] = ()
    zero_users: Int32 = field(default_factory=_empty)
    zero_items: Int32 = field(default_factory=_empty)
    dated: bool = False
    origin: Origin | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    @staticmethod
    def declared(n_users: int, n_items: int) -> dict[str, Array]:
        """Expected arrays of a stored log with these numbers of users and items, for checks.

        `users` must ascend, because histories rely on it.
        """
        return {
            "users": indices(("rows",), n_users, dtype="int32", order="ascending"),
            "items": indices(("rows",), n_items, dtype="int32"),
            "times": Array(shape=("rows",), dtype="int64", optional=True),
            "dropped_users": indices(("dropped",), n_users, dtype="int32"),
            "dropped_items": indices(("dropped",), n_items, dtype="int32"),
        }

    @property
    def n_users(self) -> int:
        """Number of users, m."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, n."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        return (
            f"Interactions({len(self):,} of {self.n_users:,} users and {self.n_items:,} items, "
            f"times {self.time_scope})"
        )

    @property
    def density(self) -> float:
        """Share of the m·n user-item pairs that were observed (Table I)."""
        return len(self) / (self.n_users * self.n_items)

    @cached_property
    def user_starts(self) -> Int64:
        """Start of each user's rows in `items` and `times`, int64 [n_users + 1]."""
        return row_starts(np.bincount(self.users, minlength=self.n_users))

    @cached_property
    def matrix(self) -> csr_array:
        """Sparse matrix of the log, float32 [n_users, n_items]: 1 for each observed pair."""
        from scipy.sparse import csr_array  # slow to import, and reading a log does not need it

        order = np.lexsort((self.items, self.users))
        ones = np.ones(len(self), dtype=np.float32)
        shape = self.n_users, self.n_items
        return csr_array((ones, self.items[order].astype(np.int64), self.user_starts), shape=shape)

    def items_of(self, user: int) -> Int64:
        """Items of the user with this index, in the order of the history."""
        return self.items[self.user_starts[user] : self.user_starts[user + 1]].astype(np.int64)

    def interacted_items(self, users: Int64) -> tuple[Int64, Int64]:
        """All items that the given users interacted with, including pairs that a filter removed.

        Returns
        -------
        rows : int64 [M]
            Position of the user in `users`, ascending.
        items : int64 [M]
        """
        return self.with_dropped(*_values_of_rows(self.user_starts, self.items, users), users)

    def with_dropped(self, rows: Int64, items: Int64, users: Int64) -> tuple[Int64, Int64]:
        """Pairs as `interacted_items` returns them, and the pairs of `users` that a filter removed.

        `rows` and `items` are pairs without the removed ones.
        """
        if len(self.dropped_users) > 0:
            more = _values_of_rows(*self._dropped, users)
            rows, items = (np.concatenate(pair) for pair in zip((rows, items), more, strict=True))
            order = np.argsort(rows, kind="stable")
            rows, items = rows[order], items[order]
        return rows, items

    @cached_property
    def _dropped(self) -> tuple[Int64, Int32]:
        """The removed pairs by user: start of each user's items, and the items."""
        order = np.argsort(self.dropped_users, kind="stable")
        starts = row_starts(np.bincount(self.dropped_users, minlength=self.n_users))
        return starts, self.dropped_items[order]

    def select(self, rows: npt.NDArray[np.bool_]) -> Interactions:
        """Log with only the rows where `rows` is true; users and items keep their indices and ids.

        Parameters
        ----------
        rows : bool [R]
            Rows to keep.
        """
        times = None if self.times is None else memory.kept(self.times[rows])
        users, items = memory.kept(self.users[rows]), memory.kept(self.items[rows])
        return replace(self, users=users, items=items, times=times)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ids, the pairs and the times, in order."""
        state = hashlib.sha256()
        for part in (self.user_ids.digest, self.item_ids.digest, self.time_scope):
            state.update(part.encode())
        for array in (self.users, self.items, self.dropped_users, self.dropped_items):
            state.update(np.ascontiguousarray(array, dtype=np.int32).tobytes())
        if self.times is not None:
            state.update(np.ascontiguousarray(self.times, dtype=np.int64).tobytes())
        return state.hexdigest()


def row_starts(counts: npt.NDArray[np.integer]) -> Int64:
    """Start of each ragged row, from the row lengths `counts`; int64 [n + 1].

    Row r of n rows holds the values from ``starts[r]`` up to, but not including, ``starts[r + 1]``.
    """
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def row_places(starts: Int64, rows: Int64) -> tuple[Int64, Int64]:
    """Positions of all values of the chosen ragged rows, in the order of `rows`, and row lengths.

    Row r holds the positions from ``starts[r]`` to ``starts[r + 1] − 1``.
    """
    return ranges(starts[rows], starts[rows + 1])


def ranges(first: Int64, end: Int64) -> tuple[Int64, Int64]:
    """The integers from ``first[r]`` to ``end[r] − 1`` for each r, one after another, and counts.

    There is no loop over r. For counts 2 and 3, the positions within the ranges are 0 1 0 1 2. They
    are the numbers 0 1 2 3 4 minus the begin of each range, 0 0 2 2 2.
    """
    counts = end - first
    begins = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(begins, counts)
    return np.repeat(first, counts) + within, counts


def _values_of_rows(starts: Int64, values: Int32, rows: Int64) -> tuple[Int64, Int64]:
    """For each value in the chosen ragged rows: the row's position in `rows`, and the value."""
    places, counts = row_places(starts, rows)
    return np.repeat(np.arange(len(rows)), counts), values[places].astype(np.int64)

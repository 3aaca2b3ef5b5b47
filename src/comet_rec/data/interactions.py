"""The log inside the library: index arrays, the ids behind them, and what its times mean."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.arrays import Array, indices
from comet_rec.data.ids import Ids

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TimeScope = Literal["global", "per_user", "none"]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def not_a_log(data: object, call: str, more: str = "") -> str:
    """Message of a call that was given something other than a log."""
    given = f"{call}: {type(data).__name__} is no log"
    return f"{given}; give what {more}load or read returns, e.g. read(frame, user=…, item=…)"


def _empty() -> Int32:
    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Every (user, item) pair that was observed once (Eq. 1), in canonical order.

    Rows are sorted by user, then time, then place in the file; a pair that the log repeats
    stands once, at its earliest time. Indices follow the order of sorted ids, so the order of
    rows in a file changes nothing but the order of equal times of one user.

    Parameters
    ----------
    users, items : int32 [R]
        Indices of the pair.
    times : int64 [R] or None
        In the log's own unit (microseconds for dates and fractions); None without a time column.
    time_scope : {"global", "per_user", "none"}
        Whether times compare across users, within one user only, or do not exist.
    user_ids, item_ids : Ids
        The ids behind the indices.
    dropped_users, dropped_items : int32 [D]
        Pairs of kept users and items that a filter removed: never negatives, never shown.
    notes : tuple of str
        Notes of the reader, a line each (repeated rows, filtered rows, skipped rows, …).
    dated : bool
        Whether times are microseconds since 1970 (dates), and not numbers of an unknown unit.
    zero_users, zero_items : int32 [Z]
        Pairs with a rating of 0 that count as interactions: perhaps negatives by mistake.
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

    def __len__(self) -> int:
        return len(self.users)

    @staticmethod
    def declared(n_users: int, n_items: int) -> dict[str, Array]:
        """Declare the stored arrays; users are sorted, since histories are found by their order."""
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
        """Share of the m·n cells that were observed (Table I)."""
        return len(self) / (self.n_users * self.n_items)

    @cached_property
    def user_starts(self) -> Int64:
        """Where each user's rows begin, int64 [n_users + 1]."""
        counts = np.bincount(self.users, minlength=self.n_users)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def matrix(self) -> csr_array:
        """Ones where a pair was observed, sparse float32 [n_users, n_items]."""
        from scipy.sparse import csr_array  # half a second that reading a log need not wait for

        order = np.lexsort((self.items, self.users))
        ones = np.ones(len(self), dtype=np.float32)
        shape = self.n_users, self.n_items
        return csr_array((ones, self.items[order].astype(np.int64), self.user_starts), shape=shape)

    def touched(self, users: Int64) -> tuple[Int64, Int64]:
        """All that these users touched, rows that a filter dropped included, without a loop.

        Returns
        -------
        rows, items : int64 [M]
            Place in `users`, ascending, and item.
        """
        rows, items = _of_owners(self.user_starts, self.items, users)
        if len(self.dropped_users) > 0:
            more = _of_owners(*self._dropped, users)
            rows, items = (np.concatenate(pair) for pair in zip((rows, items), more, strict=True))
            order = np.argsort(rows, kind="stable")
            rows, items = rows[order], items[order]
        return rows, items

    @cached_property
    def _dropped(self) -> tuple[Int64, Int32]:
        """Where each user's dropped rows begin, and their items."""
        order = np.argsort(self.dropped_users, kind="stable")
        counts = np.bincount(self.dropped_users, minlength=self.n_users)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return starts, self.dropped_items[order]

    def select(self, rows: npt.NDArray[np.bool_]) -> Interactions:
        """Keep some rows, and all ids.

        Parameters
        ----------
        rows : bool [R]
            Rows to keep.
        """
        times = None if self.times is None else self.times[rows]
        return replace(self, users=self.users[rows], items=self.items[rows], times=times)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ids and all rows in canonical order, times included."""
        state = hashlib.sha256()
        for part in (self.user_ids.digest, self.item_ids.digest, self.time_scope):
            state.update(part.encode())
        for array in (self.users, self.items, self.dropped_users, self.dropped_items):
            state.update(np.ascontiguousarray(array, dtype=np.int32).tobytes())
        if self.times is not None:
            state.update(np.ascontiguousarray(self.times, dtype=np.int64).tobytes())
        return state.hexdigest()


def _of_owners(starts: Int64, members: Int32, owners: Int64) -> tuple[Int64, Int64]:
    """Place in `owners` and member of each row that stands between an owner's starts."""
    first = starts[owners]
    counts = starts[owners + 1] - first
    rows = np.repeat(np.arange(len(owners)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, members[np.repeat(first, counts) + within].astype(np.int64)

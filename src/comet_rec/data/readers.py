"""Any log, file or frame, to `Interactions`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt

from comet_rec.data.columns import ROLES, Role
from comet_rec.data.database import connect, one_line
from comet_rec.data.ids import IdKind, Ids
from comet_rec.data.interactions import Interactions, TimeScope
from comet_rec.data.loading import load
from comet_rec.data.pairs import Pairs, WideCandidates, is_wide, read_pairs, read_wide_candidates
from comet_rec.data.sources import Source, open_source
from comet_rec.data.staging import Kinds
from comet_rec.errors import DataError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
__all__ = ["Pairs", "WideCandidates", "is_wide", "read", "read_pairs", "read_wide_candidates"]

Bools = npt.NDArray[np.bool_]


def read(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    min_rating: float | None = None,
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    skip_bad: int = 0,
    time_scope: Literal["auto", "global", "per_user", "none"] = "auto",
    threads: int | None = None,
) -> Interactions:
    """Read a log.

    Parameters
    ----------
    source : path, DataFrame, Arrow table or sparse matrix
        A file (CSV with `,` `;` or `|`, TSV, `::`, NDJSON or Parquet; text plain, gzip or zstd;
        told by content), a pandas or polars DataFrame, anything with an Arrow stream, or a scipy
        sparse matrix of users × items whose stored non-zeros are the ratings.
    user, item, time, rating : str, optional
        Column names; common names are recognised when not given. Columns of a file without a
        header row are named "1", "2", …
    min_rating : float, optional
        Rows rated lower are dropped; their pairs are kept apart as `dropped_users` and
        `dropped_items`.
    min_user_interactions, min_item_interactions : int
        Users (items) with fewer distinct pairs are dropped, until both limits hold.
    skip_bad : int
        Number of bad rows that may be skipped.
    time_scope : {"auto", "global", "per_user", "none"}
        Whether times compare across users. "auto": per user when every user's times are just the
        positions 0…n−1 (or 1…n) of the rows, else global. "none" ignores the time column.
    threads : int, optional
        Number of threads; all cores when not given.

    Returns
    -------
    Interactions
        In canonical order; integer times as they are, dates and fractions in microseconds.

    Raises
    ------
    DataError
        When the log cannot be read as asked; one line that says where and what to do.
    """
    asked: dict[Role, str | None] = {"user": user, "item": item, "time": time, "rating": rating}
    if time_scope not in ("auto", "global", "per_user", "none"):
        raise DataError(f"time_scope is {time_scope!r}; give auto, global, per_user or none")
    if min_rating is not None and not math.isfinite(min_rating):
        raise DataError(f"min_rating is {min_rating}; give a number")
    with connect(threads) as con:
        opened = open_source(con, source, asked)
        roles = _roles(opened, min_rating, time_scope)
        try:
            kinds, notes = load(con, opened, roles, skip_bad)
            log = _Log(con, opened, kinds, "time" in roles, min_rating)
            read_in = log.interactions(time_scope, notes)
        except duckdb.Error as error:
            raise DataError(f"{opened.name}: cannot be read: {one_line(error)}") from error
    kept = _cored(read_in, min_user_interactions, min_item_interactions)
    if len(kept) == 0:
        raise DataError(f"{opened.name}: no interaction is left after the filters; lower them")
    return kept


def _roles(source: Source, min_rating: float | None, time_scope: str) -> tuple[Role, ...]:
    """The columns that the call needs."""
    if min_rating is not None and "rating" not in source.labels:
        raise DataError(
            f"{source.name}: has no rating column for min_rating; name it with --rating"
        )
    if time_scope in ("global", "per_user") and "time" not in source.labels:
        raise DataError(
            f"{source.name}: has no time column for {time_scope} times; name it with --time"
        )
    unused = {"rating": min_rating is None, "time": time_scope == "none"}
    return tuple(r for r in ROLES if r in source.labels and not unused.get(r, False))


@dataclass(frozen=True)
class _Log:
    """The table `log` of one connection, and how to turn it into arrays."""

    con: duckdb.DuckDBPyConnection
    source: Source
    kinds: Kinds
    timed: bool
    min_rating: float | None

    def interactions(self, time_scope: str, notes: list[str]) -> Interactions:
        kept = "" if self.min_rating is None else f"WHERE r >= {float(self.min_rating)!r}::DOUBLE"
        user_ids = self._ids("u", self.kinds.user, kept)
        item_ids = self._ids("i", self.kinds.item, kept)
        scope = self._scope(time_scope, notes)
        dropped = self._dropped(notes)
        time = ", log.t" if self.timed else ""
        fetched = self.con.execute(
            f"SELECT ids_u.rowid::INTEGER AS user, ids_i.rowid::INTEGER AS item{time} "
            f"FROM log JOIN ids_u USING (u) JOIN ids_i USING (i) {kept} "
            f"ORDER BY ids_u.rowid::INTEGER{time}, log.rowid"
        ).fetchnumpy()
        users, items = _plain(fetched["user"]), _plain(fetched["item"])
        times = _plain(fetched["t"]) if self.timed else None
        first = _first_of_pair(users, items, len(item_ids))
        if first is not None:
            notes.append(f"{len(users) - int(first.sum())} repeated (user, item) rows removed")
            users, items = users[first], items[first]
            times = None if times is None else times[first]
        dropped_users, dropped_items = _without(dropped, users, items, len(item_ids))
        return Interactions(
            users, items, times, scope, user_ids, item_ids, dropped_users, dropped_items,
            tuple(notes),
        )  # fmt: skip

    def _ids(self, letter: str, kind: IdKind, kept: str) -> Ids:
        """The distinct ids of one side; fill the table whose rowid is their index."""
        order = f"{letter}::VARCHAR" if kind == "uuid" else letter
        self.con.execute(
            f"CREATE TEMP TABLE ids_{letter} AS "
            f"SELECT {letter} FROM (SELECT DISTINCT {letter} FROM log {kept}) ORDER BY {order}"
        )
        values = self.con.execute(
            f"SELECT {order} AS id FROM ids_{letter} ORDER BY rowid"
        ).fetchnumpy()["id"]
        if kind == "text" and self._holds_nul(letter):
            raise DataError(f"{self.source.name}: an id holds a NUL byte; is it a text file?")
        if kind == "int":
            return Ids(kind, _plain(values))
        return Ids(kind, np.asarray(values, dtype=object))

    def _holds_nul(self, letter: str) -> bool:
        query = f"SELECT count(*) FROM ids_{letter} WHERE contains({letter}, chr(0))"
        return bool(self.con.execute(query).fetchall()[0][0])

    def _scope(self, asked: str, notes: list[str]) -> TimeScope:
        if not self.timed:
            if asked == "auto":
                notes.append("no time column: rows count in the order of the file")
            return "none"
        if asked == "global":
            return "global"
        if asked == "per_user":
            return "per_user"
        low, high, rows = self.con.execute("SELECT min(t), max(t), count(*) FROM log").fetchall()[0]
        # Cheap to rule out: positions start at 0 or 1 and no user has more rows than the log.
        if low not in (0, 1) or high > rows:
            return "global"
        positions = self.con.execute(
            f"SELECT bool_and(low = {low} AND high = {low} + n - 1 AND d = n) FROM (SELECT "
            "min(t) AS low, max(t) AS high, count(*) AS n, count(DISTINCT t) AS d "
            "FROM log GROUP BY u)"
        ).fetchall()[0][0]
        if not positions:
            return "global"
        notes.append("times are positions within each user and do not compare between users")
        return "per_user"

    def _dropped(self, notes: list[str]) -> tuple[Int32, Int32]:
        """Distinct pairs of known ids that the rating filter drops, sorted."""
        empty = np.empty(0, dtype=np.int32)
        if self.min_rating is None:
            return empty, empty
        low = f"r < {float(self.min_rating)!r}::DOUBLE"
        count = self.con.execute(f"SELECT count(*) FROM log WHERE {low}").fetchall()[0][0]
        notes.append(f"{count} rows rated below {self.min_rating:g} removed")
        fetched = self.con.execute(
            "SELECT DISTINCT ids_u.rowid::INTEGER AS user, ids_i.rowid::INTEGER AS item FROM log "
            f"JOIN ids_u USING (u) JOIN ids_i USING (i) WHERE {low} ORDER BY 1, 2"
        ).fetchnumpy()
        return _plain(fetched["user"]), _plain(fetched["item"])


def _plain(array: Any) -> npt.NDArray[Any]:
    """A result column without its mask."""
    return np.ma.getdata(array)


def _keys(users: Int32, items: Int32, n_items: int) -> Int64:
    return users.astype(np.int64) * n_items + items


def _first_of_pair(users: Int32, items: Int32, n_items: int) -> Bools | None:
    """True at the first row of each pair; None when no pair is repeated."""
    keys = _keys(users, items, n_items)
    ordered = np.sort(keys)
    if not bool(np.any(ordered[1:] == ordered[:-1])):
        return None
    first = np.zeros(len(keys), dtype=np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def _without(
    pairs: tuple[Int32, Int32], users: Int32, items: Int32, n_items: int
) -> tuple[Int32, Int32]:
    """Those of some pairs that are not among others."""
    if len(pairs[0]) == 0:
        return pairs
    new = ~np.isin(_keys(*pairs, n_items), _keys(users, items, n_items))
    return pairs[0][new], pairs[1][new]


def _cored(log: Interactions, min_user: int, min_item: int) -> Interactions:
    """Drop users and items with too few pairs, until none is left."""
    keep = np.ones(len(log), dtype=np.bool_)
    while True:
        rare_users = np.bincount(log.users[keep], minlength=log.n_users) < min_user
        rare_items = np.bincount(log.items[keep], minlength=log.n_items) < min_item
        fewer = keep & ~rare_users[log.users] & ~rare_items[log.items]
        if bool(np.array_equal(fewer, keep)):
            break
        keep = fewer
    if bool(keep.all()):
        return log
    users, user_ids, new_user = _reindexed(log.users[keep], log.user_ids)
    items, item_ids, new_item = _reindexed(log.items[keep], log.item_ids)
    dropped_users, dropped_items = new_user[log.dropped_users], new_item[log.dropped_items]
    both = (dropped_users >= 0) & (dropped_items >= 0)
    note = (
        f"{log.n_users - len(user_ids)} users and {log.n_items - len(item_ids)} items with too "
        f"few interactions removed, with {int((~keep).sum())} interactions"
    )
    return replace(
        log,
        users=users,
        items=items,
        times=None if log.times is None else log.times[keep],
        user_ids=user_ids,
        item_ids=item_ids,
        dropped_users=dropped_users[both],
        dropped_items=dropped_items[both],
        notes=(*log.notes, note),
    )


def _reindexed(indices: Int32, ids: Ids) -> tuple[Int32, Ids, Int32]:
    """Indices over the ids that occur, those ids, and old index → new index or −1."""
    used = np.bincount(indices, minlength=len(ids)) > 0
    new = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return new[indices], Ids(ids.kind, ids.values[used]), new

"""From the table `log(u, i, t, r)` to index arrays in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from comet_rec.data.ids import IdKind, Ids
from comet_rec.data.interactions import Int32, Int64, Interactions, TimeScope
from comet_rec.data.staging import Kinds
from comet_rec.errors import DataError

BLOCK_ROWS = 4_000_000


@dataclass(frozen=True)
class LogTable:
    """The good rows of one log in a database; `interactions` consumes them."""

    con: duckdb.DuckDBPyConnection
    name: str
    kinds: Kinds
    timed: bool
    min_rating: float | None

    def interactions(self, time_scope: str, notes: list[str]) -> Interactions:
        """Index arrays in canonical order; `notes` grows by what was done.

        Raises
        ------
        DataError
            When no row passes the rating filter, or an id holds a NUL byte.
        """
        user_ids = self._ids("u", self.kinds.user)
        item_ids = self._ids("i", self.kinds.item)
        scope = self._scope(time_scope, notes)
        dropped = self._dropped(notes)
        time = ", t" if self.timed else ""
        # With int32 indices and without the text, sorting needs a fraction of the memory.
        self.con.execute(
            "CREATE TEMP TABLE coded AS SELECT ids_u.rowid::INTEGER AS u, "
            f"ids_i.rowid::INTEGER AS i{time}, log.rowid::UINTEGER AS n FROM log "
            f"JOIN ids_u USING (u) JOIN ids_i USING (i) {self._kept}"
        )
        self.con.execute("DROP TABLE log")
        users, items, times = self._sorted(len(user_ids), len(item_ids), notes)
        dropped_users, dropped_items = _without(dropped, users, items, len(item_ids))
        return Interactions(
            users, items, times, scope, user_ids, item_ids, dropped_users, dropped_items,
            tuple(notes),
        )  # fmt: skip

    @property
    def _kept(self) -> str:
        return "" if self.min_rating is None else f"WHERE r >= {float(self.min_rating)!r}::DOUBLE"

    def _ids(self, letter: str, kind: IdKind) -> Ids:
        """The distinct ids of one side; fill the table whose rowid is their index."""
        order = f"{letter}::VARCHAR" if kind == "uuid" else letter
        self.con.execute(
            f"CREATE TEMP TABLE ids_{letter} AS SELECT {letter} "
            f"FROM (SELECT DISTINCT {letter} FROM log {self._kept}) ORDER BY {order}"
        )
        query = f"SELECT {order} AS id FROM ids_{letter} ORDER BY rowid"
        values = _plain(self.con.execute(query).fetchnumpy()["id"])
        if len(values) == 0:
            raise DataError(f"{self.name}: no interaction is left after the filters; lower them")
        if kind == "int":
            return Ids(kind, values)
        if kind == "text" and any("\0" in value for value in values):
            raise DataError(f"{self.name}: holds NUL bytes in an id; is it a text file?")
        return Ids(kind, values.astype(object))

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
        # Cheap to rule out: positions begin at 0 or 1 and no user has more rows than the log.
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

    def _sorted(
        self, n_users: int, n_items: int, notes: list[str]
    ) -> tuple[Int32, Int32, Int64 | None]:
        """The rows by user, time and place, repeats removed; block by block of users."""
        fetched = self.con.execute(
            "SELECT u, count(*) AS n FROM coded GROUP BY u ORDER BY u"
        ).fetchnumpy()
        ends = np.cumsum(_plain(fetched["n"]))
        rows = int(ends[-1])
        users, items = np.empty(rows, dtype=np.int32), np.empty(rows, dtype=np.int32)
        times = np.empty(rows, dtype=np.int64) if self.timed else None
        time = ", t" if self.timed else ""
        filled = first = 0
        while first < n_users:
            begin = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, begin + BLOCK_ROWS, side="right")))
            block = self.con.execute(
                f"SELECT u, i{time} FROM coded WHERE u >= {first} AND u < {last} "
                f"ORDER BY u{time}, n"
            ).fetchnumpy()
            kept = _first_of_pair(_plain(block["u"]), _plain(block["i"]), n_items)
            here = slice(filled, filled + int(np.count_nonzero(kept)))
            users[here], items[here] = _plain(block["u"])[kept], _plain(block["i"])[kept]
            if times is not None:
                times[here] = _plain(block["t"])[kept]
            filled, first = here.stop, last
        if filled < rows:
            notes.append(f"{rows - filled} repeated (user, item) rows removed")
            # A view would hold the memory of the removed rows.
            users, items = users[:filled].copy(), items[:filled].copy()
            times = None if times is None else times[:filled].copy()
        return users, items, times


def _plain(array: Any) -> npt.NDArray[Any]:
    """A result column without its mask."""
    return np.ma.getdata(array)


def _keys(users: Int32, items: Int32, n_items: int) -> Int64:
    return users.astype(np.int64) * n_items + items


def _first_of_pair(users: Int32, items: Int32, n_items: int) -> npt.NDArray[np.bool_]:
    """True at the first row of each pair, bool [R]."""
    keys = _keys(users, items, n_items)
    order = np.argsort(keys, kind="stable")  # merges the users' runs: faster than quicksort here
    ordered = keys[order]
    first = np.ones(len(keys), dtype=np.bool_)
    first[order[1:][ordered[1:] == ordered[:-1]]] = False
    return first


def _without(
    pairs: tuple[Int32, Int32], users: Int32, items: Int32, n_items: int
) -> tuple[Int32, Int32]:
    """Those of some pairs that are not among others."""
    if len(pairs[0]) == 0:
        return pairs
    new = ~np.isin(_keys(*pairs, n_items), _keys(users, items, n_items))
    return pairs[0][new], pairs[1][new]

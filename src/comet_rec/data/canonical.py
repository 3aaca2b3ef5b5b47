"""From the table `log(u, i, t, r)` to index arrays in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from comet_rec.data.ids import IdKind, Ids
from comet_rec.data.interactions import Int32, Int64, Interactions, TimeScope
from comet_rec.data.ordering import Rows
from comet_rec.data.staging import Kinds
from comet_rec.errors import DataError

CHUNK_ROWS = 2_000_000


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
        user_ids, counts = self._ids("u", self.kinds.user)
        item_ids, _ = self._ids("i", self.kinds.item)
        span = self._span()
        scope = self._scope(time_scope, span, notes)
        dropped = self._dropped(notes)
        users, items, times = self._ordered(counts, len(item_ids), span, notes)
        dropped_users, dropped_items = _without(dropped, users, items, len(item_ids))
        return Interactions(
            users, items, times, scope, user_ids, item_ids, dropped_users, dropped_items,
            tuple(notes),
        )  # fmt: skip

    @property
    def _kept(self) -> str:
        return "" if self.min_rating is None else f"WHERE r >= {float(self.min_rating)!r}::DOUBLE"

    def _ids(self, letter: str, kind: IdKind) -> tuple[Ids, Int64]:
        """The ids of one side, and the rows of each; fill the table whose rowid is their index."""
        order = f"{letter}::VARCHAR" if kind == "uuid" else letter
        self.con.execute(
            f"CREATE TEMP TABLE ids_{letter} AS SELECT {letter}, n FROM (SELECT {letter}, "
            f"count(*) AS n FROM log {self._kept} GROUP BY {letter}) ORDER BY {order}"
        )
        query = f"SELECT {order} AS id, n FROM ids_{letter} ORDER BY rowid"
        fetched = self.con.execute(query).fetchnumpy()
        values, counts = _plain(fetched["id"]), _plain(fetched["n"])
        if len(values) == 0:
            raise DataError(f"{self.name}: no interaction is left after the filters; lower them")
        if kind == "int":
            return Ids(kind, values), counts
        if kind == "text" and any("\0" in value for value in values):
            raise DataError(f"{self.name}: holds NUL bytes in an id; is it a text file?")
        return Ids(kind, values.astype(object)), counts

    def _span(self) -> tuple[int, int] | None:
        """The first and the last time; None without times."""
        if not self.timed:
            return None
        low, high = self.con.execute("SELECT min(t), max(t) FROM log").fetchall()[0]
        return int(low), int(high)

    def _scope(self, asked: str, span: tuple[int, int] | None, notes: list[str]) -> TimeScope:
        if span is None:
            if asked == "auto":
                notes.append("no time column: rows count in the order of the file")
            return "none"
        if asked == "global":
            return "global"
        if asked == "per_user":
            return "per_user"
        low, high = span
        rows = self.con.execute("SELECT count(*) FROM log").fetchall()[0][0]
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

    def _ordered(
        self, counts: Int64, n_items: int, span: tuple[int, int] | None, notes: list[str]
    ) -> tuple[Int32, Int32, Int64 | None]:
        """The rows by user, time and place, repeats removed; `log` is used up."""
        # Half the memory wherever the times allow, and they nearly always do.
        short = span is not None and span[1] - span[0] < 1 << 32
        time = "" if span is None else f", (t - {span[0]})::UINTEGER AS t" if short else ", t"
        # Codes need a fraction of the memory that the text needs, so `log` goes before the rest.
        self.con.execute(
            "CREATE TEMP TABLE coded AS SELECT ids_u.rowid::INTEGER AS u, "
            f"ids_i.rowid::INTEGER AS i{time}, log.rowid::UINTEGER AS n FROM log "
            f"JOIN ids_u USING (u) JOIN ids_i USING (i) {self._kept}"
        )
        self.con.execute("DROP TABLE log")
        clock = None if span is None else np.uint32 if short else np.int64
        rows, total = Rows(counts, n_items, clock), int(counts.sum())
        for begin in range(0, total, CHUNK_ROWS):
            chunk = self.con.execute(
                f"FROM coded WHERE rowid >= {begin} AND rowid < {begin + CHUNK_ROWS}"
            ).fetchnumpy()
            rows.add({name: _plain(column) for name, column in chunk.items()})
        self.con.execute("DROP TABLE coded")
        threads = self.con.execute("SELECT current_setting('threads')").fetchall()[0][0]
        users, items, since = rows.ordered(int(threads))
        if len(users) < total:
            notes.append(f"{total - len(users)} repeated (user, item) rows removed")
        if span is None or since is None:
            return users, items, None
        return users, items, since.astype(np.int64) + span[0] if short else since


def _plain(array: Any) -> npt.NDArray[Any]:
    """A result column without its mask."""
    return np.ma.getdata(array)


def _keys(users: Int32, items: Int32, n_items: int) -> Int64:
    return users.astype(np.int64) * n_items + items


def _without(
    pairs: tuple[Int32, Int32], users: Int32, items: Int32, n_items: int
) -> tuple[Int32, Int32]:
    """Those of some pairs that are not among others."""
    if len(pairs[0]) == 0:
        return pairs
    new = ~np.isin(_keys(*pairs, n_items), _keys(users, items, n_items))
    return pairs[0][new], pairs[1][new]

"""From the table `log(u, i, t, r)` to index arrays in canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from comet_rec.data.ids import IdKind, Ids
from comet_rec.data.interactions import Int32, Int64, Interactions, TimeScope
from comet_rec.errors import DataError
from comet_rec.reading.ordering import Rows
from comet_rec.reading.sources import Source
from comet_rec.reading.staging import HASH, Kinds, hashes

CHUNK_ROWS = 1_000_000
MISSING = ("<NA>", "NA", "NULL", "NaN", "None", "\\N", "nan", "null")
"""What exports write where there is no id."""


class HashError(Exception):
    """The hashes of a log are not those of its texts, one for one."""


@dataclass(frozen=True)
class LogTable:
    """The good rows of one log in a database; `interactions` consumes them.

    Parameters
    ----------
    timed : bool
        Whether `log` has times.
    min_rating : float or None
        Rows rated lower are left out.
    hashed : bool
        Whether `log` holds hashes in place of the text ids that `hashes` names.
    """

    con: duckdb.DuckDBPyConnection
    source: Source
    kinds: Kinds
    timed: bool
    min_rating: float | None
    hashed: bool

    def interactions(self, time_scope: str, notes: list[str]) -> Interactions:
        """Index arrays in canonical order; `notes` grows by what was done.

        Raises
        ------
        DataError
            When no row passes the rating filter, or an id holds a NUL byte.
        HashError
            When two ids have one hash (or the file changes): read the log without hashes.
        """
        self._texts()
        user_ids, counts = self._ids("u", self.kinds.user)
        item_ids, item_counts = self._ids("i", self.kinds.item)
        notes += _named_missing("user", user_ids, counts)
        notes += _named_missing("item", item_ids, item_counts)
        span = self._span()
        scope = self._scope(time_scope, span, notes)
        dropped = self._dropped(notes)
        users, items, times = self._ordered(counts, len(item_ids), span, notes)
        dropped_users, dropped_items = _without(dropped, users, items, len(item_ids))
        return Interactions(
            users, items, times, scope, user_ids, item_ids, dropped_users, dropped_items,
            tuple(notes),
        )  # fmt: skip

    def _count(self, query: str) -> int:
        return int(self.con.execute(query).fetchall()[0][0])

    @property
    def _texts_of(self) -> dict[str, str]:
        """SQL for the text behind every hash in `log`, by letter."""
        return hashes(self.source, self.kinds) if self.hashed else {}

    @property
    def _holds_text(self) -> bool:
        return (self.kinds.user, self.kinds.item).count("text") > len(self._texts_of)

    @property
    def _kept(self) -> str:
        return "" if self.min_rating is None else f"WHERE r >= {float(self.min_rating)!r}::DOUBLE"

    def _texts(self) -> None:
        """Fill `texts(u, i)`: the distinct text ids of the source behind the hashes in `log`."""
        texts = self._texts_of
        if not texts:
            return
        # A text file is parsed once for both; of Parquet each column is read alone.
        scans = [list(texts)] if self.source.lines else [[letter] for letter in texts]
        found = []
        for letters in scans:
            rows = ", ".join(f"{texts[letter]} AS {letter}" for letter in letters)
            sets = ", ".join(f"({letter})" for letter in letters)
            found.append(
                f"SELECT {', '.join(letters)} FROM (SELECT {rows} FROM {self.source.sql()}) "
                f"GROUP BY GROUPING SETS ({sets})"
            )
        self.con.execute(f"CREATE TEMP TABLE texts AS {' UNION ALL BY NAME '.join(found)}")

    def _ids(self, letter: str, kind: IdKind) -> tuple[Ids, Int64]:
        """The ids of one side, and the rows of each; fill the table whose rowid is their index."""
        groups = f"(SELECT {letter}, count(*) AS n FROM log {self._kept} GROUP BY {letter})"
        text = letter
        if letter in self._texts_of:
            text = "text"
            groups = (
                f"(SELECT g.{letter}, g.n, texts.{letter} AS text FROM {groups} AS g "
                f"LEFT JOIN texts ON g.{letter} = {HASH.format(f'texts.{letter}')})"
            )
        order = f"{text}::VARCHAR" if kind == "uuid" else text
        self.con.execute(f"CREATE TEMP TABLE ids_{letter} AS FROM {groups} ORDER BY {order}")
        query = f"SELECT {order} AS id, n FROM ids_{letter} ORDER BY rowid"
        fetched = self.con.execute(query).fetchnumpy()
        values, counts = _plain(fetched["id"]), _plain(fetched["n"])
        if len(values) == 0:
            raise DataError(
                f"{self.source.name}: no interaction is left after the filters; lower them"
            )
        if text != letter:
            query = f"SELECT count({text}), count(DISTINCT {letter}) FROM ids_{letter}"
            if self.con.execute(query).fetchall()[0] != (len(values), len(values)):
                raise HashError
        if kind == "int":
            return Ids(kind, values), counts
        if kind == "text" and any("\0" in value for value in values):
            raise DataError(f"{self.source.name}: holds NUL bytes in an id; is it a text file?")
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
        rows = self._count("SELECT count(*) FROM log")
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
        count = self._count(f"SELECT count(*) FROM log WHERE {low}")
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
        coded = (
            "SELECT ids_u.rowid::INTEGER AS u, "
            f"ids_i.rowid::INTEGER AS i{time}, log.rowid::UINTEGER AS n FROM log "
            f"JOIN ids_u USING (u) JOIN ids_i USING (i) {self._kept}"
        )
        place, last = "log.rowid", self._count("SELECT max(rowid) FROM log") + 1
        and_, total = "AND" if self._kept else "WHERE", int(counts.sum())
        if self._holds_text:  # codes need a fraction of its memory, so it goes before the rest
            self.con.execute(f"CREATE TEMP TABLE coded AS {coded}")
            self.con.execute("DROP TABLE log")
            coded, place, and_ = "FROM coded", "n", "WHERE"
        clock = None if span is None else np.uint32 if short else np.int64
        rows = Rows(counts, n_items, clock)
        # Every chunk makes the joins' tables anew: not more often than rows make up for it.
        size = max(CHUNK_ROWS, len(counts), n_items)
        for begin in range(0, last, size):
            chunk = self.con.execute(
                f"{coded} {and_} {place} >= {begin} AND {place} < {begin + size}"
            ).fetchnumpy()
            rows.add({name: _plain(column) for name, column in chunk.items()})
        self.con.execute("DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS coded")
        # DuckDB's allocator gives memory back to the system when a limit is set, not before.
        limit = self.con.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
        self.con.execute(f"SET memory_limit = '{limit}'")
        threads = self._count("SELECT current_setting('threads')")
        users, items, since = rows.ordered(threads)
        if len(users) < total:
            notes.append(f"{total - len(users)} repeated (user, item) rows removed")
        if span is None or since is None:
            return users, items, None
        times = since.astype(np.int64, copy=False)
        times += span[0] if short else 0
        return users, items, times


def _plain(array: Any) -> npt.NDArray[Any]:
    """A result column without its mask."""
    return np.ma.getdata(array)


def _keys(users: Int32, items: Int32, n_items: int) -> Int64:
    return users.astype(np.int64) * n_items + items


def _named_missing(role: str, ids: Ids, counts: Int64) -> list[str]:
    """A note for each text id that exports write where there is none."""
    if ids.kind != "text":
        return []
    places = [(word, int(np.searchsorted(ids.values, word))) for word in MISSING]
    return [
        f"'{word}' counts as {role} id, with {counts[at]} rows; if it stands for none, drop them"
        for word, at in places
        if at < len(ids) and ids.values[at] == word
    ]


def _without(
    pairs: tuple[Int32, Int32], users: Int32, items: Int32, n_items: int
) -> tuple[Int32, Int32]:
    """Those of some pairs that are not among others."""
    if len(pairs[0]) == 0:
        return pairs
    new = ~np.isin(_keys(*pairs, n_items), _keys(users, items, n_items))
    return pairs[0][new], pairs[1][new]

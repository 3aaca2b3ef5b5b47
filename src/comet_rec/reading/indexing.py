"""Turn the rows of a log into index arrays, sorted by user and time, in little memory.

The rows come from the table `log(u, i, t, r)` in DuckDB: user, item, time and rating.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from comet_rec import memory
from comet_rec.data.clock import doubtful_times
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Int32, Int64, Interactions, Origin, TimeScope
from comet_rec.errors import DataError
from comet_rec.reading.cautions import (
    IdCautions,
    Remarks,
    json_spellings,
    rounded_ids,
    zero_ratings,
)
from comet_rec.reading.columns import IDS, LETTER, Role
from comet_rec.reading.table import LogTable
from comet_rec.reading.typed import HASH, family

CHUNK_ROWS = 1_000_000
BLOCK_BITS = 18
Scope = Literal["auto", "global", "per_user", "none"]
Repeats = Literal["first", "last"]
UInt64 = npt.NDArray[np.uint64]
_CODES = "ids_u.rowid::INTEGER AS u, ids_i.rowid::INTEGER AS i"
_JOINED = "log JOIN ids_u USING (u) JOIN ids_i USING (i)"
_NO_PAIRS = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))


class HashError(Exception):
    """Two text ids have the same hash, or the file changed between two readings."""


@dataclass(frozen=True)
class Indexer:
    """Turns the good rows of a log into index arrays, and drops their database table on the way.

    Parameters
    ----------
    table : LogTable
        Table that holds only good rows.
    min_rating : float or None
        Rows with a lower rating are left out.
    remarks : Remarks
        Collects notes and warnings for the user.
    repeats : {"first", "last"}
        Which row of a repeated pair is kept, by time and then by place in the file.
    """

    table: LogTable
    min_rating: float | None
    remarks: Remarks
    repeats: Repeats = "first"

    def interactions(self, time_scope: Scope) -> Interactions:
        """Build the interactions, sorted by user, time and place in the file.

        Raises
        ------
        DataError
            When no row passes the rating filter, or an id holds a NUL byte or a list.
        HashError
            When two ids have the same hash, or the file has changed. The caller must then read the
            log again without hashes.
        """
        table = self.table
        n_rows = table.count("SELECT count(*) FROM log")
        # Positions within a user count the rows of all events. So the scope is found before the
        # rows of other events are deleted.
        span = self._span()
        scope, scope_notes = self._scope(time_scope, span)
        other_events = self._leave_out_other_events()
        if table.hashed_ids():
            self._create_texts()
        user_ids, counts = self._ids("user")
        item_ids, _ = self._ids("item")
        self.remarks.doubt(json_spellings(table))
        self.remarks.notes += scope_notes
        dropped = self._dropped()
        zero_doubts = zero_ratings(table)
        self.remarks.doubt(zero_doubts)
        zero = self._pairs("z = 0") if zero_doubts else _NO_PAIRS
        n_kept = int(counts.sum())
        users, items, times = self._ordered(counts, len(item_ids), span)
        bad = table.n_bad
        origin = Origin(
            {role: table.parts[0].labels[role] for role in (*table.roles, *table.event_roles)},
            n_rows + bad,
            bad=bad,
            other_events=other_events,
            low_ratings=n_rows - other_events - n_kept,
            repeats=n_kept - len(users),
            first_bad=self.remarks.first_bad,
        )
        if len(dropped[0]) > 0:
            kept = _keys(users, items, len(item_ids))
            new = ~np.isin(_keys(*dropped, len(item_ids)), kept)
            dropped = dropped[0][new], dropped[1][new]
        # Dates are microseconds since 1970; other times are numbers in an unknown unit.
        dated = times is not None and (
            table.kinds.time == "date" or family(table.parts[0].types["time"]) == "date"
        )
        if times is not None and scope != "per_user":
            # Times with fractions are stored in millionths; the checks expect the original unit.
            known = times // 1_000_000 if table.kinds.time == "fraction" else times
            self.remarks.doubt(doubt.message for doubt in doubtful_times(known, dated=dated))
        return Interactions(
            users, items, times, scope, user_ids, item_ids, *dropped, tuple(self.remarks.notes),
            *zero, dated=dated, origin=origin,
        )  # fmt: skip

    @property
    def _kept(self) -> str:
        """SQL clause for the rows that pass the rating filter."""
        return "" if self.min_rating is None else f"WHERE r >= {float(self.min_rating)!r}::DOUBLE"

    def _leave_out_other_events(self) -> int:
        """Delete the rows whose event is not kept; return their number."""
        if not self.table.events:
            return 0
        count = self.table.count("SELECT count(*) FROM log WHERE e = 0")
        self.table.con.execute("DELETE FROM log WHERE e = 0")
        return count

    def _create_texts(self) -> None:
        """Create the table `texts(u, i)`: the distinct text ids whose hashes are in `log`."""
        letters = list(self.table.hashed_ids())
        selects = []
        for part in self.table.parts:
            typed = part.values(self.table.kinds, IDS)
            # A text file is parsed once for both ids; Parquet gives each column alone.
            for scanned in [letters] if part.plain else [[letter] for letter in letters]:
                rows = ", ".join(
                    f"{typed[role]} AS {LETTER[role]}" for role in IDS if LETTER[role] in scanned
                )
                selects.append(_distinct(scanned, f"(SELECT {rows} FROM {part.relation})"))
        union = " UNION ALL BY NAME ".join(selects)
        if len(self.table.parts) > 1:  # an id in several parts is one id
            union = _distinct(letters, f"({union})")
        self.table.con.execute(f"CREATE TEMP TABLE texts AS {union}")

    def _ids(self, role: Role) -> tuple[Ids, Int64]:
        """The distinct ids of the users or of the items, and the number of rows of each id.

        They are also stored in the table `ids_u` or `ids_i`; its rowid is the index of the id.
        """
        table, con = self.table, self.table.con
        kind, letter = table.kinds.ids[role], LETTER[role]
        groups = f"(SELECT {letter}, count(*) AS n FROM log {self._kept} GROUP BY {letter})"
        text = letter
        if letter in table.hashed_ids():
            text = "text"
            groups = (
                f"(SELECT g.{letter}, g.n, texts.{letter} AS text FROM {groups} AS g "
                f"LEFT JOIN texts ON g.{letter} = {HASH.format(f'texts.{letter}')})"
            )
        order = f"{text}::VARCHAR" if kind == "uuid" else text
        con.execute(f"CREATE TEMP TABLE ids_{letter} AS FROM {groups} ORDER BY {order}")
        query = f"SELECT {order} AS id, n FROM ids_{letter} ORDER BY rowid"
        ids, counts = map(np.ma.getdata, con.execute(query).fetchnumpy().values())
        if len(ids) == 0:
            raise DataError(f"{table.name}: no interaction is left after the filters; lower them")
        if text != letter:
            query = f"SELECT count({text}), count(DISTINCT {letter}) FROM ids_{letter}"
            if con.execute(query).fetchall()[0] != (len(ids), len(ids)):
                raise HashError
        if kind == "int":
            self.remarks.doubt(rounded_ids(table, role, ids))
            return Ids(kind, ids), counts
        if kind == "text":
            if any("\0" in value for value in ids):
                raise DataError(f"{table.name}: holds NUL bytes in an id; is it a text file?")
            self.remarks.doubt(IdCautions(table, role, text).doubts())
        return Ids(kind, ids.astype(object)), counts

    def _span(self) -> tuple[int, int] | None:
        """The first and the last time; None if the log has no times."""
        if "time" not in self.table.roles:
            return None
        low, high = self.table.con.execute("SELECT min(t), max(t) FROM log").fetchall()[0]
        return int(low), int(high)

    def _scope(
        self, asked: Scope, span: tuple[int, int] | None
    ) -> tuple[TimeScope, tuple[str, ...]]:
        """The time scope, `asked` or for "auto" a scope that the times decide, and notes on it.

        `span` is the first and the last time; None if the log has no times.
        """
        if span is None:
            if asked == "auto":
                guessed = [part.guessed for part in self.table.parts]
                hints = sorted({notes["time"] for notes in guessed if "time" in notes})
                note = "no time column: rows count in the order of the file"
                return "none", ("; ".join([note, *hints]),)
            return "none", ()
        if asked != "auto":
            return asked, ()
        low, high = span
        # A cheap test first: positions start at 0 or 1 and do not exceed the number of rows.
        if low not in (0, 1) or high > self.table.count("SELECT count(*) FROM log"):
            return "global", ()
        positions = self.table.con.execute(
            f"SELECT bool_and(low = {low} AND high = {low} + n - 1 AND d = n) FROM (SELECT "
            "min(t) AS low, max(t) AS high, count(*) AS n, count(DISTINCT t) AS d "
            "FROM log WHERE u IS NOT NULL GROUP BY u)"
        ).fetchall()[0][0]
        if not positions:
            return "global", ()
        return "per_user", (
            "times are positions within each user and do not compare between users",
        )

    def _dropped(self) -> tuple[Int32, Int32]:
        """Distinct (user, item) index pairs of the rows below the rating limit, sorted.

        A pair is left out if its user or its item has no row that passes the limit.
        """
        if self.min_rating is None:
            return _NO_PAIRS
        low = f"r < {float(self.min_rating)!r}::DOUBLE"
        count = self.table.count(f"SELECT count(*) FROM log WHERE {low}")
        self.remarks.notes.append(f"{count} rows rated below {self.min_rating:g} removed")
        return self._pairs(low)

    def _pairs(self, condition: str) -> tuple[Int32, Int32]:
        """Distinct (user, item) index pairs of the rows that satisfy an SQL condition, sorted.

        A row is left out if its user or its item has no index.
        """
        columns = self.table.con.execute(
            f"SELECT DISTINCT {_CODES} FROM {_JOINED} WHERE {condition} ORDER BY 1, 2"
        ).fetchnumpy()
        return np.ma.getdata(columns["u"]), np.ma.getdata(columns["i"])

    def _ordered(
        self, counts: Int64, n_items: int, span: tuple[int, int] | None
    ) -> tuple[Int32, Int32, Int64 | None]:
        """Users, items and times of the rows, sorted by user, time and place in the file.

        Only the first or the last row of a repeated pair is kept. `counts` is the number of rows of
        each user, and `span` includes all times. The table `log` is dropped.
        """
        table, con = self.table, self.table.con
        # Times relative to the first one nearly always fit into 32 bits: half the memory.
        short = span is not None and span[1] - span[0] < 1 << 32
        time = "" if span is None else f", (t - {span[0]})::UINTEGER AS t" if short else ", t"
        coded = f"SELECT {_CODES}{time}, log.rowid::UINTEGER AS n FROM {_JOINED} {self._kept}"
        place, last = "log.rowid", table.count("SELECT max(rowid) FROM log") + 1
        and_, total = "AND" if self._kept else "WHERE", int(counts.sum())
        # Codes need a fraction of the memory of texts, so `log` with its texts is dropped here.
        if list(table.kinds.ids.values()).count("text") > len(table.hashed_ids()):
            con.execute(f"CREATE TEMP TABLE coded AS {coded}")
            con.execute("DROP TABLE log")
            coded, place, and_ = "FROM coded", "n", "WHERE"
        clock = None if span is None else np.uint32 if short else np.int64
        rows = Rows(counts, n_items, clock, self.repeats)
        # Each chunk builds the hash tables of the joins again, so a chunk has as many rows as them.
        size = max(CHUNK_ROWS, len(counts), n_items)
        for begin in range(0, last, size):
            chunk = con.execute(
                f"{coded} {and_} {place} >= {begin} AND {place} < {begin + size}"
            ).fetchnumpy()
            rows.add({name: np.ma.getdata(column) for name, column in chunk.items()})
        con.execute("DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS coded")
        # DuckDB returns free memory to the system only when a memory limit is set.
        limit = con.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
        con.execute(f"SET memory_limit = '{limit}'")
        users, items, since = rows.ordered(table.count("SELECT current_setting('threads')"))
        if len(users) < total:
            kept = ", the last of each pair kept" if self.repeats == "last" else ""
            note = f"{total - len(users)} repeated (user, item) rows removed{kept}"
            self.remarks.notes.append(note)
        if span is None or since is None:
            return users, items, None
        times = memory.kept(since.astype(np.int64, copy=False))
        times += span[0] if short else 0
        return users, items, times


def _distinct(letters: Sequence[str], rows: str) -> str:
    """SQL for the distinct values of each column of `rows`, one value in each result row.

    All other columns of a result row are NULL.
    """
    sets = ", ".join(f"({letter})" for letter in letters)
    return f"SELECT {', '.join(letters)} FROM {rows} GROUP BY GROUPING SETS ({sets})"


def _keys(users: Int32, items: Int32, n_items: int) -> Int64:
    """One integer for each (user, item) pair, different for different pairs."""
    return users.astype(np.int64) * n_items + items


@dataclass
class Rows:
    """Rows of a log, stored in blocks that are sorted one by one.

    A block holds all rows of several consecutive users.

    Parameters
    ----------
    counts : int64 [n_users]
        Number of rows of each user, at least 1.
    n_items : int
        Number of items.
    clock : dtype or None
        Integer type of the times; None if the log has no times.
    repeats : {"first", "last"}
        Which row of a repeated pair is kept.
    """

    counts: Int64
    n_items: int
    clock: npt.DTypeLike | None
    repeats: Repeats = "first"
    columns: dict[str, npt.NDArray[Any]] = field(init=False)

    def __post_init__(self) -> None:
        rows = int(self.counts.sum())
        # A block is so small that its (user, item, place) fit into one 64-bit number.
        block_rows = 1 << min(BLOCK_BITS, (64 - _bits(self.n_items)) // 2)
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        first = [0]
        while first[-1] < len(self.counts):
            fit = int(np.searchsorted(ends, ends[first[-1]] + block_rows, side="right")) - 1
            first.append(max(first[-1] + 1, fit))
        self._first = np.array(first)  # first user of each block
        self._starts: Int64 = ends[self._first].astype(np.int64)
        self._filled = self._starts[:-1].copy()  # where the next row of each block goes
        # Block of each user; numpy sorts 16-bit numbers faster (radix sort).
        small = np.uint16 if len(first) <= 1 << 16 else np.uint32
        self._block = np.repeat(np.arange(len(first) - 1, dtype=small), np.diff(self._first))
        types: dict[str, npt.DTypeLike] = {"u": np.int32, "i": np.int32}
        if self.clock is not None:
            types["t"] = self.clock
        self.columns = {name: memory.empty(rows, kind) for name, kind in types.items()}

    def add(self, chunk: dict[str, npt.NDArray[Any]]) -> None:
        """Add rows to their blocks; in the file they come after all rows that were added before.

        Parameters
        ----------
        chunk : mapping of str to array [C]
            User `u`, item `i`, place in the file `n` (all different) and, if the log has times,
            time `t`.
        """
        if bool(np.any(chunk["n"][1:] < chunk["n"][:-1])):  # a join may change the order of rows
            turned = np.argsort(chunk["n"])
            chunk = {name: column[turned] for name, column in chunk.items()}
        blocks = self._block[chunk["u"]]
        order = np.argsort(blocks, kind="stable")
        counts = np.bincount(blocks, minlength=len(self._filled))
        ends = np.cumsum(counts)
        for name, column in self.columns.items():
            dealt = np.take(chunk[name], order)
            for block in np.flatnonzero(counts):
                at, count, end = self._filled[block], counts[block], ends[block]
                column[at : at + count] = dealt[end - count : end]
        self._filled += counts

    def ordered(self, threads: int) -> tuple[Int32, Int32, npt.NDArray[Any] | None]:
        """Sort the rows by user, time and place in the file; keep one row of each pair.

        Parameters
        ----------
        threads : int
            Number of blocks that are sorted at the same time.

        Returns
        -------
        users, items : int32 [K]
            The K rows that are kept.
        times : integers [K] or None
        """
        with ThreadPoolExecutor(threads) as pool:  # numpy sorts without the GIL
            kept = list(pool.map(self._order_block, range(len(self._filled))))
        for name, column in self.columns.items():
            filled = 0
            for start, count in zip(self._starts[:-1].tolist(), kept, strict=True):
                column[filled : filled + count] = column[start : start + count]
                filled += count
            if memory.is_mapped(column):
                self.columns[name] = column[:filled]
            else:
                column.resize(filled, refcheck=False)  # frees the rest; a slice would keep it
        return self.columns["u"], self.columns["i"], self.columns.get("t")

    def _order_block(self, block: int) -> int:
        """Sort a block in place; return the number of rows kept, which are now at its start."""
        here = slice(int(self._starts[block]), int(self._starts[block + 1]))
        rows = {name: column[here] for name, column in self.columns.items()}
        users = (rows["u"] - np.int32(self._first[block])).astype(np.uint64)
        order = stable_order(users, rows.get("t"))
        users, items = users[order], rows["i"][order]
        if self.repeats == "last":  # the last row of a pair is the first one from behind
            kept = first_of_pair(users[::-1], items[::-1], self.n_items)[::-1]
        else:
            kept = first_of_pair(users, items, self.n_items)
        keep = np.flatnonzero(kept)
        end = here.start + len(keep)
        self.columns["i"][here.start : end] = items[keep]
        if "t" in rows:
            self.columns["t"][here.start : end] = rows["t"][order[keep]]
        self.columns["u"][here.start : end] = rows["u"][order[keep]]
        return len(keep)


def _bits(n: int) -> int:
    """Number of bits that the numbers 0…n−1 need."""
    return max(0, int(n) - 1).bit_length()


def _shifted(numbers: UInt64, bits: int) -> UInt64:
    return numbers << np.uint64(bits)


def _numbered(keys: UInt64) -> tuple[UInt64, Int64]:
    """Sort keys; return the sorted keys and the position of each before sorting.

    Equal keys keep their order. The keys must leave enough upper bits free to hold a position.
    """
    bits = _bits(len(keys))
    # The key in the high bits, the position in the low bits: one sort gives both.
    packed = _shifted(keys, bits) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    places = (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
    packed >>= np.uint64(bits)
    return packed, places


def stable_order(users: UInt64, times: npt.NDArray[Any] | None) -> Int64:
    """Permutation that sorts R rows by user, then time, then present order; int64 [R].

    Parameters
    ----------
    users : uint64 [R]
        Every value must be less than 2⁶⁴ / R.
    times : integers [R] or None
    """
    if times is None or len(times) == 0:
        return _numbered(users)[1]
    low, high = int(times.min()), int(times.max())
    # Arithmetic modulo 2⁶⁴ is right for every span; a signed difference may overflow.
    since = times.astype(np.uint64) - np.uint64(low % 2**64)
    # Low bits of the times are cut off where user, time and position exceed 64 bits.
    spare = 64 - _bits(len(users)) - _bits(int(users.max()) + 1)
    coarse = max(0, _bits(high - low + 1) - spare)
    width = _bits(high - low + 1) - coarse
    keys, order = _numbered(_shifted(users, width) | (since >> np.uint64(coarse)))
    if coarse:  # rows whose times differ only in those bits are sorted again
        same = keys[1:] == keys[:-1]
        close = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        among = np.lexsort((since[order[close]], keys[close]))
        order[close] = order[close[among]]
    return order


def first_of_pair(users: UInt64, items: Int32, n_items: int) -> npt.NDArray[np.bool_]:
    """True at the first row of each (user, item) pair, bool [R].

    The product of the number of users, `n_items` and the number of rows R must be below 2⁶⁴.
    """
    pairs, places = _numbered(_shifted(users, _bits(n_items)) | items.astype(np.uint64))
    first = np.ones(len(pairs), dtype=np.bool_)
    first[places[1:][pairs[1:] == pairs[:-1]]] = False
    return first

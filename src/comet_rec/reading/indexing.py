"""From the table `log(u, i, t, r)` to index arrays in canonical order, in little memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from comet_rec.data.clock import doubtful_times
from comet_rec.data.ids import IdKind, Ids
from comet_rec.data.interactions import Int32, Int64, Interactions, TimeScope
from comet_rec.errors import DataError
from comet_rec.reading.cautions import (
    IdCautions,
    Remarks,
    json_spellings,
    rounded_ids,
    zero_ratings,
)
from comet_rec.reading.columns import Role
from comet_rec.reading.parts import LETTER
from comet_rec.reading.stage import Staged
from comet_rec.reading.typed import HASH, family, values

CHUNK_ROWS = 1_000_000


class HashError(Exception):
    """The hashes of a log are not those of its texts, one for one."""


@dataclass(frozen=True)
class LogTable:
    """The good rows of one log in a database; `interactions` consumes them.

    Parameters
    ----------
    staged : Staged
        What `log` holds.
    min_rating : float or None
        Rows rated lower are left out.
    """

    con: duckdb.DuckDBPyConnection
    staged: Staged
    min_rating: float | None

    def interactions(self, time_scope: str, remarks: Remarks) -> Interactions:
        """Index arrays in canonical order; `remarks` grows by what was done and what is doubtful.

        Raises
        ------
        DataError
            When no row passes the rating filter, or an id holds a NUL byte or is a list.
        HashError
            When two ids have one hash (or the file changes): read the log without hashes.
        """
        self._texts()
        user_ids, counts = self._ids("user", self.staged.kinds.user, remarks)
        item_ids, _ = self._ids("item", self.staged.kinds.item, remarks)
        remarks.doubt(json_spellings(self.staged))
        span = self._span()
        scope = self._scope(time_scope, span, remarks)
        dropped = self._dropped(remarks)
        zero = self._zero(remarks)
        users, items, times = self._ordered(counts, len(item_ids), span, remarks)
        dropped = _without(dropped, users, items, len(item_ids))
        if times is not None and scope != "per_user":
            # Fractions of seconds are kept in millionths, but what they count from is not known.
            fraction = self.staged.kinds.time == "fraction"
            known = times // 1_000_000 if fraction else times
            doubts = doubtful_times(known, dated=self._dated)
            remarks.doubt(doubt.message for doubt in doubts)
        return Interactions(
            users, items, times, scope, user_ids, item_ids, *dropped, tuple(remarks.notes), *zero,
            dated=self._dated,
        )  # fmt: skip

    @property
    def _dated(self) -> bool:
        """Whether times are microseconds since 1970."""
        if "time" not in self.staged.roles:
            return False
        dates = family(self.staged.parts[0].types["time"]) == "date"
        return dates or self.staged.kinds.time == "date"

    def _count(self, query: str) -> int:
        return int(self.con.execute(query).fetchall()[0][0])

    @property
    def _holds_text(self) -> bool:
        kinds = self.staged.kinds
        return (kinds.user, kinds.item).count("text") > len(self.staged.texts())

    @property
    def _kept(self) -> str:
        return "" if self.min_rating is None else f"WHERE r >= {float(self.min_rating)!r}::DOUBLE"

    def _texts(self) -> None:
        """Fill `texts(u, i)`: the distinct text ids behind the hashes in `log`."""
        texts = self.staged.texts()
        if not texts:
            return
        found = []
        for part in self.staged.parts:
            typed = values(part, self.staged.kinds, ("user", "item"))
            every = {letter: typed[role] for letter, role in texts.items()}
            # A text file is parsed once for both; of Parquet each column is read alone.
            scans = [list(texts)] if part.text is not None else [[letter] for letter in texts]
            for letters in scans:
                rows = ", ".join(f"{every[letter]} AS {letter}" for letter in letters)
                sets = ", ".join(f"({letter})" for letter in letters)
                found.append(
                    f"SELECT {', '.join(letters)} FROM (SELECT {rows} FROM {part.relation}) "
                    f"GROUP BY GROUPING SETS ({sets})"
                )
        union = " UNION ALL BY NAME ".join(found)
        if len(self.staged.parts) > 1:  # an id of several parts is one id
            sets = ", ".join(f"({letter})" for letter in texts)
            union = f"SELECT {', '.join(texts)} FROM ({union}) GROUP BY GROUPING SETS ({sets})"
        self.con.execute(f"CREATE TEMP TABLE texts AS {union}")

    def _ids(self, role: Role, kind: IdKind, remarks: Remarks) -> tuple[Ids, Int64]:
        """The ids of one side, and the rows of each; fill the table whose rowid is their index."""
        letter = LETTER[role]
        groups = f"(SELECT {letter}, count(*) AS n FROM log {self._kept} GROUP BY {letter})"
        text = letter
        if letter in self.staged.texts():
            text = "text"
            groups = (
                f"(SELECT g.{letter}, g.n, texts.{letter} AS text FROM {groups} AS g "
                f"LEFT JOIN texts ON g.{letter} = {HASH.format(f'texts.{letter}')})"
            )
        order = f"{text}::VARCHAR" if kind == "uuid" else text
        self.con.execute(f"CREATE TEMP TABLE ids_{letter} AS FROM {groups} ORDER BY {order}")
        query = f"SELECT {order} AS id, n FROM ids_{letter} ORDER BY rowid"
        fetched = self.con.execute(query).fetchnumpy()
        ids, counts = _plain(fetched["id"]), _plain(fetched["n"])
        if len(ids) == 0:
            raise DataError(
                f"{self.staged.name}: no interaction is left after the filters; lower them"
            )
        if text != letter:
            query = f"SELECT count({text}), count(DISTINCT {letter}) FROM ids_{letter}"
            if self.con.execute(query).fetchall()[0] != (len(ids), len(ids)):
                raise HashError
        if kind == "int":
            remarks.doubt(rounded_ids(self.staged, role, ids))
            return Ids(kind, ids), counts
        if kind == "text":
            if any("\0" in value for value in ids):
                raise DataError(f"{self.staged.name}: holds NUL bytes in an id; is it a text file?")
            remarks.doubt(IdCautions(self.con, self.staged, role, text).notes())
        return Ids(kind, ids.astype(object)), counts

    def _span(self) -> tuple[int, int] | None:
        """The first and the last time; None without times."""
        if "time" not in self.staged.roles:
            return None
        low, high = self.con.execute("SELECT min(t), max(t) FROM log").fetchall()[0]
        return int(low), int(high)

    def _scope(self, asked: str, span: tuple[int, int] | None, remarks: Remarks) -> TimeScope:
        if span is None:
            if asked == "auto":
                remarks.note("no time column: rows count in the order of the file")
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
        remarks.note("times are positions within each user and do not compare between users")
        return "per_user"

    def _dropped(self, remarks: Remarks) -> tuple[Int32, Int32]:
        """Distinct pairs of known ids that the rating filter drops, sorted."""
        empty = np.empty(0, dtype=np.int32)
        if self.min_rating is None:
            return empty, empty
        low = f"r < {float(self.min_rating)!r}::DOUBLE"
        count = self._count(f"SELECT count(*) FROM log WHERE {low}")
        remarks.note(f"{count} rows rated below {self.min_rating:g} removed")
        return self._pairs(low)

    def _zero(self, remarks: Remarks) -> tuple[Int32, Int32]:
        """Distinct pairs with a rating of 0 that count as interactions, sorted."""
        found = zero_ratings(self.con, self.staged)
        remarks.doubt(found)
        empty = np.empty(0, dtype=np.int32)
        return self._pairs("z = 0") if found else (empty, empty)

    def _pairs(self, condition: str) -> tuple[Int32, Int32]:
        """Distinct pairs of known ids in the rows that meet a condition, sorted."""
        fetched = self.con.execute(
            "SELECT DISTINCT ids_u.rowid::INTEGER AS user, ids_i.rowid::INTEGER AS item FROM log "
            f"JOIN ids_u USING (u) JOIN ids_i USING (i) WHERE {condition} ORDER BY 1, 2"
        ).fetchnumpy()
        return _plain(fetched["user"]), _plain(fetched["item"])

    def _ordered(
        self, counts: Int64, n_items: int, span: tuple[int, int] | None, remarks: Remarks
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
            remarks.note(f"{total - len(users)} repeated (user, item) rows removed")
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


def _without(
    pairs: tuple[Int32, Int32], users: Int32, items: Int32, n_items: int
) -> tuple[Int32, Int32]:
    """Those of some pairs that are not among others."""
    if len(pairs[0]) == 0:
        return pairs
    new = ~np.isin(_keys(*pairs, n_items), _keys(users, items, n_items))
    return pairs[0][new], pairs[1][new]


BLOCK_BITS = 18
UInt64 = npt.NDArray[np.uint64]


@dataclass
class Rows:
    """Rows of a log, dealt out to blocks of whole users.

    Parameters
    ----------
    counts : int64 [n_users]
        Number of rows of each user, at least 1.
    n_items : int
        Number of items.
    clock : dtype or None
        Type of the times, an integer; None without times.
    """

    counts: Int64
    n_items: int
    clock: npt.DTypeLike | None
    columns: dict[str, npt.NDArray[Any]] = field(init=False)

    def __post_init__(self) -> None:
        rows = int(self.counts.sum())
        # So small that (user, item, place) of a block is one 64-bit number as well.
        most = 1 << min(BLOCK_BITS, (64 - _bits(self.n_items)) // 2)
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        first = [0]
        while first[-1] < len(self.counts):
            fit = int(np.searchsorted(ends, ends[first[-1]] + most, side="right")) - 1
            first.append(max(first[-1] + 1, fit))
        self._first = np.array(first)
        self._starts: Int64 = ends[self._first].astype(np.int64)
        self._filled = self._starts[:-1].copy()
        # Numpy sorts 16-bit numbers by counting.
        small = np.uint16 if len(first) <= 1 << 16 else np.uint32
        self._block = np.repeat(np.arange(len(first) - 1, dtype=small), np.diff(self._first))
        types: dict[str, npt.DTypeLike] = {"u": np.int32, "i": np.int32}
        if self.clock is not None:
            types["t"] = self.clock
        self.columns = {name: np.empty(rows, dtype=kind) for name, kind in types.items()}

    def add(self, chunk: dict[str, npt.NDArray[Any]]) -> None:
        """Deal out rows that stand behind all those before.

        Parameters
        ----------
        chunk : mapping of str to array [C]
            User `u`, item `i`, place in the file `n` (distinct) and, with times, time `t`.
        """
        if bool(np.any(chunk["n"][1:] < chunk["n"][:-1])):  # a join may turn rows around
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
        """All rows by user, time and place; the first row of each pair, without the others.

        Returns
        -------
        users, items : int32 [K]
        times : array [K] or None
        """
        with ThreadPoolExecutor(threads) as pool:  # numpy's sorts let other threads run
            kept = list(pool.map(self._order_block, range(len(self._filled))))
        for column in self.columns.values():
            filled = 0
            for start, count in zip(self._starts[:-1].tolist(), kept, strict=True):
                column[filled : filled + count] = column[start : start + count]
                filled += count
            column.resize(filled, refcheck=False)  # gives the rest back; a slice would hold it
        return self.columns["u"], self.columns["i"], self.columns.get("t")

    def _order_block(self, block: int) -> int:
        """Order a block in its place; the number of rows that are kept, at its beginning."""
        here = slice(int(self._starts[block]), int(self._starts[block + 1]))
        rows = {name: column[here] for name, column in self.columns.items()}
        users = (rows["u"] - np.int32(self._first[block])).astype(np.uint64)
        order = stable_order(users, rows.get("t"))
        users, items = users[order], rows["i"][order]
        keep = np.flatnonzero(first_of_pair(users, items, self.n_items))
        end = here.start + len(keep)
        self.columns["i"][here.start : end] = items[keep]
        if "t" in rows:
            self.columns["t"][here.start : end] = rows["t"][order[keep]]
        self.columns["u"][here.start : end] = rows["u"][order[keep]]
        return len(keep)


def _bits(n: int) -> int:
    """Bits that the numbers 0…n−1 need."""
    return max(0, int(n) - 1).bit_length()


def _shifted(numbers: UInt64, bits: int) -> UInt64:
    return numbers << np.uint64(bits)


def _numbered(keys: UInt64) -> tuple[UInt64, Int64]:
    """Sorted keys, and the place of each before; equal keys keep their order.

    Keys must leave free the bits that their number needs.
    """
    bits = _bits(len(keys))
    packed = _shifted(keys, bits) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    places = (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
    packed >>= np.uint64(bits)
    return packed, places


def stable_order(users: UInt64, times: npt.NDArray[Any] | None) -> Int64:
    """Permutation that sorts rows by user, then time, then place, int64 [R].

    Parameters
    ----------
    users : uint64 [R]
        Less than 2⁶⁴ / R.
    times : integers [R] or None
    """
    if times is None or len(times) == 0:
        return _numbered(users)[1]
    low, high = int(times.min()), int(times.max())
    # Modulo 2⁶⁴: right for any span of int64, where the difference itself may overflow.
    since = times.astype(np.uint64) - np.uint64(low % 2**64)
    spare = 64 - _bits(len(users)) - _bits(int(users.max()) + 1)
    coarse = max(0, _bits(high - low + 1) - spare)
    width = _bits(high - low + 1) - coarse
    keys, order = _numbered(_shifted(users, width) | (since >> np.uint64(coarse)))
    if coarse:  # close times of one user still stand as in the file
        same = keys[1:] == keys[:-1]
        close = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        among = np.lexsort((since[order[close]], keys[close]))
        order[close] = order[close[among]]
    return order


def first_of_pair(users: UInt64, items: Int32, n_items: int) -> npt.NDArray[np.bool_]:
    """True at the first row of each pair, bool [R]; users · items · R must be below 2⁶⁴."""
    pairs, places = _numbered(_shifted(users, _bits(n_items)) | items.astype(np.uint64))
    first = np.ones(len(pairs), dtype=np.bool_)
    first[places[1:][pairs[1:] == pairs[:-1]]] = False
    return first

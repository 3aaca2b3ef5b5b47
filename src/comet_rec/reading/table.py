"""The DuckDB table `log(u, i, t, r)`: user, item, time and rating of each row of a log.

A value that does not fit the type of its column is NULL. If only rows of some events are kept, the
column e has the number of each row's event, from 1. It is 0 for an event that is not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from comet_rec.data.ids import IdKind
from comet_rec.errors import DataError, argument
from comet_rec.reading.columns import IDS, LETTER, Role
from comet_rec.reading.database import one_line, quoted
from comet_rec.reading.parts import Part
from comet_rec.reading.typed import (
    FORMS,
    HASH,
    ISO,
    Kinds,
    TimeKind,
    as_number,
    family,
    id_value,
    is_fraction,
    rating_value,
    time_value,
    twin_of,
)

SAMPLE_ROWS = 10_000


class _Miscount(Exception):
    """DuckDB returned more or fewer rows than the file has lines."""


@dataclass
class LogTable:
    """The table `log` of a database, which holds the rows of a log in the order of its rowid.

    Parameters
    ----------
    con : connection
        Connection to the database.
    name : str
        Name of the log in messages.
    parts : list of Part
        The frames or groups of files to read, in order. If DuckDB cannot read a part, `fill`
        replaces it by one that the line-by-line parser reads.
    roles : tuple of role
        Roles (user, item, time, rating) that have a column in `log`.
    id_kinds : mapping of role to kind
        Types of the user or item ids, if they are known in advance.
    time_form : str, optional
        Format of the times for strptime.
    watches_ratings : bool
        Whether `log` has a column z that is 0 for rating 0, 1 for rating 1, and 2 for any other
        rating. A value that is no rating gives NULL, but does not make its row bad.
    hashed : bool
        Whether `log` holds hashes in place of text ids.
    events : tuple of str
        Events of the rows that are kept; empty to keep all rows. The values of other rows are not
        checked.
    kinds : Kinds
        Types of the columns' values; `fill` decides them.
    starts : list of int
        Row of `log` at which each part starts.
    misfits : int
        Number of rows of `log` with a value that does not fit its column's type, or with a wrong
        number of fields.
    """

    con: duckdb.DuckDBPyConnection
    name: str
    parts: list[Part]
    roles: tuple[Role, ...]
    id_kinds: Mapping[Role, IdKind] = field(default_factory=dict)
    time_form: str | None = None
    watches_ratings: bool = False
    hashed: bool = False
    events: tuple[str, ...] = ()
    kinds: Kinds = field(default_factory=Kinds, init=False)
    starts: list[int] = field(default_factory=list, init=False)
    misfits: int = field(default=0, init=False)

    @property
    def n_bad(self) -> int:
        """Number of all bad rows, including those that the line-by-line parser did not pass on."""
        return self.misfits + sum(part.bad.count for part in self.parts if part.bad)

    @property
    def misfit(self) -> str:
        """SQL condition that is true for a row with a value that does not fit its column's type."""
        missing = " OR ".join(f"{LETTER[role]} IS NULL" for role in self.roles)
        return f"({missing}) AND e IS DISTINCT FROM 0" if self.events else missing

    @property
    def event_roles(self) -> tuple[Role, ...]:
        """The role of the column of events, if `log` has one."""
        return ("event",) if self.events else ()

    def hashed_ids(self) -> dict[str, Role]:
        """Roles (user, item) of the text ids that `log` holds as hashes, by column ("u", "i")."""
        if not self.hashed:
            return {}
        return {LETTER[role]: role for role, kind in self.kinds.ids.items() if kind == "text"}

    def count(self, query: str) -> int:
        """Run a query that returns a single number, and return that number."""
        return int(self.con.execute(query).fetchall()[0][0])

    def fill(self) -> None:
        """Read all parts into `log`.

        The types of the columns are guessed from the first rows. If a value does not fit, the
        types are decided again from all rows.

        Raises
        ------
        DataError
            When DuckDB cannot read a part, or the parts have different layouts.
        """
        for part in self.parts:
            _check_types(part)
        self._check_alike()
        while True:
            try:
                self._read()
                return
            except _Miscount:
                self._read_carefully()
            except duckdb.Error as error:
                hopeless = isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException))
                if hopeless or not self._read_carefully():
                    raise DataError(f"{self.name}: cannot be read: {one_line(error)}") from error

    def _read_carefully(self) -> bool:
        """Switch the files to the line-by-line parser; False if there is none to switch."""
        if not any(part.careful for part in self.parts):
            return False
        parts: list[Part] = []
        for part in self.parts:
            parts += part.careful() if part.careful else [part]
        self.parts = parts
        return True

    def _check_alike(self) -> None:
        """Refuse parts with different columns, or with types of ids or times that do not mix."""
        first = self.parts[0]
        for part in self.parts[1:]:
            for role in self.roles:
                if role not in part.labels:
                    raise DataError(
                        f"{part.name}: has no {role} column, unlike {first.name}; give files of "
                        "one layout"
                    )
                kinds = {family(first.types[role]), family(part.types[role])}
                if (role == "time" and len(kinds) > 1) or (
                    role != "rating" and "uuid" in kinds != {"uuid"}
                ):
                    raise DataError(
                        f"{part.name}: column {part.labels[role]!r} is of type {part.types[role]}, "
                        f"but {first.types[role]} in {first.name}; give files of one layout"
                    )

    def _read(self) -> None:
        """Decide the types of the columns and fill `log`."""
        self.kinds = self._decided_kinds(SAMPLE_ROWS)
        self._insert()
        if self.misfits:
            if any(part.is_json and part.careful for part in self.parts):
                raise _Miscount  # the careful parser accepts more lines
            kinds = self._decided_kinds(None)
            if kinds != self.kinds:
                self.kinds = kinds
                self._insert()

    def _insert(self) -> None:
        """Insert all parts into `log`, converted to the types in `kinds`.

        Raises
        ------
        _Miscount
            When DuckDB returns more or fewer rows than a file has lines.
        """
        self.con.execute("DROP TABLE IF EXISTS log")
        self.starts = []
        hashed_ids = self.hashed_ids()
        rows = 0
        for part in self.parts:
            columns = {
                LETTER[role]: value for role, value in part.values(self.kinds, self.roles).items()
            }
            for letter in hashed_ids:
                columns[letter] = HASH.format(f"({columns[letter]})")
            if self.watches_ratings:
                rating = rating_value(LETTER["rating"], part.types["rating"])
                kept = f"CASE {rating} WHEN 0 THEN 0 WHEN 1 THEN 1 ELSE 2 END"
                columns["z"] = f"CAST(CASE WHEN {rating} IS NOT NULL THEN {kept} END AS UTINYINT)"
            if self.events:
                numbers = [
                    f"WHEN {quoted(event)} THEN {number}"
                    for number, event in enumerate(self.events, 1)
                ]
                kept = f"CASE e {' '.join(numbers)} ELSE 0 END"
                columns["e"] = f"CAST(CASE WHEN e IS NOT NULL THEN {kept} END AS USMALLINT)"
            picked = ", ".join(f"{value} AS {letter}" for letter, value in columns.items())
            into = "INSERT INTO log" if self.starts else "CREATE TEMP TABLE log AS"
            self.con.execute(f"{into} SELECT {picked} FROM {part.relation}")
            self.starts.append(rows)
            rows = self.count("SELECT count(*) FROM log")
            if part.rows is not None and rows - self.starts[-1] != sum(part.rows):
                raise _Miscount
        if set(self.kinds.ids.values()) == {"text"}:
            self._refuse_headers()  # in a column of integers a header does not fit anyway
        self.misfits = self.count(f"SELECT count(*) FROM log WHERE {self.misfit}")

    def _refuse_headers(self) -> None:
        """Mark rows that repeat the header as bad, by setting their user to NULL."""
        pairs = {pair for part in self.parts for pair in header_pairs(part)}
        same = []
        for pair in sorted(pairs):
            user, item = map(quoted, pair)
            if self.hashed:
                user, item = HASH.format(user), HASH.format(item)
            same.append(f"u = {user} AND i = {item}")
        if same:
            self.con.execute(f"UPDATE log SET u = NULL WHERE {' OR '.join(same)}")

    def _decided_kinds(self, limit: int | None) -> Kinds:
        """Decide the type of every column from its values; bad rows do not count.

        Parameters
        ----------
        limit : int or None
            Number of rows to use from each part; None for all.
        """
        tables = [self._first_rows(part, limit) for part in self.parts]
        time: TimeKind = "int"
        form: str | None = self.time_form
        if "time" in self.roles:
            if form is None:
                time, form = self._time_kind(tables, sampled=limit is not None)
            else:
                time = "date"
                try:
                    self.con.execute("SELECT try_strptime('', ?)", [form])
                except duckdb.Error as error:
                    raise DataError(f"time_format is {form!r}: {one_line(error)}") from None
        as_text = Kinds(time=time, form=form or ISO)
        votes: dict[Role, list[bool]] = {role: [] for role in IDS}
        for part, table in zip(self.parts, tables, strict=True):
            typed = part.values(as_text, self.roles).values()
            good = " AND ".join(f"({value}) IS NOT NULL" for value in typed)
            voters = []
            for role in IDS:
                if family(part.types[role]) in ("text", "wide", "decimal"):
                    voters.append(role)
                else:  # the value is a 64-bit integer, or no valid id
                    votes[role].append(True)
            if not voters:
                continue
            ballots = ", ".join(
                f"bool_and(({id_value(LETTER[role], part.types[role], 'int')}) IS NOT NULL)"
                for role in voters
            )
            query = f"SELECT {ballots} FROM {table} WHERE {good} AND NOT {_header_row(part)}"
            for role, vote in zip(voters, self.con.execute(query).fetchall()[0], strict=True):
                # Without a good row there is no evidence for integers.
                votes[role] += [] if vote is None and len(self.parts) > 1 else [bool(vote)]
        ids: dict[Role, IdKind] = {}
        for role in IDS:
            ids[role] = "int" if votes[role] and all(votes[role]) else "text"
            if self.id_kinds.get(role) in ("int", "text"):
                ids[role] = self.id_kinds[role]  # fixed: a value of another kind is a bad row
            if family(self.parts[0].types[role]) == "uuid":
                ids[role] = "uuid"
        return Kinds(ids, as_text.time, as_text.form)

    def _first_rows(self, part: Part, limit: int | None) -> str:
        """SQL for the first rows of a part whose events are kept; all such rows without `limit`."""
        kept = ""
        if self.events:
            kept = f" WHERE e IN ({', '.join(map(quoted, self.events))})"
        return f"(FROM {part.relation}{kept}{'' if limit is None else f' LIMIT {limit}'})"

    def _time_kind(self, tables: Sequence[str], *, sampled: bool) -> tuple[TimeKind, str]:
        """Type of the times in the tables, and the format of times that are dates in text."""
        sql_type = self.parts[0].types["time"]
        group = family(sql_type)
        table = "(" + " UNION ALL ".join(f"SELECT t FROM {table}" for table in tables) + ")"
        if group in ("int", "date"):
            return "int", ISO
        if group == "real":
            query = f"SELECT count(*) FROM {table} WHERE isfinite(t::DOUBLE) AND {is_fraction('t')}"
            return ("fraction" if self.count(query) else "whole"), ISO
        integer = f"({time_value('t', sql_type, 'int')})"
        filled, ints = self.con.execute(
            f"SELECT count(nullif(t, '')), count({integer}) FROM {table}"
        ).fetchall()[0]
        if ints == filled:
            return "int", ISO
        number = as_number("t")
        numbers, fractions, dates = self.con.execute(
            f"SELECT count({number}), count(*) FILTER {is_fraction(number)}, "
            f"count({time_value('t', sql_type, 'date')}) FROM {table} WHERE {integer} IS NULL"
        ).fetchall()[0]
        others = filled - ints - numbers
        if dates > ints + numbers and dates >= others / 2:
            return "date", ISO
        if others > ints + numbers:
            form = self._form(table, sampled=sampled)
            if form is not None:
                return "date", form
        if dates > ints + numbers:
            return "date", ISO
        if ints and not numbers:
            return "int", ISO
        return ("fraction" if fractions else "whole"), ISO

    def _form(self, table: str, *, sampled: bool) -> str | None:
        """The date format that most times in `table` fit; None if they fit no known format.

        Raises
        ------
        DataError
            When all times fit two formats, such as day first and month first.
        """
        candidates = list(FORMS)
        if not sampled:  # to save time, try only formats that fit some of the first rows
            counts = self._fitting(f"(FROM {table} LIMIT {SAMPLE_ROWS})", candidates)
            candidates = [form for form in candidates if counts[form]] or candidates[:1]
        counts = self._fitting(table, candidates)
        best = max(counts, key=lambda form: counts[form])
        if counts[best] == 0:
            return None
        twin = twin_of(best, counts)
        if twin is None:
            return best
        if sampled:
            # Later rows may decide between the two formats.
            tables = [self._first_rows(part, None) for part in self.parts]
            every = " UNION ALL ".join(f"SELECT t FROM {rows}" for rows in tables)
            return self._form(f"({every})", sampled=False)
        part = self.parts[0]
        example = self.con.execute(f"SELECT t FROM {table} WHERE t <> '' LIMIT 1").fetchall()[0][0]
        raise DataError(
            f"{part.name}: column {part.labels['time']!r}: {example!r} and all other times could "
            f"be read in two ways; pass {argument('time_format', best)} or "
            f"{argument('time_format', twin)}"
        )

    def _fitting(self, table: str, forms: Sequence[str]) -> dict[str, int]:
        """Number of times in `table` that fit each date format."""
        counted = ", ".join(f"count({time_value('t', 'VARCHAR', 'date', form)})" for form in forms)
        counts = self.con.execute(f"SELECT {counted} FROM {table}").fetchall()[0]
        return dict(zip(forms, map(int, counts), strict=True))


def _check_types(part: Part) -> None:
    """Refuse a part if the type of a column cannot be an id, a time or a rating, as needed."""
    fit = {"int", "wide", "decimal", "real", "text"}
    more = {"user": "uuid", "item": "uuid", "time": "date"}
    for role, sql_type in part.types.items():
        if family(sql_type) in {*fit, more.get(role)}:
            continue
        expected = {"time": "a time", "rating": "a rating"}.get(role, "an id")
        todo = "make it integers or text"
        if sql_type.endswith("[]"):
            todo = "write a row for each member (explode the list)"
        raise DataError(
            f"{part.name}: column {part.labels[role]!r} is of type {sql_type}, which cannot be "
            f"{expected}; {todo}"
        )


def header_pairs(part: Part) -> list[tuple[str, str]]:
    """User and item values of a row that repeats the header, as in files that were joined.

    The values are the column names, or the header fields as they are written. In a joined file a
    byte-order mark may precede the first field.
    """
    text = part.text
    labels = (part.labels["user"], part.labels["item"])
    if not text.header or any(label not in text.columns for label in labels):
        return []
    places = [text.columns.index(label) for label in labels]
    user, item = (text.header[place] for place in places)
    pairs = [labels, (user, item)]
    if places[0] == 0:
        pairs.append((f"\ufeff{user}", item))
    elif places[1] == 0:
        pairs.append((user, f"\ufeff{item}"))
    return list(dict.fromkeys(pairs))


def _header_row(part: Part) -> str:
    """SQL condition that is true for a row that repeats the header, as in joined files."""
    pairs = [
        f"(coalesce(u = {quoted(user)}, false) AND coalesce(i = {quoted(item)}, false))"
        for user, item in header_pairs(part)
    ]
    return f"({' OR '.join(pairs)})" if pairs else "false"

"""From the parts of a log to the table `log(u, i, t, r)`; a value that does not fit is NULL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb

from comet_rec.data.ids import IdKind
from comet_rec.errors import DataError
from comet_rec.reading.columns import ROLES, Role
from comet_rec.reading.database import one_line, quoted
from comet_rec.reading.parts import LETTER, Part
from comet_rec.reading.typed import (
    FORMS,
    HASH,
    ISO,
    Kinds,
    TimeKind,
    as_number,
    check_types,
    family,
    id_value,
    is_fraction,
    may_be_text,
    misfit,
    most_fitting,
    rating_value,
    time_value,
    undecided,
    values,
)

SAMPLE_ROWS = 10_000


class _Miscount(Exception):
    """DuckDB gives another number of rows than the file has."""


@dataclass
class Staged:
    """A log in the database.

    Parameters
    ----------
    name : str
        Name of the log in messages.
    parts : list of Part
        In the order of their rows in `log`; parts that DuckDB had trouble with are read carefully.
    kinds : Kinds
        Kinds of the columns' values.
    roles : tuple of role
        Columns of `log`.
    watches_ratings : bool
        Whether `log` has a column z: 0 and 1 for these ratings, 2 for others; no row is bad for it.
    hashed : bool
        Whether `log` holds hashes in place of the text ids that `texts` names.
    starts : list of int
        Row of `log` at which each part begins.
    misfits : int
        Rows of `log` with a value that does not fit, or of the wrong shape.
    """

    name: str
    parts: list[Part]
    kinds: Kinds
    roles: tuple[Role, ...]
    watches_ratings: bool
    hashed: bool
    starts: list[int] = field(default_factory=list)
    misfits: int = 0

    @property
    def n_bad(self) -> int:
        """Number of all bad rows, those that never reached `log` included."""
        return self.misfits + sum(part.bad.count for part in self.parts if part.bad)

    def texts(self) -> dict[str, Role]:
        """Letters of the text ids that `log` holds as hashes."""
        if not self.hashed:
            return {}
        kinds: dict[Role, IdKind] = {"user": self.kinds.user, "item": self.kinds.item}
        return {LETTER[role]: role for role, kind in kinds.items() if kind == "text"}


def may_be_hashed(parts: Sequence[Part]) -> bool:
    """Whether hashes may stand for text ids until the end.

    It takes half the memory, but a second scan: too dear where that parses JSON. A frame is in
    memory already.
    """
    return all(part.files and not part.is_json for part in parts)


def stage(
    con: duckdb.DuckDBPyConnection,
    name: str,
    parts: Sequence[Part],
    roles: tuple[Role, ...],
    fixed: Mapping[Role, IdKind] | None = None,
    form: str | None = None,
    *,
    watches_ratings: bool = False,
    hashed: bool = False,
) -> Staged:
    """Fill the table `log`, whose rowid is the order of the rows.

    The kinds are guessed from the first rows, and decided over all of them only where that leaves
    a value that does not fit.

    Parameters
    ----------
    roles : tuple of role
        Columns to read.
    fixed : mapping of role to kind, optional
        Kinds of ids that are known beforehand.
    form : str, optional
        Of strptime: how times are written.
    watches_ratings : bool
        Whether zeros among ratings that are not read are counted.
    hashed : bool
        Whether `log` may hold hashes in place of text ids.

    Raises
    ------
    DataError
        When DuckDB cannot read a part, or the parts do not go together.
    """
    for part in parts:
        check_types(part)
    _check_alike(parts, roles)
    parts = list(parts)
    while True:
        staged = Staged(name, parts, Kinds("text", "text"), roles, watches_ratings, hashed)
        try:
            _read(con, staged, fixed or {}, form)
            return staged
        except _Miscount:
            parts = _carefully(parts) or parts
        except duckdb.Error as error:
            careful = _carefully(parts)
            if careful is None or isinstance(
                error, (duckdb.OutOfMemoryException, duckdb.IOException)
            ):
                raise DataError(f"{name}: cannot be read: {one_line(error)}") from error
            parts = careful


def _carefully(parts: Sequence[Part]) -> list[Part] | None:
    """All parts, read carefully where they are not yet; None when they are."""
    if not any(part.careful for part in parts):
        return None
    return [one for part in parts for one in (part.careful() if part.careful else [part])]


def _check_alike(parts: Sequence[Part], roles: tuple[Role, ...]) -> None:
    """Refuse parts that have not the same columns, or ids and times of kinds that do not mix."""
    first = parts[0]
    for part in parts[1:]:
        for role in roles:
            if role not in part.labels:
                raise DataError(
                    f"{part.name}: has no {role} column, and {first.name} has; give files of one "
                    "layout"
                )
            kinds = {family(first.types[role]), family(part.types[role])}
            if (role == "time" and len(kinds) > 1) or (
                role != "rating" and "uuid" in kinds != {"uuid"}
            ):
                raise DataError(
                    f"{part.name}: column {part.labels[role]!r} is of type {part.types[role]}, and "
                    f"{first.types[role]} in {first.name}; give files of one layout"
                )


def _read(
    con: duckdb.DuckDBPyConnection, staged: Staged, fixed: Mapping[Role, IdKind], form: str | None
) -> None:
    """Decide the kinds and fill `log`."""
    staged.kinds = survey(con, staged, fixed, form, SAMPLE_ROWS)
    _fill(con, staged)
    if staged.misfits:
        if any(part.is_json and part.careful for part in staged.parts):
            raise _Miscount  # Python's parser takes lines that DuckDB's does not
        decided = survey(con, staged, fixed, form, None)
        if decided != staged.kinds:
            staged.kinds = decided
            _fill(con, staged)


def _fill(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Read the parts into `log`.

    Raises
    ------
    _Miscount
        When a file gave more or fewer rows than it has lines.
    """
    con.execute("DROP TABLE IF EXISTS log")
    staged.starts = []
    short = staged.texts()
    rows = 0
    for part in staged.parts:
        picked = ", ".join(
            f"{HASH.format(f'({value})') if LETTER[role] in short else value} AS {LETTER[role]}"
            for role, value in values(part, staged.kinds, staged.roles).items()
        )
        if staged.watches_ratings:
            rating = rating_value(LETTER["rating"], part.types["rating"])
            kept = f"CASE {rating} WHEN 0 THEN 0 WHEN 1 THEN 1 ELSE 2 END"
            picked += f", CAST(CASE WHEN {rating} IS NOT NULL THEN {kept} END AS UTINYINT) AS z"
        into = "INSERT INTO log" if staged.starts else "CREATE TEMP TABLE log AS"
        con.execute(f"{into} SELECT {picked} FROM {part.relation}")
        staged.starts.append(rows)
        rows = int(con.execute("SELECT count(*) FROM log").fetchall()[0][0])
        if part.rows is not None and part.careful and rows - staged.starts[-1] != sum(part.rows):
            raise _Miscount
    if (staged.kinds.user, staged.kinds.item) == ("text", "text"):
        _refuse_headers(con, staged)  # among integers they do not fit anyway
    query = f"SELECT count(*) FROM log WHERE {misfit(staged.roles)}"
    staged.misfits = int(con.execute(query).fetchall()[0][0])


def _refuse_headers(con: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Make rows that repeat the header misfits."""
    pairs = {pair for part in staged.parts for pair in header_pairs(part)}
    same = [
        " AND ".join(
            f"{letter} = {HASH.format(quoted(label)) if staged.hashed else quoted(label)}"
            for letter, label in (("u", user), ("i", item))
        )
        for user, item in sorted(pairs)
    ]
    if same:
        con.execute(f"UPDATE log SET u = NULL WHERE {' OR '.join(same)}")


def survey(
    con: duckdb.DuckDBPyConnection,
    staged: Staged,
    fixed: Mapping[Role, IdKind],
    form: str | None,
    limit: int | None,
) -> Kinds:
    """Decide the kind of every column from its values; rows that are bad otherwise do not vote.

    Parameters
    ----------
    fixed : mapping of role to kind
        Kinds of ids that are not to be decided.
    form : str or None
        How times are written, if it is known.
    limit : int or None
        Number of rows of each part to look at; None for all.
    """
    parts, roles = staged.parts, staged.roles
    limited = "" if limit is None else f" LIMIT {limit}"
    rows = [f"(FROM {part.relation}{limited})" for part in parts]
    time: TimeKind = "int"
    if "time" in roles:
        if form is not None:
            time = "date"
            _check_form(con, form)
        else:
            time, form = _time_kind(con, staged, rows, limit is not None)
    form = form or ISO
    votes: dict[Role, list[bool]] = {"user": [], "item": []}
    for part, table in zip(parts, rows, strict=True):
        every = values(part, Kinds("text", "text", time, form), roles)
        good = " AND ".join(f"({value}) IS NOT NULL" for value in every.values())
        header = _header_row(part)
        open_roles = [role for role in votes if may_be_text(part.types[role])]
        if open_roles:
            ballots = ", ".join(
                f"bool_and(({id_value(LETTER[role], part.types[role], 'int')}) IS NOT NULL)"
                for role in open_roles
            )
            query = f"SELECT {ballots} FROM {table} WHERE {good} AND NOT {header}"
            for role, vote in zip(open_roles, con.execute(query).fetchall()[0], strict=True):
                # Without a good row nothing speaks for integers.
                votes[role] += [] if vote is None and len(parts) > 1 else [bool(vote)]
        for role in votes:
            if role not in open_roles:
                votes[role].append(True)
    kinds: list[IdKind] = []
    for role in ROLES[:2]:
        if family(parts[0].types[role]) == "uuid":
            kinds.append("uuid")
        elif fixed.get(role) in ("int", "text"):
            kinds.append(fixed[role])  # of a log: a misfit is a bad row, and none of its ids
        else:
            kinds.append("int" if votes[role] and all(votes[role]) else "text")
    return Kinds(kinds[0], kinds[1], time, form)


def _check_form(con: duckdb.DuckDBPyConnection, form: str) -> None:
    try:
        con.execute("SELECT try_strptime('', ?)", [form])
    except duckdb.Error as error:
        raise DataError(f"time_format is {form!r}: {one_line(error)}") from None


def header_pairs(part: Part) -> list[tuple[str, str]]:
    """User and item values of a row that repeats the header.

    The names, or what the header row has around them; a joined file may begin with a mark.
    """
    text = part.text
    roles: tuple[Role, Role] = ("user", "item")
    if text is None or not text.header or any(part.labels[r] not in text.columns for r in roles):
        return []
    user, item = (text.header[text.columns.index(part.labels[role])] for role in roles)
    found = [(part.labels["user"], part.labels["item"]), (user, item)]
    if text.columns.index(part.labels["user"]) == 0:
        found.append((f"\ufeff{user}", item))
    elif text.columns.index(part.labels["item"]) == 0:
        found.append((user, f"\ufeff{item}"))
    return list(dict.fromkeys(found))


def _header_row(part: Part) -> str:
    """SQL that is true of a row that repeats the header, as joined files have it."""
    pairs = [
        f"(coalesce(u = {quoted(user)}, false) AND coalesce(i = {quoted(item)}, false))"
        for user, item in header_pairs(part)
    ]
    return f"({' OR '.join(pairs)})" if pairs else "false"


def _time_kind(
    con: duckdb.DuckDBPyConnection, staged: Staged, rows: Sequence[str], sampled: bool
) -> tuple[TimeKind, str]:
    """Kind of the times, and the form of dates in text."""
    part = staged.parts[0]
    sql_type = part.types["time"]
    group = family(sql_type)
    times = " UNION ALL ".join(f"SELECT t FROM {table}" for table in rows)
    table = f"({times})"
    if group in ("int", "date"):
        return "int", ISO
    if group == "real":
        query = f"SELECT count(*) FROM {table} WHERE isfinite(t::DOUBLE) AND {is_fraction('t')}"
        return ("fraction" if con.execute(query).fetchall()[0][0] else "whole"), ISO
    integer = f"({time_value('t', sql_type, 'int')})"
    filled, ints = con.execute(
        f"SELECT count(nullif(t, '')), count({integer}) FROM {table}"
    ).fetchall()[0]
    if ints == filled:
        return "int", ISO
    number = as_number("t")
    numbers, fractions, dates = con.execute(
        f"SELECT count({number}), count(*) FILTER {is_fraction(number)}, "
        f"count({time_value('t', sql_type, 'date')}) FROM {table} WHERE {integer} IS NULL"
    ).fetchall()[0]
    others = filled - ints - numbers
    if dates > ints + numbers and dates >= others / 2:
        return "date", ISO
    if others > ints + numbers:
        form = _form(con, staged, table, sampled)
        if form is not None:
            return "date", form
    if dates > ints + numbers:
        return "date", ISO
    if ints and not numbers:
        return "int", ISO
    return ("fraction" if fractions else "whole"), ISO


def _form(con: duckdb.DuckDBPyConnection, staged: Staged, table: str, sampled: bool) -> str | None:
    """The form that most of a column's dates have; None when none is recognised.

    Raises
    ------
    DataError
        When all of them could have the day or the month in front.
    """
    candidates = list(FORMS)
    if not sampled:  # every form is tried on each value, so try those of the first rows alone
        counts = _fitting(con, f"(FROM {table} LIMIT {SAMPLE_ROWS})", candidates)
        candidates = [form for form in candidates if counts[form]] or candidates[:1]
    counts = _fitting(con, table, candidates)
    best, twin = most_fitting(counts)
    if counts[best] == 0:
        return None
    if twin is not None:
        if sampled:
            # Later rows may tell; a value that fits neither makes `stage` look at all of them.
            return _form(con, staged, _all_times(staged), sampled=False)
        part = staged.parts[0]
        example = con.execute(f"SELECT t FROM {table} WHERE t <> '' LIMIT 1").fetchall()[0][0]
        raise undecided(part.name, part.labels["time"], example, (best, twin))
    return best


def _all_times(staged: Staged) -> str:
    return "(" + " UNION ALL ".join(f"SELECT t FROM {part.relation}" for part in staged.parts) + ")"


def _fitting(con: duckdb.DuckDBPyConnection, table: str, forms: Sequence[str]) -> dict[str, int]:
    """Number of values that fit each form."""
    counted = ", ".join(f"count({time_value('t', 'VARCHAR', 'date', form)})" for form in forms)
    counts = con.execute(f"SELECT {counted} FROM {table}").fetchall()[0]
    return dict(zip(forms, map(int, counts), strict=True))

"""From a source to the table `log(u, i, t, r)`, typed; a value that does not fit is NULL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import duckdb

from comet_rec.data.ids import IdKind
from comet_rec.errors import DataError
from comet_rec.reading.columns import ROLES, Role
from comet_rec.reading.database import one_line
from comet_rec.reading.records import odd_line_end
from comet_rec.reading.sources import LETTER, REJECTS, Source

TimeKind = Literal["int", "whole", "fraction", "date"]
SAMPLE_ROWS = 10_000
LARGEST_SECONDS = 9_000_000_000_000
# 64 bits; the hash of NULL would be a number.
HASH = "CASE WHEN {0} IS NOT NULL THEN hash({0}) END"

_INTEGERS = frozenset(
    f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
) | {"HUGEINT", "UHUGEINT"}
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"


@dataclass(frozen=True)
class Kinds:
    """What the values of each column are."""

    user: IdKind
    item: IdKind
    time: TimeKind = "int"


def family(sql_type: str) -> str:
    """The kind of a DuckDB type: int, real, text, uuid, date or other."""
    if sql_type in _INTEGERS:
        return "int"
    if sql_type in ("FLOAT", "DOUBLE") or sql_type.startswith("DECIMAL"):
        return "real"
    if sql_type == "VARCHAR" or sql_type.startswith("ENUM"):
        return "text"
    if sql_type.startswith("TIMESTAMP") or sql_type == "DATE":
        return "date"
    return "uuid" if sql_type == "UUID" else "other"


def check_types(source: Source) -> None:
    """Refuse columns whose type can never play their role.

    Raises
    ------
    DataError
        For instance on a Boolean id or a list of times.
    """
    fit = {
        "user": ("int", "real", "text", "uuid"),
        "item": ("int", "real", "text", "uuid"),
        "time": ("int", "real", "text", "date"),
        "rating": ("int", "real", "text"),
    }
    for role, sql_type in source.types.items():
        if family(sql_type) not in fit[role]:
            what = {"time": "a time", "rating": "a rating"}.get(role, "an id")
            raise DataError(
                f"{source.name}: column {source.labels[role]!r} is of type {sql_type}, which "
                f"cannot be {what}; make it integers or text"
            )


def id_value(letter: str, sql_type: str, kind: IdKind) -> str:
    """SQL for an id of one kind; NULL where the value is none."""
    group = family(sql_type)
    if group == "uuid":
        return letter
    if group == "real":
        whole = f"CASE WHEN {letter} = trunc({letter}) AND abs({letter}) <= 9007199254740992 "
        value = f"{whole} THEN TRY_CAST({letter} AS BIGINT) END"
    elif group == "int":
        value = f"TRY_CAST({letter} AS BIGINT)"
    elif kind == "int":
        value = f"TRY_CAST({letter} AS BIGINT)"
        return f"CASE WHEN CAST({value} AS VARCHAR) = {letter} THEN {value} END"
    else:
        return f"nullif(CAST({letter} AS VARCHAR), '')"
    return f"CAST({value} AS VARCHAR)" if kind == "text" else value


def time_value(letter: str, sql_type: str, kind: TimeKind) -> str:
    """SQL for a time, int64; NULL where the value is none of this kind."""
    group = family(sql_type)
    if group == "int":
        return f"TRY_CAST({letter} AS BIGINT)"
    if group == "date":
        return f"epoch_us({letter})"
    if group != "real" and kind == "int":
        return id_value(letter, sql_type, "int")
    if group != "real" and kind == "date":
        return f"epoch_us(TRY_CAST(trim({letter}) AS TIMESTAMPTZ))"
    number = letter if group == "real" else _number(letter)
    if kind == "fraction":
        return f"TRY(CAST(round({number} * 1000000) AS BIGINT))"
    # A fraction among whole times is a misfit, so that `survey` looks at all of them.
    return f"TRY(CAST(CASE WHEN NOT {_fraction(number)} THEN round({number}) END AS BIGINT))"


def _number(text: str) -> str:
    decimal = f"TRY_CAST(trim({text}) AS DECIMAL(38, 6))"
    return f"(CASE WHEN regexp_full_match({text}, '{_NUMBER}') THEN {decimal} END)"


def _fraction(number: str) -> str:
    """Times too large for seconds are rounded: a millionth of them would not fit into an int64."""
    return f"({number} <> trunc({number}) AND abs({number}) < {LARGEST_SECONDS})"


def rating_value(letter: str, sql_type: str) -> str:
    """SQL for a rating, DOUBLE; NULL for NaN."""
    # DuckDB moves a bare cast into its CSV reader, where a misfit is a reject and not a NULL.
    value = f"trim({letter})" if family(sql_type) == "text" else letter
    number = f"TRY_CAST({value} AS DOUBLE)"
    return f"CASE WHEN NOT isnan({number}) THEN {number} END"


def values(source: Source, kinds: Kinds, roles: tuple[Role, ...]) -> dict[Role, str]:
    """SQL for the typed value of every wanted role."""
    made: dict[Role, Callable[[str, str], str]] = {
        "user": lambda letter, of: id_value(letter, of, kinds.user),
        "item": lambda letter, of: id_value(letter, of, kinds.item),
        "time": lambda letter, of: time_value(letter, of, kinds.time),
        "rating": rating_value,
    }
    return {role: made[role](LETTER[role], source.types[role]) for role in roles}


def hashes(source: Source, kinds: Kinds) -> dict[str, str]:
    """Letters of the text ids that `log` may hold as hashes, and SQL for their text.

    It takes half the memory, but a second scan: too dear where that unpacks or parses JSON.
    """
    found = source.format
    if found is None or found.kind == "ndjson" or found.compression != "none":
        return {}
    every = values(source, kinds, ROLES[:2])
    kind = {"user": kinds.user, "item": kinds.item}
    return {LETTER[role]: text for role, text in every.items() if kind[role] == "text"}


def survey(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    roles: tuple[Role, ...],
    fixed: Mapping[Role, IdKind],
    limit: int | None,
) -> Kinds:
    """Decide the kind of every column from its values; rows that are bad otherwise do not vote.

    Parameters
    ----------
    roles : tuple of role
        Columns that count.
    fixed : mapping of role to kind
        Kinds of ids that are not to be decided.
    limit : int or None
        Number of rows to look at; None for all.
    """
    rows = f"(FROM {source.sql()}{'' if limit is None else f' LIMIT {limit}'})"
    time = _time_kind(con, rows, source.types["time"]) if "time" in roles else "int"
    every = values(source, Kinds("text", "text", time), roles)
    good = " AND ".join(f"({value}) IS NOT NULL" for value in every.values())
    # Without a good row nothing speaks for integers.
    integers = con.execute(
        "SELECT "
        + ", ".join(
            f"coalesce(bool_and(({id_value(LETTER[role], 'VARCHAR', 'int')}) IS NOT NULL), false)"
            if family(source.types[role]) == "text"
            else "coalesce(bool_and(true), true)"  # an aggregate: one row, whatever is good
            for role in ROLES[:2]
        )
        + f" FROM {rows} WHERE {good}"
    ).fetchall()[0]
    kinds: list[IdKind] = []
    for role, integer in zip(ROLES[:2], integers, strict=True):
        if family(source.types[role]) == "uuid":
            kinds.append("uuid")
        elif fixed.get(role) in ("int", "text"):
            kinds.append(fixed[role])  # of a log: a misfit is a bad row, and none of its ids
        else:
            kinds.append("int" if integer else "text")
    return Kinds(kinds[0], kinds[1], time)


def _time_kind(con: duckdb.DuckDBPyConnection, rows: str, sql_type: str) -> TimeKind:
    group = family(sql_type)
    if group in ("int", "date"):
        return "int"
    if group == "real":
        query = f"SELECT count(*) FROM {rows} WHERE isfinite(t::DOUBLE) AND {_fraction('t')}"
        return "fraction" if con.execute(query).fetchall()[0][0] else "whole"
    integer = f"({time_value('t', sql_type, 'int')})"
    filled, ints = con.execute(f"SELECT count(t), count({integer}) FROM {rows}").fetchall()[0]
    if ints == filled:
        return "int"
    number = _number("t")
    numbers, fractions, dates = con.execute(
        f"SELECT count({number}), count(*) FILTER {_fraction(number)}, "
        f"count({time_value('t', sql_type, 'date')}) FROM {rows} WHERE {integer} IS NULL"
    ).fetchall()[0]
    if dates > ints + numbers:
        return "date"
    if ints and not numbers:
        return "int"
    return "fraction" if fractions else "whole"


def stage(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    roles: tuple[Role, ...],
    fixed: Mapping[Role, IdKind] | None = None,
    *,
    hashed: bool = False,
) -> tuple[Kinds, int]:
    """Fill the table `log`, whose rowid is the order of the source.

    The kinds are guessed from the first rows, and decided over all of them only where that
    leaves a value that does not fit.

    Parameters
    ----------
    hashed : bool
        Whether `log` holds hashes in place of the text ids that `hashes` names.

    Returns
    -------
    Kinds, int
        What the columns hold, and the number of bad rows: in `log` they have a NULL, and those
        of the wrong shape are in the table of rejects instead.

    Raises
    ------
    DataError
        When DuckDB cannot read the source.
    """
    check_types(source)
    try:
        kinds = survey(con, source, roles, fixed or {}, SAMPLE_ROWS)
        misfits = _fill(con, source, roles, kinds, hashed)
        if misfits:
            decided = survey(con, source, roles, fixed or {}, None)
            if decided != kinds:
                kinds = decided
                misfits = _fill(con, source, roles, kinds, hashed)
        return kinds, misfits + _rejected(con, source)
    except duckdb.Error as error:
        text = one_line(error)
        if "invalid state" in text and source.format is not None:
            text = odd_line_end(source.format)
        raise DataError(f"{source.name}: cannot be read: {text}") from error


def _fill(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    roles: tuple[Role, ...],
    kinds: Kinds,
    hashed: bool,
) -> int:
    """Read the source into `log`; return the number of rows with a value that does not fit."""
    for table in ("log", REJECTS, f"{REJECTS}_scan"):
        con.execute(f"DROP TABLE IF EXISTS {table}")
    every = values(source, kinds, roles)
    short = {letter: HASH.format(text) for letter, text in hashes(source, kinds).items() if hashed}
    picked = ", ".join(
        f"{short.get(LETTER[role], value)} AS {LETTER[role]}" for role, value in every.items()
    )
    con.execute(f"CREATE TEMP TABLE log AS SELECT {picked} FROM {source.sql(REJECTS)}")
    return int(con.execute(f"SELECT count(*) FROM log WHERE {misfit(roles)}").fetchall()[0][0])


def misfit(roles: tuple[Role, ...]) -> str:
    """SQL that is true of a row of `log` with a value that did not fit."""
    return " OR ".join(f"{LETTER[role]} IS NULL" for role in roles)


def _rejected(con: duckdb.DuckDBPyConnection, source: Source) -> int:
    """Number of lines of the wrong shape; an unclosed quote takes several lines with it."""
    if not source.lines:
        return 0
    return int(
        con.execute(
            "SELECT coalesce(sum(n), 0) FROM (SELECT 1 + max(CASE WHEN error_type = "
            "'UNQUOTED VALUE' THEN len(regexp_replace(trim(csv_line, chr(10) || chr(13)), "
            f"'[^\n]', '', 'g')) ELSE 0 END) AS n FROM {REJECTS} GROUP BY line)"
        ).fetchall()[0][0]
    )

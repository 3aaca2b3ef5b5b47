"""SQL for ids, times and ratings of a known kind; NULL where a value is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from comet_rec.data.ids import IdKind
from comet_rec.errors import DataError
from comet_rec.reading.columns import Role
from comet_rec.reading.parts import LETTER, Part
from comet_rec.reading.times import ISO, parsed

TimeKind = Literal["int", "whole", "fraction", "date"]
Family = Literal["int", "wide", "decimal", "real", "text", "uuid", "date", "other"]
LARGEST_SECONDS = 9_000_000_000_000
# 64 bits; the hash of NULL would be a number.
HASH = "CASE WHEN {0} IS NOT NULL THEN hash({0}) END"

EXACT_BITS = {"HALFFLOAT": 11, "FLOAT": 24, "DOUBLE": 53}
"""Floats of each type stand for one integer alone up to two to this power."""

_INTEGERS = frozenset(
    f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
) - {"UBIGINT"}
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"


@dataclass(frozen=True)
class Kinds:
    """Kind of each column's values; `form` is how dates in text are written."""

    user: IdKind
    item: IdKind
    time: TimeKind = "int"
    form: str = ISO


def family(sql_type: str) -> Family:
    """The kind of a DuckDB type."""
    if sql_type in _INTEGERS:
        return "int"
    if sql_type in ("UBIGINT", "HUGEINT", "UHUGEINT"):
        return "wide"
    if sql_type.startswith("DECIMAL"):
        return "decimal"
    if sql_type in EXACT_BITS:
        return "real"
    if sql_type == "VARCHAR" or sql_type.startswith("ENUM"):
        return "text"
    if sql_type.startswith("TIMESTAMP") or sql_type == "DATE":
        return "date"
    return "uuid" if sql_type == "UUID" else "other"


def check_types(part: Part) -> None:
    """Refuse columns whose type can never play their role.

    Raises
    ------
    DataError
        For instance on a Boolean id or a list of times.
    """
    numbers = ("int", "wide", "decimal", "real", "text")
    fit = {
        "user": (*numbers, "uuid"),
        "item": (*numbers, "uuid"),
        "time": (*numbers, "date"),
        "rating": numbers,
    }
    for role, sql_type in part.types.items():
        if family(sql_type) not in fit[role]:
            what = {"time": "a time", "rating": "a rating"}.get(role, "an id")
            todo = "make it integers or text"
            if sql_type.endswith("[]"):
                todo = "write a row for each member (explode the list)"
            raise DataError(
                f"{part.name}: column {part.labels[role]!r} is of type {sql_type}, which cannot be "
                f"{what}; {todo}"
            )


def id_value(letter: str, sql_type: str, kind: IdKind) -> str:
    """SQL for an id of one kind: an exact integer, or text."""
    group = family(sql_type)
    if group == "uuid":
        return letter
    if group == "text":
        if kind == "text":
            return f"nullif(CAST({letter} AS VARCHAR), '')"
        value = f"TRY_CAST({letter} AS BIGINT)"
        return f"CASE WHEN CAST({value} AS VARCHAR) = {letter} THEN {value} END"
    exact = letter
    if group == "real":
        most = 2 ** EXACT_BITS[sql_type]
        exact = (
            f"CASE WHEN {letter} = trunc({letter}) AND abs({letter}) <= {most} THEN {letter} END"
        )
    elif group == "decimal":
        exact = f"CASE WHEN {letter} = trunc({letter}) THEN {letter} END"
    if kind == "int":
        return f"TRY_CAST({exact} AS BIGINT)"
    # Digits of an integer of any size.
    whole = "UHUGEINT" if sql_type == "UHUGEINT" else "HUGEINT"
    return f"CAST(TRY_CAST({exact} AS {whole}) AS VARCHAR)"


def may_be_text(sql_type: str) -> bool:
    """Whether some value of a column may be no 64-bit integer and yet an id."""
    return family(sql_type) in ("text", "wide", "decimal")


def time_value(letter: str, sql_type: str, kind: TimeKind, form: str = ISO) -> str:
    """SQL for a time, int64."""
    group = family(sql_type)
    if group == "date":
        return f"TRY(epoch_us(CAST({letter} AS TIMESTAMPTZ)))"
    if kind == "date":
        return parsed(letter if group == "text" else f"CAST({letter} AS VARCHAR)", form)
    if group == "int":
        return f"TRY_CAST({letter} AS BIGINT)"
    if group != "real" and kind == "int":
        return id_value(letter, sql_type, "int")
    number = letter if group == "real" else as_number(letter)
    if kind == "fraction":
        return f"TRY(CAST(round({number} * 1000000) AS BIGINT))"
    # A fraction among whole times is a misfit, so that `survey` looks at all of them.
    return f"TRY(CAST(CASE WHEN NOT {is_fraction(number)} THEN round({number}) END AS BIGINT))"


def as_number(text: str) -> str:
    """SQL for a decimal number from text; NULL for `inf`, `nan` and what is none."""
    decimal = f"TRY_CAST(trim({text}) AS DECIMAL(38, 6))"
    return f"(CASE WHEN regexp_full_match({text}, '{_NUMBER}') THEN {decimal} END)"


def is_fraction(number: str) -> str:
    """Times too large for seconds are rounded: a millionth of them would not fit into an int64."""
    return f"({number} <> trunc({number}) AND abs({number}) < {LARGEST_SECONDS})"


def rating_value(letter: str, sql_type: str) -> str:
    """SQL for a rating, DOUBLE; NULL for NaN."""
    number = f"TRY_CAST({letter} AS DOUBLE)"
    if family(sql_type) == "text":
        number = f"TRY_CAST(trim({letter}) AS DOUBLE)"
    return f"CASE WHEN NOT isnan({number}) THEN {number} END"


def values(part: Part, kinds: Kinds, roles: tuple[Role, ...]) -> dict[Role, str]:
    """SQL for the typed value of every wanted role."""
    made: dict[Role, Callable[[str, str], str]] = {
        "user": lambda letter, sql_type: id_value(letter, sql_type, kinds.user),
        "item": lambda letter, sql_type: id_value(letter, sql_type, kinds.item),
        "time": lambda letter, sql_type: time_value(letter, sql_type, kinds.time, kinds.form),
        "rating": rating_value,
    }
    return {role: made[role](LETTER[role], part.types[role]) for role in roles}


def misfit(roles: tuple[Role, ...]) -> str:
    """SQL that is true of a row of `log` with a value that did not fit."""
    return " OR ".join(f"{LETTER[role]} IS NULL" for role in roles)

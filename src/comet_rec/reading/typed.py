"""SQL that converts ids, times and ratings to one type; a value that does not fit becomes NULL."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from comet_rec.data.ids import IdKind
from comet_rec.reading.columns import LETTER, Role
from comet_rec.reading.database import quoted

ISO = ""
"""Marks times that DuckDB casts without a format: 2024-05-01 or 2024-05-01T10:00:00Z."""

YEAR = 366 * 86_400
YEAR_1000 = -30_610_224_000_000_000
"""Start of the year 1000, in microseconds since 1970."""

# One date may fit several of these formats: day, month or year could come first.
_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m.%d.%Y", "%m/%d/%y", "%m-%d-%y")
_DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y", "%d-%m-%y", "%d.%m.%y")
_YEAR_FIRST = ("%y/%m/%d", "%y-%m-%d", "%y.%m.%d")
_NAMED = ("%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y")
_CLOCKS = (
    " %H:%M:%S", " %H:%M", " %H:%M:%S.%g", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", ", %H:%M", ""
)  # fmt: skip
_AMBIGUOUS = tuple(
    f"{date}{clock}" for date in (*_MONTH_FIRST, *_DAY_FIRST, *_YEAR_FIRST) for clock in _CLOCKS
)

# Formats of strptime. If equally many values fit several, the first one is used.
FORMS: tuple[str, ...] = (
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M:%S %Z",
    "%Y-%m-%d %H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S,%g",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %H",
    *(f"%Y{mark}%m{mark}%d{clock}" for mark in "/." for clock in _CLOCKS),
    "%Y%m%dT%H%M%SZ",
    "%Y%m%dT%H%M%S",
    "%Y%m%d %H:%M:%S",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%d/%b/%Y:%H:%M:%S %z",
    *(f"%d.%m.%Y{clock}" for clock in _CLOCKS),
    *(f"{date}{clock}" for date in _NAMED for clock in _CLOCKS),
    "%m %d, %Y",
    *_AMBIGUOUS,
)
ACCEPTED = (
    "2017-07-14 02:51:17 (ISO 8601), 14.07.2017 02:51, 07/14/2017 02:51:17 AM, "
    "Fri Jul 14 02:51:17 +0000 2017, 14 Jul 2017, or numbers"
)


def parsed(text: str, form: str) -> str:
    """SQL that converts text to microseconds since 1970; NULL if the text does not fit the format.

    `text` is an SQL expression. `form` is a format for strptime, or `ISO`.
    """
    if form == ISO:
        time = f"TRY(epoch_us(TRY_CAST(trim({text}) AS TIMESTAMPTZ)))"
    else:
        time = f"TRY(epoch_us(CAST(try_strptime(trim({text}), {quoted(form)}) AS TIMESTAMPTZ)))"
    # The text "17" must not pass as the year 17. With two-digit years, a time in the future
    # means that the format is wrong.
    fits = f"{time} >= {YEAR_1000}"
    if "%y" in form:
        fits = f"{time} <= {int((clock.time() + YEAR) * 1e6)}"
    return f"(CASE WHEN {fits} THEN {time} END)"


def twin_of(form: str, counts: Mapping[str, int]) -> str | None:
    """A second date format that fits as many values as `form`, such as one with the day first.

    Returns None if there is no such format. `counts` is the number of values that fit each format.
    """
    if form not in _AMBIGUOUS:
        return None
    twins = [twin for twin in _AMBIGUOUS if twin != form and counts.get(twin) == counts[form]]
    return twins[0] if twins else None


TimeKind = Literal["int", "whole", "fraction", "date"]
Family = Literal["int", "wide", "decimal", "real", "text", "uuid", "date", "other"]
LARGEST_SECONDS = 9_000_000_000_000
"""About the largest number of seconds that fits into an int64 in microseconds."""
# A 64-bit hash. DuckDB gives NULL a hash too, so NULL is left out.
HASH = "CASE WHEN {0} IS NOT NULL THEN hash({0}) END"

EXACT_BITS = {"HALFFLOAT": 11, "FLOAT": 24, "DOUBLE": 53}
"""Up to two to this power, floats of each type represent every integer exactly."""

_INTEGERS = frozenset(
    f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
) - {"UBIGINT"}
_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*"


@dataclass(frozen=True)
class Kinds:
    """Type of the values in each column of a log.

    Parameters
    ----------
    ids : mapping of role to kind
        Type of the user ids and type of the item ids: "int", "text" or "uuid".
    time : {"int", "whole", "fraction", "date"}
        Type of the times: integers; whole numbers in another form, such as 7.0; numbers with a
        fraction, which are stored in millionths; or dates.
    form : str
        Format of dates in text for strptime; `ISO` for dates that DuckDB reads without a format.
    """

    ids: Mapping[Role, IdKind] = field(default_factory=lambda: {"user": "text", "item": "text"})
    time: TimeKind = "int"
    form: str = ISO

    def value(self, role: Role, sql_type: str) -> str:
        """SQL that converts the column of a role; `sql_type` is its type in DuckDB."""
        if role == "time":
            return time_value(LETTER[role], sql_type, self.time, self.form)
        if role == "rating":
            return rating_value(LETTER[role], sql_type)
        return id_value(LETTER[role], sql_type, self.ids[role])


def family(sql_type: str) -> Family:
    """Group of a DuckDB type; the types of a group are converted in the same way."""
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


def id_value(letter: str, sql_type: str, kind: IdKind) -> str:
    """SQL that converts an id to an exact integer or to text; NULL if the value does not fit.

    `letter` is the column of the ids, and `sql_type` its type in DuckDB.
    """
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
        limit = 2 ** EXACT_BITS[sql_type]
        exact = (
            f"CASE WHEN {letter} = trunc({letter}) AND abs({letter}) <= {limit} THEN {letter} END"
        )
    elif group == "decimal":
        exact = f"CASE WHEN {letter} = trunc({letter}) THEN {letter} END"
    if kind == "int":
        return f"TRY_CAST({exact} AS BIGINT)"
    # An integer of any size becomes its digits.
    widest = "UHUGEINT" if sql_type == "UHUGEINT" else "HUGEINT"
    return f"CAST(TRY_CAST({exact} AS {widest}) AS VARCHAR)"


def event_value(value: str, sql_type: str) -> str:
    """SQL that converts an event to text, with 7.0 as 7; '' if it is missing.

    `value` is an SQL expression, and `sql_type` its type in DuckDB.
    """
    text = f"CAST({value} AS VARCHAR)"
    if family(sql_type) in ("decimal", "real"):
        text = f"coalesce({id_value(value, sql_type, 'text')}, {text})"
    return f"coalesce({text}, '')"


def time_value(letter: str, sql_type: str, kind: TimeKind, form: str = ISO) -> str:
    """SQL that converts a time to int64; NULL if the value does not fit `kind`.

    `letter` is the column of the times, and `sql_type` its type in DuckDB.
    """
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
    # A fraction among whole times does not fit: `LogTable` then decides from all rows.
    return f"TRY(CAST(CASE WHEN NOT {is_fraction(number)} THEN round({number}) END AS BIGINT))"


def as_number(text: str) -> str:
    """SQL that converts text to a decimal number; NULL for `inf`, `nan` and any other text."""
    decimal = f"TRY_CAST(trim({text}) AS DECIMAL(38, 6))"
    return f"(CASE WHEN regexp_full_match({text}, '{_NUMBER}') THEN {decimal} END)"


def is_fraction(number: str) -> str:
    """SQL condition that is true for a number with a fractional part.

    A number too large for a time in seconds does not count: in microseconds it would exceed int64.
    """
    return f"({number} <> trunc({number}) AND abs({number}) < {LARGEST_SECONDS})"


def rating_value(letter: str, sql_type: str) -> str:
    """SQL that converts a rating to DOUBLE; NULL for NaN and text that is no number."""
    number = f"TRY_CAST({letter} AS DOUBLE)"
    if family(sql_type) == "text":
        number = f"TRY_CAST(trim({letter}) AS DOUBLE)"
    return f"CASE WHEN NOT isnan({number}) THEN {number} END"

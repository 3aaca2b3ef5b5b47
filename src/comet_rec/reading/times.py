"""Dates as text: the forms that are recognised, and which one a column has."""

from __future__ import annotations

import time as clock

from comet_rec.errors import DataError, argument
from comet_rec.reading.database import quoted

ISO = ""
"""In place of a form: what DuckDB casts to a time, such as 2024-05-01 or 2024-05-01T10:00:00Z."""

YEAR = 366 * 86_400
YEAR_1000 = -30_610_224_000_000_000
"""The beginning of the year 1000, in microseconds since 1970."""

# Forms of which a date may fit several: the day, the month or the year could be in front.
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

# Forms of strptime, in order of preference where a value fits several.
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
    """SQL for microseconds since 1970 of a text; NULL where it is no such time."""
    if form == ISO:
        time = f"TRY(epoch_us(TRY_CAST(trim({text}) AS TIMESTAMPTZ)))"
    else:
        time = f"TRY(epoch_us(CAST(try_strptime(trim({text}), {quoted(form)}) AS TIMESTAMPTZ)))"
    # "17" is no year 17, and a date of two digits, whatever is in front, no future one.
    fits = f"{time} >= {YEAR_1000}"
    if "%y" in form:
        fits = f"{time} <= {int((clock.time() + YEAR) * 1e6)}"
    return f"(CASE WHEN {fits} THEN {time} END)"


def most_fitting(counts: dict[str, int]) -> tuple[str, str | None]:
    """The form that most values have, and another one that as many have; None when there is none.

    Parameters
    ----------
    counts : dict of str to int
        Number of values that fit, by form.
    """
    best = max(counts, key=lambda form: counts[form])
    if best not in _AMBIGUOUS:
        return best, None
    twins = [form for form in _AMBIGUOUS if form != best and counts.get(form) == counts[best]]
    return best, twins[0] if twins and counts[best] else None


def undecided(name: str, label: str, example: str, forms: tuple[str, str]) -> DataError:
    """The error for dates that could have the day, the month or the year in front."""
    return DataError(
        f"{name}: column {label!r}: {example!r} and all other times could be read in two ways; "
        f"pass {argument('time_format', forms[0])} or {argument('time_format', forms[1])}"
    )


def check_form(form: object) -> None:
    """Refuse what is no form of strptime.

    Raises
    ------
    DataError
    """
    if form is None or (isinstance(form, str) and "%" in form):
        return
    raise DataError(f"time_format is {form!r}; give a form of strptime, such as '%d.%m.%Y %H:%M'")

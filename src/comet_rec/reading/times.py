"""Dates as text: the forms that are recognised, and which one a column has."""

from __future__ import annotations

from comet_rec.errors import DataError, argument

ISO = ""
"""In place of a form: what DuckDB casts to a time, such as 2024-05-01 or 2024-05-01T10:00:00Z."""

YEAR_1000 = -30_610_224_000_000_000
"""The beginning of the year 1000, in microseconds since 1970."""

_DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y")
_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y")
_CLOCKS = (" %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", "")

# Forms of strptime, in order of preference where a value fits several.
FORMS: tuple[str, ...] = (
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y-%m-%d %H:%M:%S %Z",
    "%Y-%m-%d %H",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%dT%H%M%SZ",
    "%Y%m%dT%H%M%S",
    "%Y%m%d %H:%M:%S",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%d/%b/%Y:%H:%M:%S %z",
    *(f"%d.%m.%Y{clock}" for clock in _CLOCKS),
    "%d.%m.%y",
    *(f"%b %d, %Y{clock}" for clock in _CLOCKS),
    *(f"%B %d, %Y{clock}" for clock in _CLOCKS),
    *(f"%d %b %Y{clock}" for clock in _CLOCKS),
    *(f"%d %B %Y{clock}" for clock in _CLOCKS),
    *(f"%d-%b-%Y{clock}" for clock in _CLOCKS),
    "%d-%b-%y",
    "%m %d, %Y",
    *(f"{day}{clock}" for day in _MONTH_FIRST for clock in _CLOCKS),
    *(f"{day}{clock}" for day in _DAY_FIRST for clock in _CLOCKS),
)
_TWIN = {
    f"{month}{clock}": f"{day}{clock}"
    for month, day in zip(_MONTH_FIRST, _DAY_FIRST, strict=True)
    for clock in _CLOCKS
}
ACCEPTED = (
    "2017-07-14 02:51:17 (ISO 8601), 14.07.2017 02:51, 07/14/2017 02:51:17 AM, "
    "Fri Jul 14 02:51:17 +0000 2017, 14 Jul 2017, or numbers"
)


def parsed(text: str, form: str) -> str:
    """SQL for microseconds since 1970 of a text; NULL where it is no such time."""
    if form == ISO:
        return f"TRY(epoch_us(TRY_CAST(trim({text}) AS TIMESTAMPTZ)))"
    quoted = form.replace("'", "''")
    time = f"TRY(epoch_us(CAST(try_strptime(trim({text}), '{quoted}') AS TIMESTAMPTZ)))"
    # %Y takes "17" for the year 17.
    return f"(CASE WHEN {time} >= {YEAR_1000} THEN {time} END)" if "%Y" in form else time


def most_fitting(counts: dict[str, int]) -> tuple[str, str | None]:
    """The form that most values have, and another one that as many have; None when there is none.

    Only day-first and month-first dates can be mistaken for one another.

    Parameters
    ----------
    counts : dict of str to int
        Number of values that fit, by form.
    """
    best = max(counts, key=lambda form: counts[form])
    twin = _TWIN.get(best)
    if twin is not None and counts.get(twin, 0) == counts[best] > 0:
        return best, twin
    return best, None


def undecided(name: str, label: str, example: str, forms: tuple[str, str]) -> DataError:
    """The error for dates that could have the day or the month in front."""
    return DataError(
        f"{name}: column {label!r}: {example!r} and all other times could have the day or the "
        f"month in front; pass {argument('time_format', forms[0])} or "
        f"{argument('time_format', forms[1])}"
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

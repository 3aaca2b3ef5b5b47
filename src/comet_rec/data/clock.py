"""Checks of a log's times: rows with another unit, future times, and times that are too early."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass

import numpy as np

from comet_rec.data.interactions import Int64

# Smallest number in each unit: a Unix time of the year 1973. Smaller numbers are positions or
# counts. Larger times, after the year 5138, are taken for the next unit.
_UNITS = {"seconds": 10**8, "milliseconds": 10**11, "microseconds": 10**14, "nanoseconds": 10**17}
_YEAR_9999 = 253_402_300_800
"""End of the year 9999, the last date of most databases, in seconds since 1970."""
_PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_YEAR = 366 * 86_400
LATE = "more than a year in the future,"


@dataclass(frozen=True)
class Doubt:
    """Some rows of a log have times that do not fit the times of its other rows.

    Parameters
    ----------
    kind : {"units", "future", "past"}
        Another unit than the other times, later than today, or much too early.
    count : int
        Number of rows with a doubtful time.
    example : int
        One of the doubtful times.
    message : str
        One line for the user.
    """

    kind: str
    count: int
    example: int
    message: str


def doubtful_times(times: Int64, now: float | None = None, *, dated: bool = False) -> list[Doubt]:
    """Find times that are probably wrong: mixed units, more than a year in the future, too early.

    The result is empty if all rows share the property, because a log may be old or count time from
    its own zero. Times must be comparable across users.

    Parameters
    ----------
    times : int64 [R]
        Times of all rows, in the unit of the log, e.g. seconds.
    now : float, optional
        Present Unix time; by default the clock of the machine.
    dated : bool
        Whether the times are microseconds since 1970. If not, their unit is unknown.
    """
    if len(times) == 0:
        return []
    latest = (clock.time() if now is None else now) + _YEAR
    low, high = int(times.min()), int(times.max())
    if dated:
        late, early = times > int(latest * 1e6), times < 0
        return [
            _part(times, rows, kind, description)
            for rows, kind, description in (
                (late, "future", LATE),
                (early, "past", "before 1970,"),
            )
            if rows.any() and not rows.all()
        ]
    if high < _UNITS["seconds"]:
        return []  # positions, days, or seconds since another start than 1970
    first, last = _unit_of(low), _unit_of(high)
    if first == last is not None and high <= latest * _PER_SECOND[last]:
        return []  # the usual case: smallest and largest time have the same unit, so all have it
    if first == last is not None:  # one unit: only times in the future are left to check
        late = times > int(latest * _PER_SECOND[last])
        return [] if late.all() else [_part(times, late, "future", LATE)]
    names, limits = list(_UNITS), list(_UNITS.values())
    bucket = np.searchsorted(limits, times, side="right")  # [R]: 0 is below all units
    counts = np.bincount(bucket, minlength=len(limits) + 1)
    main = int(np.argmax(counts[1:]))
    if counts[1:].max() < counts[0]:
        return []  # mostly small numbers, which have no unit
    # Dates up to the year 9999 stand for "never". In the main unit they fall into the range of the
    # next unit, so put them back into the main unit.
    far = (bucket == main + 2) & (times <= _YEAR_9999 * _PER_SECOND[names[main]])
    bucket[far] = main + 1
    counts = np.bincount(bucket, minlength=len(limits) + 1)
    doubts = []
    present = [place for place in range(len(names)) if counts[place + 1] > 0]
    if len(present) > 1:
        numbers = ", ".join(
            f"{counts[place + 1]:,} in {names[place]} "
            f"({int(times[np.argmax(bucket == place + 1)])})"
            for place in present
        )
        few = min(present, key=lambda place: int(counts[place + 1]))
        doubts.append(
            Doubt(
                "units",
                int(counts[1:].sum() - counts[main + 1]),
                int(times[np.argmax(bucket == few + 1)]),
                f"times look like more than one unit: {numbers}; convert them to one",
            )
        )
    late = (bucket == main + 1) & (times > int(latest * _PER_SECOND[names[main]]))
    if late.any() and not late.all():
        doubts.append(_part(times, late, "future", LATE))
    early = bucket == 0
    if early.any():
        doubts.append(_part(times, early, "past", "before 1973, where missing times often end up,"))
    return doubts


def dates(times: Int64, *, dated: bool = False) -> tuple[str, str] | None:
    """First and last date of a log in UTC, as text; None if the times are not since 1970.

    Parameters
    ----------
    times : int64 [R]
        Times of all rows, in the unit of the log, e.g. seconds; at least one.
    dated : bool
        Whether the times are microseconds since 1970. If not, the numbers show the unit.
    """
    per = per_second(times, dated=dated)
    if per is None:
        return None
    seconds = [int(value) // per for value in (times.min(), times.max())]
    # Of dates without a time of day only the day is shown.
    precision = "D" if all(value % 86_400 == 0 for value in seconds) else "s"
    first, last = (
        str(np.datetime64(value, "s").astype(f"datetime64[{precision}]")).replace("T", " ")
        for value in seconds
    )
    return first, last


def per_second(times: Int64, *, dated: bool = False) -> int | None:
    """Units of time in a second; None if the times are not since 1970, or of several units.

    Parameters are those of `dates`.
    """
    if dated:
        return _PER_SECOND["microseconds"]
    units = {_unit_of(int(value)) for value in (times.min(), times.max())}
    (unit, *others) = units
    return None if unit is None or others else _PER_SECOND[unit]


def date_of(time: int, per: int) -> str:
    """Date and time of day in UTC, as text.

    Parameters
    ----------
    time : int
        Time since 1970.
    per : int
        Units of `time` in a second.
    """
    return str(np.datetime64(int(time) // per, "s")).replace("T", " ")


def _unit_of(value: int) -> str | None:
    names = [name for name, least in _UNITS.items() if value >= least]
    return names[-1] if names else None


def _part(
    times: Int64, rows: np.ndarray[tuple[int], np.dtype[np.bool_]], kind: str, description: str
) -> Doubt:
    count, example = int(rows.sum()), int(times[np.argmax(rows)])
    return Doubt(
        kind,
        count,
        example,
        f"{count:,} of {len(times):,} times are {description} such as {example}",
    )

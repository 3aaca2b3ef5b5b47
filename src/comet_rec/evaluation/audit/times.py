"""Checks of times and of the order of rows.

They find equal, rounded and implausible times, rows in the order of item ids, and training rows
later than the test.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.clock import doubtful_times
from comet_rec.data.split import TEST, parts_at
from comet_rec.evaluation.audit.findings import Hit
from comet_rec.evaluation.audit.material import Bool, Held, Int64, Material

ENOUGH_STEPS = 100
"""Fewest steps for `order_of_ids`; a smaller number could follow item ids by chance.

A step leads from a row of a user to the user's next row.
"""
ENOUGH_TIMES = 20
"""Fewest distinct times for `truncated`; fewer could all be multiples of 4 by chance."""
MOST_STEPS = 0.95
"""Share of steps in the order of item ids from which `order_of_ids` reports a fault."""

_HOURS = (3_600, 3_600_000, 3_600_000_000)
"""One hour in seconds, milliseconds and microseconds; whole hours are rounded on purpose."""


def no_times(material: Material) -> Hit | None:
    """Check for a log without times."""
    rows = len(material.log)
    if material.log.times is not None:
        return None
    return Hit(rows, rows, "no row has a time: the order of the file decides what is held out")


def all_equal(material: Material) -> Hit | None:
    """Check for a log whose times are all equal."""
    times = material.times
    if times is None or material.different_times is not None:
        return None
    message = "all times are equal: the order of the file decides what is held out"
    return Hit(len(times), len(times), message, {"time": int(times[0])})


def held_out_ties(material: Material, held: Held) -> Hit | None:
    """Check for held-out rows with the same time as the user's previous row.

    In a split by time, the order of the file chooses nothing.
    """
    if material.by_time is not None:
        return None
    rows = np.flatnonzero(material.part == held.part)
    message = (
        f"users ({{share}}): the {held.name} item has the same time as the row before it, so the "
        "order of the file chose it"
    )
    return material.hit(_tied(material)[rows], message, **material.columns(rows))


def tied_steps(material: Material) -> Hit | None:
    """Check for consecutive rows of a user with equal times."""
    rows = np.flatnonzero(_steps(material))
    message = "steps within users ({share}) are between equal times"
    return material.hit(_tied(material)[rows], message, **material.columns(rows))


def truncated(material: Material) -> Hit | None:
    """Check for times that were rounded to 32-bit floats.

    All such times are exact as 32-bit floats, which is rare for real times.
    """
    times = material.different_times
    if times is None or len(times) == 0:
        return None
    # Small times lose at most one bit in a 32-bit float, which has 24 bits.
    if max(int(times.max()), -int(times.min())) < 2**25:
        return None
    if bool((times.astype(np.float32).astype(np.float64) != times).any()):
        return None
    distinct = np.unique(times)
    if len(distinct) < ENOUGH_TIMES:
        return None
    common = int(np.gcd.reduce(distinct))
    if any(common % hour == 0 for hour in _HOURS):
        return None
    message = (
        f"all times are multiples of {common & -common}, as after rounding to 32-bit floats: the "
        "order within users is blurred; read the times as 64-bit integers"
    )
    return Hit(len(times), len(times), message, {"time": int(distinct[-1])})


def several_units(material: Material) -> Hit | None:
    """Check for times in more than one unit, such as seconds and milliseconds."""
    return _doubt(material, "units")


def far_ahead(material: Material) -> Hit | None:
    """Check for times more than a year in the future."""
    return _doubt(material, "future")


def long_past(material: Material) -> Hit | None:
    """Check for times before 1973."""
    return _doubt(material, "past")


def order_of_ids(material: Material) -> Hit | None:
    """Check for users' rows that are nearly always sorted by item id, ascending or descending."""
    items, steps = material.log.items, _steps(material)
    # Without different times, the order of the file decides every step.
    tied = steps if material.different_times is None else _tied(material)
    for mask, message in ((steps, "steps within users"), (tied, "steps between equal times")):
        rows = np.flatnonzero(mask)
        if len(rows) < ENOUGH_STEPS:
            continue
        up = items[rows] > items[rows - 1]
        follows = up if 2 * int(up.sum()) >= len(up) else items[rows] < items[rows - 1]
        if follows.mean() >= MOST_STEPS:
            message += (
                " are in the order of item ids, a pattern that sequence models learn; unless ids "
                "grow with the age of items, restore the true order"
            )
            return material.hit(follows, message, user=material.log.users[rows])
    return None


def per_user_times(material: Material) -> Hit | None:
    """Check for times that can be compared only within a user, not between users."""
    rows = len(material.log)
    if material.different_times is None or material.log.time_scope == "global":
        return None
    message = (
        "times order only the rows of each user: training rows later than the test cannot be found"
    )
    return Hit(rows, rows, message)


def rows_in_the_wrong_part(material: Material) -> Hit | None:
    """Check for rows of a split by time whose part does not fit their time."""
    if material.by_time is None:
        return None
    rows = np.arange(len(material.log))
    wrong = material.part != parts_at(material.log, material.by_time)
    message = "rows are in another part than the moment of the split demands"
    return material.hit(wrong, message, **material.columns(rows))


def rows_after_the_test(material: Material) -> Hit | None:
    """Check for training rows later than the median test time."""
    times = _clock(material)
    if times is None:
        return None
    rows = np.flatnonzero(material.train)
    later = times[rows] > np.median(times[material.part == TEST])
    message = (
        "training rows ({share}) are later than the median test time, which leave-one-out allows"
    )
    return material.hit(later, message, **material.columns(rows))


def users_before_others(material: Material) -> Hit | None:
    """Check for users whose test time is before some training row of another user."""
    times = _clock(material)
    if times is None:
        return None
    users, train = material.log.users, material.train
    rows = np.flatnonzero(material.part == TEST)
    latest = _latest_of_others(users[train], times[train], users[rows])
    message = "users have a test time before some training row of another user"
    return material.hit(times[rows] < latest, message, **material.columns(rows))


def items_from_the_future(material: Material) -> Hit | None:
    """Check for test items whose first training row is later than the user's test time."""
    times = _clock(material)
    if times is None:
        return None
    log, train = material.log, material.train
    rows = np.flatnonzero(material.part == TEST)
    never = np.iinfo(np.int64).max
    first = np.full(log.n_items, never, dtype=np.int64)  # first training time of each item
    np.minimum.at(first, log.items[train], times[train])
    begin = first[log.items[rows]]
    message = (
        "users have a test item that first occurs in training after the test time: nobody could "
        "have recommended it then"
    )
    mask = (begin > times[rows]) & (begin < never)
    return material.hit(mask, message, **material.columns(rows))


def _steps(material: Material) -> Bool:
    """Whether each row has a real time and follows a row of the same user, bool [R]."""
    users = material.log.users
    steps = np.zeros(len(users), dtype=bool)
    steps[1:] = (users[1:] == users[:-1]) & material.timed[1:]
    return steps


def _tied(material: Material) -> Bool:
    """Whether each row has the same time as the user's previous row, bool [R].

    All values are False if the log has no times, or if all times are equal.
    """
    tied, times = _steps(material), material.log.times
    if times is None or material.different_times is None:
        return np.zeros_like(tied)
    tied[1:] &= times[1:] == times[:-1]
    return tied


def _doubt(material: Material, kind: Literal["units", "future", "past"]) -> Hit | None:
    """Hit for doubtful times of one kind: several units, future times or times before 1973."""
    log, times = material.log, material.different_times
    if times is None or log.time_scope != "global":
        return None
    for doubt in doubtful_times(times, dated=log.dated):
        if doubt.kind == kind:
            row = np.flatnonzero(material.timed & (log.times == doubt.example))[:1]
            example = material.example(0, **material.columns(row))
            return Hit(doubt.count, len(times), doubt.message, example)
    return None


def _clock(material: Material) -> Int64 | None:
    """Times of all rows, int64 [R].

    None if test times and training times of different users cannot be compared.
    """
    comparable = (
        material.different_times is not None
        and material.log.time_scope == "global"
        and material.test_times
        and bool((material.part == TEST).any())
        and bool(material.train.any())
    )
    return material.log.times if comparable else None


def _latest_of_others(
    users: npt.NDArray[np.int32], times: Int64, tested: npt.NDArray[np.int32]
) -> Int64:
    """For each user in `tested`, the latest time among the rows of all other users.

    `users` and `times` have one entry for each row. The result is int64 [len(tested)].
    """
    latest = int(np.argmax(times))
    top, lowest = users[latest], np.iinfo(np.int64).min
    # The user with the latest time gets the latest time of the other users.
    second = times.max(where=users != top, initial=lowest)
    return np.asarray(np.where(tested == top, second, times[latest]))

"""Checks of order and time: ties, truncated times, order by id, rows from the future."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.clock import doubtful_times
from comet_rec.data.interactions import Int64
from comet_rec.data.split import TEST
from comet_rec.evaluation.audit.findings import Hit, counted
from comet_rec.evaluation.audit.material import Held, Material

Bool = npt.NDArray[np.bool_]

ENOUGH_STEPS = 100
"""Steps below which chance could put them in the order of ids."""

ENOUGH_TIMES = 20
"""Distinct times below which they could all be multiples of 4 by chance."""

MOST_STEPS = 0.95
"""Share of steps in the order of ids that no log of people's choices has by chance."""

_HOURS = (3_600, 3_600_000, 3_600_000_000)
"""An hour in seconds, milliseconds, microseconds: coarser times are coarse on purpose."""


def no_times(material: Material) -> Hit | None:
    """Logs without times."""
    rows = len(material.log)
    if material.log.times is not None:
        return None
    what = "no row has a time: the order of the file decides what is held out"
    return Hit(rows, rows, what)


def all_equal(material: Material) -> Hit | None:
    """Logs whose times are all one."""
    times = _times(material)
    if times is None or not _one_time(times):
        return None
    what = "all times are equal: the order of the file decides what is held out"
    return Hit(len(times), len(times), what, {"time": int(times[0])})


def held_out_ties(material: Material, held: Held) -> Hit | None:
    """Held-out rows with the time of the row before them."""
    rows = np.flatnonzero(material.part == held.part)
    mask = _tied(material)[rows]
    if not mask.any():
        return None
    what = (
        f"users ({mask.mean():.1%}): the {held.name} item has the time of the row before it, so "
        "the order of the file chose it"
    )
    return counted(mask, what, lambda n: material.row(int(rows[n])))


def tied_steps(material: Material) -> Hit | None:
    """Steps within users between equal times."""
    steps = np.flatnonzero(_steps(material))
    mask = _tied(material)[steps]
    if not mask.any():
        return None
    what = f"steps within users ({mask.mean():.1%}) are between equal times"
    return counted(mask, what, lambda n: material.row(int(steps[n])))


def truncated(material: Material) -> Hit | None:
    """Times that all survive the way through 32-bit floats, as by chance only few do."""
    times = _times(material)
    if times is None or len(times) == 0 or _one_time(times):
        return None
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
    what = (
        f"all times are multiples of {common & -common}, as 32-bit floats leave them: the order "
        "within users is blurred; read the times as 64-bit integers"
    )
    return Hit(len(times), len(times), what, {"time": int(distinct[-1])})


def several_units(material: Material) -> Hit | None:
    """Times of more than one unit."""
    return _doubt(material, "units")


def far_ahead(material: Material) -> Hit | None:
    """Times more than a year ahead."""
    return _doubt(material, "future")


def long_past(material: Material) -> Hit | None:
    """Times before 1973."""
    return _doubt(material, "past")


def order_of_ids(material: Material) -> Hit | None:
    """Steps that go up (or down) with the item's id nearly always."""
    items, steps = material.log.items, _steps(material)
    times = _times(material)
    # Without times, or with one alone, the order of the file counts for every step.
    tied = steps if times is None or _one_time(times) else _tied(material)
    for mask, what in ((steps, "steps within users"), (tied, "steps between equal times")):
        rows = np.flatnonzero(mask)
        if len(rows) < ENOUGH_STEPS:
            continue
        up = items[rows] > items[rows - 1]
        follows = up if 2 * int(up.sum()) >= len(up) else items[rows] < items[rows - 1]
        if follows.mean() >= MOST_STEPS:
            what += (
                " are in the order of item ids, a pattern that sequence models learn; unless ids "
                "are given by age, restore the true order"
            )
            users = material.log.users[rows]
            return counted(
                follows,
                what,
                lambda n, users=users: material.example(user=users[n]),  # type: ignore[misc]
            )
    return None


def per_user_times(material: Material) -> Hit | None:
    """Times that order the rows of one user only."""
    times, rows = _times(material), len(material.log)
    if times is None or _one_time(times) or material.log.time_scope == "global":
        return None
    what = "times order the rows of one user only: rows from the future cannot be looked for"
    return Hit(rows, rows, what)


def rows_after_the_test(material: Material) -> Hit | None:
    """Training rows later than the median test time."""
    if not _has_clock(material):
        return None
    times, train = _all_times(material), np.flatnonzero(material.train)
    later = times[train] > np.median(times[material.part == TEST])
    what = (
        f"training rows ({later.mean():.1%}) are later than the median test time, as leave-one-out "
        "has it"
    )
    return counted(later, what, lambda n: material.row(int(train[n])))


def users_before_others(material: Material) -> Hit | None:
    """Users who are tested at a time before some training row of others."""
    if not _has_clock(material):
        return None
    log, times, train = material.log, _all_times(material), material.train
    test = np.flatnonzero(material.part == TEST)
    latest = _latest_of_others(log.users[train], times[train], log.users[test])
    what = "users are tested at a time before some training row of others"
    return counted(times[test] < latest, what, lambda n: material.row(int(test[n])))


def items_from_the_future(material: Material) -> Hit | None:
    """Test items that first occur in training after the test moment."""
    if not _has_clock(material):
        return None
    log, times, train = material.log, _all_times(material), material.train
    test = np.flatnonzero(material.part == TEST)
    never = np.iinfo(np.int64).max
    first = np.full(log.n_items, never, dtype=np.int64)  # first training time of each item
    np.minimum.at(first, log.items[train], times[train])
    begin = first[log.items[test]]
    what = (
        "users have a test item that first occurs in training after the test moment: nobody could "
        "have recommended it then"
    )
    mask = (begin > times[test]) & (begin < never)
    return counted(mask, what, lambda n: material.row(int(test[n])))


def _rows(material: Material) -> Bool:
    """Rows whose order and times are the log's own, bool [R]."""
    if material.test_times:
        return np.ones(len(material.log), dtype=bool)
    return np.asarray(material.part != TEST)


def _times(material: Material) -> Int64 | None:
    """Times of the rows that have times of their own; None for a log without times."""
    times = material.log.times
    return None if times is None else times[_rows(material)]


def _all_times(material: Material) -> Int64:
    assert material.log.times is not None
    return material.log.times


def _one_time(times: Int64) -> bool:
    return len(times) > 1 and bool((times == times[0]).all())


def _steps(material: Material) -> Bool:
    """Rows with a row of the same user before them, bool [R]."""
    users = material.log.users
    steps = np.zeros(len(users), dtype=bool)
    steps[1:] = (users[1:] == users[:-1]) & _rows(material)[1:]
    return steps


def _tied(material: Material) -> Bool:
    """Steps between equal times, bool [R]; none where the log has no times or one alone."""
    times, own = material.log.times, _times(material)
    tied = _steps(material)
    if times is None or own is None or _one_time(own):
        return np.zeros_like(tied)
    tied[1:] &= times[1:] == times[:-1]
    return tied


def _doubt(material: Material, kind: Literal["units", "future", "past"]) -> Hit | None:
    times = _times(material)
    if times is None or _one_time(times) or material.log.time_scope != "global":
        return None
    for doubt in doubtful_times(times, dated=material.log.dated):
        if doubt.kind == kind:
            at = _rows(material) & (_all_times(material) == doubt.example)
            example = material.row(int(np.argmax(at)))
            return Hit(doubt.count, len(times), doubt.message, example)
    return None


def _has_clock(material: Material) -> bool:
    """Whether test and training rows have times that compare across users."""
    times = _times(material)
    return (
        times is not None
        and not _one_time(times)
        and material.log.time_scope == "global"
        and material.test_times
        and bool((material.part == TEST).any())
        and bool(material.train.any())
    )


def _latest_of_others(
    users: npt.NDArray[np.int32], times: Int64, tested: npt.NDArray[np.int32]
) -> Int64:
    """Latest time that somebody else has, int64 [len(tested)]."""
    latest = int(np.argmax(times))
    top, lowest = users[latest], np.iinfo(np.int64).min
    # Only the user with the latest time needs the second-latest user's.
    second = times.max(where=users != top, initial=lowest)
    return np.asarray(np.where(tested == top, second, times[latest]))

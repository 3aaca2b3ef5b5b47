"""Checks of order and time: ties, truncated times, order by id, rows from the future."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.clock import doubtful_times
from comet_rec.data.split import TEST
from comet_rec.evaluation.audit.findings import Hit
from comet_rec.evaluation.audit.material import Bool, Held, Int64, Material

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
    return Hit(rows, rows, "no row has a time: the order of the file decides what is held out")


def all_equal(material: Material) -> Hit | None:
    """Logs whose times are all one."""
    times = material.times
    if times is None or material.different_times is not None:
        return None
    what = "all times are equal: the order of the file decides what is held out"
    return Hit(len(times), len(times), what, {"time": int(times[0])})


def held_out_ties(material: Material, held: Held) -> Hit | None:
    """Held-out rows with the time of the row before them."""
    rows = np.flatnonzero(material.part == held.part)
    what = (
        f"users ({{share}}): the {held.name} item has the time of the row before it, so the order "
        "of the file chose it"
    )
    return material.hit(_tied(material)[rows], what, **material.columns(rows))


def tied_steps(material: Material) -> Hit | None:
    """Steps within users between equal times."""
    rows = np.flatnonzero(_steps(material))
    what = "steps within users ({share}) are between equal times"
    return material.hit(_tied(material)[rows], what, **material.columns(rows))


def truncated(material: Material) -> Hit | None:
    """Times that all survive the way through 32-bit floats, as by chance only few do."""
    times = material.different_times
    if times is None or len(times) == 0:
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
    # Without times, or with one alone, the order of the file counts for every step.
    tied = steps if material.different_times is None else _tied(material)
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
            return material.hit(follows, what, user=material.log.users[rows])
    return None


def per_user_times(material: Material) -> Hit | None:
    """Times that order the rows of one user only."""
    rows = len(material.log)
    if material.different_times is None or material.log.time_scope == "global":
        return None
    what = "times order the rows of one user only: rows from the future cannot be looked for"
    return Hit(rows, rows, what)


def rows_after_the_test(material: Material) -> Hit | None:
    """Training rows later than the median test time."""
    times = _clock(material)
    if times is None:
        return None
    rows = np.flatnonzero(material.train)
    later = times[rows] > np.median(times[material.part == TEST])
    what = "training rows ({share}) are later than the median test time, as leave-one-out has it"
    return material.hit(later, what, **material.columns(rows))


def users_before_others(material: Material) -> Hit | None:
    """Users who are tested at a time before some training row of others."""
    times = _clock(material)
    if times is None:
        return None
    users, train = material.log.users, material.train
    rows = np.flatnonzero(material.part == TEST)
    latest = _latest_of_others(users[train], times[train], users[rows])
    what = "users are tested at a time before some training row of others"
    return material.hit(times[rows] < latest, what, **material.columns(rows))


def items_from_the_future(material: Material) -> Hit | None:
    """Test items that first occur in training after the test moment."""
    times = _clock(material)
    if times is None:
        return None
    log, train = material.log, material.train
    rows = np.flatnonzero(material.part == TEST)
    never = np.iinfo(np.int64).max
    first = np.full(log.n_items, never, dtype=np.int64)  # first training time of each item
    np.minimum.at(first, log.items[train], times[train])
    begin = first[log.items[rows]]
    what = (
        "users have a test item that first occurs in training after the test moment: nobody could "
        "have recommended it then"
    )
    mask = (begin > times[rows]) & (begin < never)
    return material.hit(mask, what, **material.columns(rows))


def _steps(material: Material) -> Bool:
    """Rows with a row of the same user before them, bool [R]."""
    users = material.log.users
    steps = np.zeros(len(users), dtype=bool)
    steps[1:] = (users[1:] == users[:-1]) & material.timed[1:]
    return steps


def _tied(material: Material) -> Bool:
    """Steps between equal times, bool [R]; none where the log has no times or one alone."""
    tied, times = _steps(material), material.log.times
    if times is None or material.different_times is None:
        return np.zeros_like(tied)
    tied[1:] &= times[1:] == times[:-1]
    return tied


def _doubt(material: Material, kind: Literal["units", "future", "past"]) -> Hit | None:
    """A hit of rows whose times are doubtful in one way."""
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
    """Times of all rows if those of test and training rows compare across users; else None."""
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
    """Latest time that somebody else has, int64 [len(tested)]."""
    latest = int(np.argmax(times))
    top, lowest = users[latest], np.iinfo(np.int64).min
    # Only the user with the latest time needs the second-latest user's.
    second = times.max(where=users != top, initial=lowest)
    return np.asarray(np.where(tested == top, second, times[latest]))

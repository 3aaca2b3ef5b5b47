"""Checks of order and time: ties, truncated times, order by id, rows from the future."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from comet_rec.data.clock import doubtful_times
from comet_rec.data.interactions import Int64
from comet_rec.data.split import TEST, TRAIN
from comet_rec.evaluation.audit.findings import Finding
from comet_rec.evaluation.audit.material import Material

Bool = npt.NDArray[np.bool_]

ENOUGH_STEPS = 100
"""Steps below which chance could put them in the order of ids."""

ENOUGH_TIMES = 20
"""Distinct times below which they could all be multiples of 4 by chance."""

MOST_STEPS = 0.95
"""Share of steps in the order of ids that no log of people's choices has by chance."""

_HOURS = (3_600, 3_600_000, 3_600_000_000)
"""An hour in seconds, milliseconds, microseconds: coarser times are coarse on purpose."""


def order_and_time(material: Material) -> Iterator[Finding]:
    """All findings about order and time."""
    log, times = material.log, material.log.times
    rows = material.part != TEST if not material.test_times else np.ones(len(log), dtype=bool)
    step = np.zeros(len(log), dtype=bool)  # a row with a row of the same user before it
    step[1:] = (log.users[1:] == log.users[:-1]) & rows[1:]
    if times is None:
        yield Finding(
            "no-times",
            "note",
            len(log),
            len(log),
            "no row has a time: the order of the file decides what is held out",
        )
        yield from _by_id(material, step, step)
        return
    if int(rows.sum()) > 1 and bool((times[rows] == times[rows][0]).all()):
        yield Finding(
            "times-equal",
            "warning",
            int(rows.sum()),
            int(rows.sum()),
            "all times are equal: the order of the file decides what is held out",
            {"time": int(times[rows][0])},
        )
        yield from _by_id(material, step, step)
        return
    tied = step.copy()
    tied[1:] &= times[1:] == times[:-1]
    yield from _split_ties(material, tied)
    if tied.any():
        yield Finding(
            "tied-steps",
            "note",
            int(tied.sum()),
            int(step.sum()),
            f"{int(tied.sum()):,} of {int(step.sum()):,} steps within users "
            f"({tied.sum() / step.sum():.1%}) are between equal times",
            material.example(**_row(material, int(np.argmax(tied)))),
        )
    yield from _truncated(times[rows])
    if log.time_scope == "global":
        for doubt in doubtful_times(times[rows], dated=log.dated):
            at = int(np.flatnonzero(rows & (times == doubt.example))[0])
            yield Finding(
                f"times-{doubt.kind}",
                "warning",
                doubt.count,
                int(rows.sum()),
                doubt.message,
                material.example(**_row(material, at)),
            )
    yield from _by_id(material, step, tied)
    yield from _future(material, times)


def _split_ties(material: Material, tied: Bool) -> Iterator[Finding]:
    """Held-out rows with the time of the row before them."""
    for held in material.held:
        at = material.part == held.part
        hit = tied & at
        if hit.any():
            count, of = int(hit.sum()), int(at.sum())
            yield Finding(
                f"{held.name}-ties",
                "warning",
                count,
                of,
                f"{count:,} of {of:,} users ({count / of:.1%}): the {held.name} item has the time "
                "of the row before it, so the order of the file chose it",
                material.example(**_row(material, int(np.argmax(hit)))),
            )


def _truncated(times: Int64) -> Iterator[Finding]:
    """Times that all survive the way through 32-bit floats, as by chance only few do."""
    if len(times) == 0 or max(int(times.max()), -int(times.min())) < 2**25:
        return
    if bool((times.astype(np.float32).astype(np.float64) != times).any()):
        return
    distinct = np.unique(times)
    if len(distinct) < ENOUGH_TIMES:
        return
    common = int(np.gcd.reduce(distinct))
    if any(common % hour == 0 for hour in _HOURS):
        return
    yield Finding(
        "times-truncated",
        "warning",
        len(times),
        len(times),
        f"all times are multiples of {common & -common}, as 32-bit floats leave them: "
        "the order within users is blurred; read the times as 64-bit integers",
        {"time": int(distinct[-1])},
    )


def _by_id(material: Material, step: Bool, file_order: Bool) -> Iterator[Finding]:
    """Steps that go up (or down) with the item's id nearly always.

    Parameters
    ----------
    step : bool [R]
        Rows with a row of the same user before them.
    file_order : bool [R]
        Those of them that no time orders.
    """
    items = material.log.items
    for which, what in (
        (step, "steps within users"),
        (file_order, "steps between equal times"),
    ):
        at = np.flatnonzero(which)
        if len(at) < ENOUGH_STEPS:
            continue
        up = items[at] > items[at - 1]
        follows = up if 2 * int(up.sum()) >= len(up) else items[at] < items[at - 1]
        if follows.mean() >= MOST_STEPS:
            count = int(follows.sum())
            yield Finding(
                "order-follows-ids",
                "warning",
                count,
                len(at),
                f"{count:,} of {len(at):,} {what} are in the order of item ids, a pattern that "
                "sequence models learn; unless ids are given by age, restore the true order",
                material.example(user=material.log.users[at[np.argmax(follows)]]),
            )
            return


def _future(material: Material, times: Int64) -> Iterator[Finding]:
    """What training knows of the time after a test moment; needs times of one clock."""
    log = material.log
    train, test = np.flatnonzero(material.part == TRAIN), np.flatnonzero(material.part == TEST)
    if log.time_scope != "global":
        yield Finding(
            "times-per-user",
            "note",
            len(log),
            len(log),
            "times order the rows of one user only: rows from the future cannot be looked for",
        )
        return
    if not material.test_times or len(test) == 0 or len(train) == 0:
        return
    moment, train_times = times[test], times[train]
    median = np.median(moment)
    later = train_times > median
    if later.any():
        yield Finding(
            "future-rows",
            "note",
            int(later.sum()),
            len(train),
            f"{int(later.sum()):,} of {len(train):,} training rows ({later.mean():.1%}) are later "
            "than the median test time, as leave-one-out has it",
            material.example(**_row(material, int(train[np.argmax(later)]))),
        )
    early = moment < _latest_of_others(log.users[train], train_times, log.users[test])
    if early.any():
        yield Finding(
            "future-users",
            "note",
            int(early.sum()),
            len(test),
            f"{int(early.sum()):,} of {len(test):,} users are tested at a time before some "
            "training row of others",
            material.example(**_row(material, int(test[np.argmax(early)]))),
        )
    never = np.iinfo(np.int64).max
    first = np.full(log.n_items, never, dtype=np.int64)
    np.minimum.at(first, log.items[train], train_times)
    begin = first[log.items[test]]
    new = (begin > moment) & (begin < never)
    if new.any():
        yield Finding(
            "test-future-items",
            "warning",
            int(new.sum()),
            len(test),
            f"{int(new.sum()):,} of {len(test):,} users have a test item that first occurs in "
            "training after the test moment: nobody could have recommended it then",
            material.example(**_row(material, int(test[np.argmax(new)]))),
        )


def _latest_of_others(
    users: npt.NDArray[np.int32], times: Int64, tested: npt.NDArray[np.int32]
) -> Int64:
    """Latest time that somebody else has, int64 [len(tested)]."""
    latest = int(np.argmax(times))
    top, lowest = users[latest], np.iinfo(np.int64).min
    second = times.max(where=users != top, initial=lowest)
    return np.asarray(np.where(tested == top, second, times[latest]))


def _row(material: Material, row: int) -> dict[str, int]:
    """Indices and time of a row, for `Material.example`."""
    log = material.log
    found = {"user": int(log.users[row]), "item": int(log.items[row])}
    return found if log.times is None else found | {"time": int(log.times[row])}

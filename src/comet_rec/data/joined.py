"""A log joined with new rows: its ids, its rows, and where the old indices are now."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from comet_rec.data.ids import Ids, NoIdError
from comet_rec.data.interactions import Interactions
from comet_rec.errors import CometWarning, DataError

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

UNITS = 500
"""Factor between the latest times of two logs above which they are not in the same unit.

Seconds and milliseconds differ by 1,000. The check needs a time that could be a date."""
DATES = 100_000_000
"""Least number that could be a date: seconds from 1970 to 1973."""


@dataclass(frozen=True, eq=False)
class Joined:
    """A log with new rows.

    Indices follow sorted ids, so a new id moves the indices of all ids behind it.

    Parameters
    ----------
    log : Interactions
        All rows, old and new.
    users, items : int64 [m], [n]
        Index in `log` of each user and item of the old log; both ascend.
    new_rows : bool [R]
        Rows of `log` that the old log lacks.
    """

    log: Interactions
    users: Int64
    items: Int64
    new_rows: Bool

    @property
    def new_users(self) -> Bool:
        """Users that the old log lacks, bool [n_users]."""
        return _absent(self.users, self.log.n_users)

    @property
    def new_items(self) -> Bool:
        """Items that the old log lacks, bool [n_items]."""
        return _absent(self.items, self.log.n_items)


def joined(
    old: Interactions,
    new: Interactions,
    repeats: Literal["first", "last"] = "first",
    more_items: Sequence[Any] = (),
) -> Joined:
    """Join a log and new rows.

    Of a pair that both hold, the earliest row counts, or with `repeats` "last" the latest; of
    equal times, or without times, the row of the old log, or with "last" the new one. So the result
    is the log of all rows. `more_items` are ids of items that join the catalogue even without a
    row.

    Raises
    ------
    DataError
        When the ids or the times of the two logs do not fit together.

    Warns
    -----
    CometWarning
        When times within a user do not go on where the old log ends.
    """
    user_ids, old_users, users_of_new = _united(old.user_ids, _all(new.user_ids), "user")
    with_rows = _all(new.item_ids)
    item_ids, old_items, items_of_new = _united(old.item_ids, [*with_rows, *more_items], "item")
    _check_times(old, new)
    users = np.concatenate([old_users[old.users], users_of_new[new.users]])
    items = np.concatenate([old_items[old.items], items_of_new[new.items]])
    keys = users * len(item_ids) + items
    is_new = np.arange(len(users)) >= len(old)
    if repeats == "first":  # an earlier row of a known pair moves the pair, which stays known
        is_new &= ~np.isin(keys, keys[: len(old)])
    times = None
    if old.time_scope != "none" and old.times is not None and new.times is not None:
        times = np.concatenate([old.times, new.times])

    # `unique` finds the first of equal pairs, so it gets them by time; for "last", turned round.
    # The sort is stable, and the old rows come first.
    places = np.arange(len(keys)) if times is None else np.argsort(times, kind="stable")
    if repeats == "last":
        places = places[::-1]
    kept = np.sort(places[np.unique(keys[places], return_index=True)[1]])
    users, items, is_new, keys = users[kept], items[kept], is_new[kept], keys[kept]
    if times is not None:
        times = times[kept]
        if old.time_scope == "per_user":
            _check_positions(users, times, is_new)
    # By user and time. The sort is stable: without times, new rows come after old ones.
    order = np.lexsort((users,) if times is None else (times, users))

    dropped_users = np.concatenate([old_users[old.dropped_users], users_of_new[new.dropped_users]])
    dropped_items = np.concatenate([old_items[old.dropped_items], items_of_new[new.dropped_items]])
    dropped = np.setdiff1d(dropped_users * len(item_ids) + dropped_items, keys)
    log = replace(
        old,
        users=users[order].astype(np.int32),
        items=items[order].astype(np.int32),
        times=None if times is None else times[order],
        user_ids=user_ids,
        item_ids=item_ids,
        dropped_users=(dropped // len(item_ids)).astype(np.int32),
        dropped_items=(dropped % len(item_ids)).astype(np.int32),
        zero_users=old_users[old.zero_users].astype(np.int32),
        zero_items=old_items[old.zero_items].astype(np.int32),
        dated=old.dated or new.dated,
        origin=None,  # its counts are those of the old rows alone
    )
    return Joined(log, old_users, old_items, is_new[order])


def _absent(places: Int64, count: int) -> Bool:
    absent = np.ones(count, dtype=bool)
    absent[places] = False
    return absent


def _all(ids: Ids) -> list[Any]:
    every: list[Any] = ids.external(np.arange(len(ids))).tolist()
    return every


def _united(old: Ids, new: list[Any], role: str) -> tuple[Ids, Int64, Int64]:
    """All ids, old and new, and the index among them of each old and of each new id."""
    stored = []
    for value in new:
        try:
            stored.append(old.stored(value))
        except NoIdError as error:
            raise DataError(
                f"new rows: {role} {value!r} {error}; the {role} ids of the log are "
                f"{old.in_words}; write new ids alike"
            ) from None
    united = old.union(stored)
    return united, united.index(_all(old)), united.index(stored)


def _check_times(old: Interactions, new: Interactions) -> None:
    """Refuse new rows whose times do not compare with those of the old log.

    Raises
    ------
    DataError
    """
    if old.times is None or old.time_scope == "none":
        return
    if new.times is None:
        raise DataError(
            "the log has times and the new rows have none; name the column of their times"
        )
    if old.time_scope == "per_user" or len(old) == 0 or len(new) == 0:
        return
    latest, later = int(old.times.max()), int(new.times.max())
    ratio = max(later, 1) / max(latest, 1)
    if max(latest, later) >= DATES and not 1 / UNITS < ratio < UNITS:
        raise DataError(
            f"the times of the new rows end at {later} and those of the log at {latest}, which "
            "cannot be the same unit; write the times of both alike"
        )


def _check_positions(users: Int64, times: Int64, is_new: Bool) -> None:
    """Warn of new rows that are not after all old rows of their user.

    The times of a user are often positions, and a new file may begin again at 1.
    """
    latest = np.full(int(users.max(initial=0)) + 1, np.iinfo(np.int64).min)
    np.maximum.at(latest, users[~is_new], times[~is_new])
    early = int((is_new & (times <= latest[users])).sum())
    if early:
        warnings.warn(
            f"{early:,} new rows are not later than all old rows of their user, and come before "
            "some of them; if the times are positions, go on counting where the log ends",
            CometWarning,
            stacklevel=2,
        )

"""Split at one moment: rows from the moment on are test rows, whoever's they are."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig, Repeats, Target
from comet_rec.data.clock import date_of, dates, per_second
from comet_rec.data.interactions import Int64, Interactions, not_a_log
from comet_rec.data.queries import existing, queries_of
from comet_rec.data.sampling import Complement
from comet_rec.data.split import (
    TEST,
    VALIDATION,
    HeldOut,
    Split,
    id_digests,
    parts_at,
    validation_target,
)
from comet_rec.errors import DataError, InputError
from comet_rec.random import generator

Moment = str | int | float | date | np.datetime64
"""A date (UTC without a time zone), or a number in the unit of the log."""
FEW_USERS = 30
"""Number of users with a validation item below which a note warns of chance."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_split(
    interactions: Interactions,
    *,
    at: Moment | None = None,
    quantile: float | None = None,
    target: Target = "last",
    validation: Moment = 0.9,
    repeats: Repeats = "hide",
    negatives: int = 99,
    seed: int = 0,
    ties: Literal["expected", "pessimistic"] = "expected",
) -> Split:
    """Split a log at one moment: training rows are earlier, test rows are at the moment or later.

    So a model never learns from rows that are later than a test item. Rows of one user with equal
    times get the order of a hash of their item ids, so the order of the file changes nothing.

    Parameters
    ----------
    interactions : Interactions
        The log to split. Its times must compare across users.
    at : date or number, optional
        The moment: a date, as text or as an object, or a number in the unit of the log. A date
        without a time zone is UTC.
    quantile : float, optional
        The moment as the share of rows before it, from 0 to 1. Rows with equal times are not
        divided, so the share may be smaller. Default without `at`: 0.9.
    target : {"first", "last", "random", "successive", "all"}
        Which rows of a user after the moment are test items: one of them, each of them in a list
        of its own, or all of them in one list. A list knows all rows of the user before its item;
        with "all", it knows the rows before the moment. Validation items follow the same rule, but
        "last" replaces "successive".
    validation : float, date or number
        Moment from which rows validate. A number between 0 and 1 is a share of the rows before the
        test rows; anything else is as for `at`.
    repeats : {"hide", "keep"}
        Whether the full ranking leaves out items that the user has seen. Sampled candidates are
        never seen items.
    negatives, seed, ties
        As for `leave_one_out`. Candidates are sampled from the items that existed at the moment.

    Raises
    ------
    DataError
        When times do not compare across users, or a part would have no row or no item to rank.
    InputError
        When `interactions` is no `Interactions` object, or a moment cannot be read.
    ConfigError
        When another argument has no valid value.
    """
    if not isinstance(interactions, Interactions):
        raise InputError(not_a_log(interactions, "time_split"))
    if interactions.time_scope != "global" or interactions.times is None:
        times = "has no times" if interactions.times is None else "has times within each user only"
        raise DataError(
            f"a split by time needs times that compare across users, and this log {times}; use "
            "leave-one-out, or read it with time_scope=global if its times do compare"
        )
    if target not in get_args(Target):  # before any work; `ProtocolConfig` checks the others
        raise InputError(f"target = {target!r}: must be one of {', '.join(get_args(Target))}")
    if at is not None and quantile is not None:
        raise InputError(f"at = {at} and quantile = {quantile}: give one of them")
    log = _ordered(interactions)
    assert log.times is not None
    share = _share("quantile", 0.9 if quantile is None else quantile)
    moment = _of_quantile(log.times, share) if at is None else _moment("at", at, log)
    before = log.times[log.times < moment]
    name = f"quantile = {share:g}" if at is None else f"at = {at}"
    _check_sides(name, moment, log, log.times)
    if _is_share(validation):
        validation_moment = _of_quantile(before, float(validation))  # type: ignore[arg-type]
    else:
        validation_moment = _moment("validation", validation, log)
    _check_sides(f"validation = {validation}", validation_moment, log, before)

    protocol = ProtocolConfig(
        split="time", negatives=negatives, seed=seed, ties=ties, at=moment,
        validation_at=validation_moment, target=target, repeats=repeats,
    )  # fmt: skip
    part = parts_at(log, protocol)
    notes: list[str] = []
    validation_items = _held_out(log, part, VALIDATION, validation_target(protocol), protocol, [])
    test_items = _held_out(log, part, TEST, target, protocol, notes)
    validating = len(np.unique(validation_items.users))
    if validating < FEW_USERS:
        notes.append(
            f"only {validating} users have a validation item, so chance chooses the epochs; give "
            "an earlier validation moment"
        )
    return Split(log, part, validation_items, test_items, protocol, tuple(notes))


def _ordered(log: Interactions) -> Interactions:
    """The log with rows of one user and time in the order of a hash of their item ids."""
    assert log.times is not None
    order = np.lexsort((id_digests(log.item_ids)[log.items], log.times, log.users))
    if np.array_equal(order, np.arange(len(log))):
        return log
    # Only items change places, since rows are sorted by user and time already.
    return replace(log, items=log.items[order])


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and 0 < float(value) < 1


def _share(name: str, value: Any) -> float:
    if not _is_share(value):
        raise InputError(f"{name} = {value!r}: must be a number between 0 and 1, e.g. 0.9")
    return float(value)


def _of_quantile(times: Int64, share: float) -> int:
    """The time below which the share of rows lies, or fewer rows if times are equal."""
    place = min(math.floor(share * len(times)), len(times) - 1)
    return int(np.partition(times, place)[place])


def _moment(name: str, value: Any, log: Interactions) -> int:
    """The first time, in the unit of the log, that is not before `value`.

    Raises
    ------
    InputError
        When `value` is neither a date nor a number, or a date while the log's times are no dates.
    """
    assert log.times is not None
    given = value
    if isinstance(value, str):
        value = _parsed(name, value.strip())
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()  # a datetime, or None for NaT
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number, date)):
        raise InputError(f"{name} = {given!r}: is no date and no number; write it as 2024-01-31")
    if not isinstance(value, date):
        if not math.isfinite(value):
            raise InputError(f"{name} = {given!r}: must be finite")
        return math.ceil(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    per = per_second(log.times, dated=log.dated)
    if per is None:
        raise InputError(
            f"{name} = {given}: the times of this log are no dates but numbers from "
            f"{log.times.min()} to {log.times.max()}; give such a number, or a quantile"
        )
    microseconds: int = (value - EPOCH) // timedelta(microseconds=1)
    return -(-microseconds * per // 10**6)  # rounded up, because whole units are compared


def _parsed(name: str, text: str) -> int | float | datetime:
    """A number or a date from text."""
    for parse in (int, float, datetime.fromisoformat):
        try:
            return parse(text)
        except ValueError:
            continue
    raise InputError(
        f"{name} = {text!r}: is no date and no number; write it as 2024-01-31 or "
        "2024-01-31T18:00:00+01:00"
    )


def _check_sides(name: str, moment: int, log: Interactions, times: Int64) -> None:
    """Check that some of the times are before the moment, and some are not.

    Raises
    ------
    DataError
    """
    earlier = int((times < moment).sum())
    if 0 < earlier < len(times):
        return
    ends = dates(times, dated=log.dated) or (times.min(), times.max())
    missing = "no row is earlier" if earlier == 0 else "no row is that late"
    whose = "the rows before the test" if name.startswith("validation") else "the log's rows"
    raise DataError(
        f"{name}: {missing}, since {whose} run from {ends[0]} to {ends[1]}; give another moment"
    )


def _held_out(
    log: Interactions, part: npt.NDArray[np.uint8], code: int, target: Target,
    protocol: ProtocolConfig, notes: list[str],
) -> HeldOut:  # fmt: skip
    """Held-out items of the rows of one part, their queries and candidates.

    Facts for the user are appended to `notes`.

    Raises
    ------
    DataError
        When no row of the part can be ranked.
    """
    name = "validation" if code == VALIDATION else "test"
    exists = existing(log, part < code)
    later = np.flatnonzero(part == code)
    rows = later[exists[log.items[later]]]
    hide = protocol.repeats == "hide"

    def with_history(rows: Int64) -> Int64:
        queries = queries_of(log, rows, part, code, target, hide_seen=hide)
        found, _ = queries.histories(np.arange(len(queries)))
        counts = np.bincount(found, minlength=len(queries))
        return rows[counts[queries.of_rows] > 0]

    rng = generator(protocol.seed, f"target.{name}")
    if target == "first":
        rows = with_history(_one_each(log, rows, target, rng))
    else:
        rows = with_history(rows)
        rows = _one_each(log, rows, target, rng) if target in ("last", "random") else rows
    # Validation must not know later rows: its candidates are items without a row before the test.
    unobserved = _unobserved(log, part <= code, exists)
    comparable = unobserved.size(log.users[rows]) > 0
    full = int((~comparable).sum())
    rows = rows[comparable]
    if len(rows) == 0:
        raise DataError(
            f"a split by time leaves no {name} item to rank: none of the {len(later):,} {name} "
            "rows is of an item and a user with an earlier row, and with items to compare; give "
            "another moment or a longer log"
        )
    queries = queries_of(log, rows, part, code, target, hide_seen=hide)
    count = min(protocol.negatives, int(exists.sum()))
    rng = generator(protocol.seed, f"candidates.{name}")
    drawn = unobserved.draw_distinct(queries.users, count, rng)  # places among existing items
    places = np.append(np.flatnonzero(exists), log.n_items).astype(np.int32)  # the pad comes last
    users = log.users[rows].astype(np.int64)
    positives = log.items[rows].astype(np.int64)
    notes += _notes(log, part, rows, exists, protocol)
    if full:
        notes.append(f"{full:,} {name} items are not ranked: their users had every item")
    few = int((unobserved.size(np.unique(users)) < protocol.negatives).sum())
    if few:
        notes.append(
            f"{few:,} users have fewer than {protocol.negatives} items left to sample from"
        )
    return HeldOut(users, positives, places[drawn][queries.of_rows], queries)


def _one_each(log: Interactions, rows: Int64, target: Target, rng: np.random.Generator) -> Int64:
    """One of the rows of each user: the first, the last or a random one."""
    _, first, counts = np.unique(log.users[rows], return_index=True, return_counts=True)
    if target == "first":
        return np.asarray(rows[first])
    if target == "last":
        return np.asarray(rows[first + counts - 1])
    return np.asarray(rows[first + (rng.random(len(first)) * counts).astype(np.int64)])


def _unobserved(
    log: Interactions, rows: npt.NDArray[np.bool_], exists: npt.NDArray[np.bool_]
) -> Complement:
    """Existing items that a user has in none of the chosen rows, and in no dropped row.

    Items are numbered among the existing ones.
    """
    users = np.concatenate([log.users[rows], log.dropped_users])
    items = np.concatenate([log.items[rows], log.dropped_items])
    known = exists[items]
    places = np.cumsum(exists) - 1
    return Complement(users[known], places[items[known]], log.n_users, int(exists.sum()))


def _notes(
    log: Interactions, part: npt.NDArray[np.uint8], rows: Int64,
    exists: npt.NDArray[np.bool_], protocol: ProtocolConfig,
) -> list[str]:  # fmt: skip
    """Notes about the test rows: the moments, future items, and users without an earlier row."""
    assert log.times is not None
    per = per_second(log.times, dated=log.dated)
    moments = [
        str(moment) if per is None else f"{date_of(moment, per)} UTC"
        for moment in (protocol.validation_at or 0, protocol.at or 0)
    ]
    counts = counts_of(log, part, log.users[rows], exists)
    notes = [
        f"{counts['rows']:,} rows from {moments[1]} on are test rows; "
        f"{int((part == VALIDATION).sum()):,} rows from {moments[0]} on validate"
    ]
    if counts["future_rows"]:
        notes.append(
            f"{counts['future_rows']:,} test rows ({counts['future_share']:.1%}) are of items "
            "without an earlier row: nobody could have recommended them, so they are not ranked"
        )
    if counts["new_users"]:
        notes.append(
            f"{counts['new_users']:,} of {counts['users']:,} users of the test rows have no row "
            f"before; {counts['new_users_ranked']:,} of them are ranked, by their rows before the "
            "item"
        )
    return notes


def counts_of(
    log: Interactions, part: npt.NDArray[np.uint8], ranked_users: npt.NDArray[np.integer],
    exists: npt.NDArray[np.bool_],
) -> dict[str, Any]:  # fmt: skip
    """Numbers of test rows and users, and how many of them are new.

    Returns
    -------
    dict
        "rows" and "users" of the test part; "future_rows", rows of items without an earlier row,
        and their share "future_share"; "new_users", users without an earlier row, and
        "new_users_ranked", those with an item to rank; "users_not_ranked".
    """
    later = part == TEST
    users = np.unique(log.users[later])
    known = np.bincount(log.users[~later], minlength=log.n_users) > 0
    ranked = np.unique(ranked_users)
    future = int((~exists[log.items[later]]).sum())
    return {
        "rows": int(later.sum()),
        "users": len(users),
        "future_rows": future,
        "future_share": future / max(int(later.sum()), 1),
        "new_users": int((~known[users]).sum()),
        "new_users_ranked": int((~known[ranked]).sum()),
        "users_not_ranked": len(users) - len(ranked),
    }

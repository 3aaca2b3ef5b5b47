"""A split that others made: test items and candidates from files, validation cut from the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.randomness import generator
from comet_rec.data.sampling import Complement, untouched_items
from comet_rec.data.split import TEST, VALIDATION, HeldOut, Split, few_left
from comet_rec.errors import DataError, InputError, NoColumnError
from comet_rec.reading.pairs import Pairs, WideCandidates, is_wide, read_pairs, read_wide_candidates

Int64 = npt.NDArray[np.int64]
Read = TypeVar("Read")


def given_test(
    interactions: Interactions,
    test: Any,
    candidates: Any = None,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    negatives: int = 99,
    seed: int = 0,
    ties: Literal["expected", "pessimistic"] = "expected",
    skip_bad: int = 0,
) -> Split:
    """Split by a test set of one's own: one item a user, such as what came after a point in time.

    Parameters
    ----------
    interactions : Interactions
        The training part. The latest row of each user with at least two is held out from it as
        the validation item.
    test : path, DataFrame or Arrow table
        One (user, item) row a user; users without a training row are left out and counted.
    candidates : path, DataFrame or Arrow table, optional
        (user, item) rows to rank beside each user's test item, or NCF's wide file; those that
        the user touched are dropped and counted. Default: drawn, as by `leave_one_out`.
    user, item : str or int, optional
        Column names in both; common names are recognised when not given.
    negatives, seed, ties
        As for `leave_one_out`; for the test items where no candidates are given.
    skip_bad : int
        Number of bad rows that may be skipped in each.

    Raises
    ------
    DataError
        When a source cannot be read, a test user occurs twice or has no candidate, a test pair is
        also a training row, or no user has two training rows to validate with.
    InputError
        For what is no log.
    """
    if not isinstance(interactions, Interactions):
        raise InputError(not_a_log(interactions, "given_test"))
    protocol = ProtocolConfig(negatives=negatives, seed=seed, ties=ties)
    rows = read_given(test, candidates, interactions, user=user, item=item, skip_bad=skip_bad)
    return given_split(interactions, *rows, protocol)


def read_given(
    test: Any,
    candidates: Any,
    log: Interactions,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    skip_bad: int = 0,
    or_common: bool = False,
) -> tuple[Pairs, Pairs | None]:
    """Read test rows, and candidates as rows or in NCF's wide form, in the ids of the log.

    With `or_common` a file that has no such columns may have common names: `user` and `item` were
    said of the log.

    Raises
    ------
    DataError
        When a file cannot be read, or the wide file ranks other pairs than the test file holds.
    """
    kinds: Any = {"user_kind": log.user_ids.kind, "item_kind": log.item_ids.kind}
    names = [{"user": user, "item": item}, *([{}] if or_common else [])]

    def rows(source: Any) -> Pairs:
        return first_named(partial(read_pairs, source, skip_bad=skip_bad, **kinds), names)

    held = rows(test)
    if candidates is None:
        return held, None
    if not (isinstance(candidates, (str, PathLike)) and is_wide(candidates)):
        return held, rows(candidates)
    wide: WideCandidates = read_wide_candidates(candidates, **kinds)
    ours = set(zip(held.users.tolist(), held.items.tolist(), strict=True))
    other = set(zip(wide.users.tolist(), wide.positives.tolist(), strict=True)) - ours
    if other:
        raise DataError(
            f"{candidates}: {len(other)} of its pairs, {sorted(map(str, other))[0]} for one, are "
            "not among the test rows; give the two files of one split"
        )
    return held, Pairs(wide.candidate_users, wide.candidates)


def first_named(read: Callable[..., Read], names: Sequence[Mapping[str, Any]]) -> Read:
    """Result of `read` with the first of these names that the source has.

    Raises
    ------
    NoColumnError
        Of the first, when it has none of them.
    """
    missing: NoColumnError | None = None
    for some in names:
        try:
            return read(**some)
        except NoColumnError as error:
            missing = missing or error
    raise missing or NoColumnError("no names were given")


def given_split(
    log: Interactions, test: Pairs, candidates: Pairs | None, protocol: ProtocolConfig
) -> Split:
    """Split whose test items, and candidates if given, come from outside.

    Parameters
    ----------
    log : Interactions
        The training part; the latest row of each user with at least two is held out as the
        validation item.
    test : Pairs
        One row a user, by external id. Users without a training row are left out and counted.
    candidates : Pairs or None
        Items to rank beside the positive. Those that the user touched are dropped and counted;
        None draws `protocol.negatives` of them.
    protocol : ProtocolConfig

    Raises
    ------
    DataError
        When a test user occurs twice or has no candidate, when a test pair is also a training
        row, or when no user has two training rows to validate with.
    """
    notes: list[str] = []
    whole, test_users = _with_test_rows(log, test, candidates, notes)
    part = np.zeros(len(whole), dtype=np.uint8)
    ends, counts = whole.user_starts[1:], np.diff(whole.user_starts)
    part[ends[test_users] - 1] = TEST
    has_test = np.zeros(whole.n_users, dtype=bool)
    has_test[test_users] = True
    untouched = untouched_items(whole)
    validated = np.flatnonzero(counts - has_test >= 2)
    validated = validated[untouched.size(validated) > 0]  # a rank among nothing would be a hit
    part[ends[validated] - 1 - has_test[validated]] = VALIDATION

    if len(validated) == 0:
        raise DataError(
            "no user has two training rows and an item left to compare with, so no validation "
            "item can be held out; give a longer training part"
        )
    rng = generator(protocol.seed, "candidates.validation")
    most = min(protocol.negatives, whole.n_items)
    negatives = untouched.draw_distinct(validated, most, rng)
    validation = HeldOut(validated, whole.items[part == VALIDATION].astype(np.int64), negatives)
    if candidates is None:
        rows = _drawn_rows(whole, untouched, test_users, protocol)
        drawn_for = np.union1d(validated, test_users)
    else:
        rows = _candidate_rows(whole, untouched, test_users, candidates, notes)
        drawn_for = validated
    notes += few_left(untouched, drawn_for, protocol.negatives)
    held = HeldOut(test_users, whole.items[part == TEST].astype(np.int64), rows)
    protocol = replace(protocol, split="given", negatives=rows.shape[1])
    return Split(whole, part, validation, held, protocol, (*test.notes, *notes))


def _with_test_rows(
    log: Interactions, test: Pairs, candidates: Pairs | None, notes: list[str]
) -> tuple[Interactions, Int64]:
    """The log with the test rows as each user's last, and the test users' indices."""
    users = log.user_ids.index(test.users)
    known = users >= 0
    if not known.all():
        notes.append(f"{int((~known).sum()):,} test users have no training row and are left out")
    new = int((log.item_ids.index(test.items) < 0).sum())
    if new:
        notes.append(f"{new:,} test items have no training row")
    if candidates is not None:
        new = int((log.item_ids.index(candidates.items) < 0).sum())
        if new:
            notes.append(f"{new:,} candidate rows are of items without a training row")
    if not known.any():
        raise DataError("no test user occurs in the training part; check the files and columns")
    users, found = users[known], test.items[known]
    repeated = np.flatnonzero(np.bincount(users, minlength=log.n_users) > 1)
    if len(repeated) > 0:
        who = log.user_ids.external(repeated[:1]).tolist()[0]
        raise DataError(f"test user {who!r} has more than one row; give one row a user")
    extra = [found] if candidates is None else [found, candidates.items]
    item_ids = log.item_ids.union(np.concatenate(extra))
    renumber = item_ids.index(log.item_ids.external(np.arange(log.n_items)))
    items = item_ids.index(found)
    train_items = renumber[log.items]
    keys = log.users.astype(np.int64) * len(item_ids) + train_items
    leaked = np.isin(users * len(item_ids) + items, keys)
    if leaked.any():
        pair = (log.user_ids.external(users[leaked][:1]).tolist()[0], found[leaked][:1].tolist()[0])
        raise DataError(
            f"{int(leaked.sum()):,} test pairs, {pair} for one, are training rows too; "
            "take them out of one file"
        )
    dropped_items = renumber[log.dropped_items].astype(np.int64)
    dropped = log.dropped_users.astype(np.int64) * len(item_ids) + dropped_items
    held = np.isin(dropped, users * len(item_ids) + items)
    if held.any():  # held out, they are not known
        notes.append(f"{int(held.sum()):,} test pairs are rows that the filter of ratings dropped")
    times = log.times
    if times is not None:
        last = times[log.user_starts[users + 1] - 1] + 1
        times = np.concatenate([times, last])
    all_users = np.concatenate([log.users, users])
    is_test = np.arange(len(all_users)) >= len(log)
    order = np.lexsort((is_test, all_users))
    whole = Interactions(
        users=all_users[order].astype(np.int32),
        items=np.concatenate([train_items, items])[order].astype(np.int32),
        times=None if times is None else times[order],
        time_scope=log.time_scope,
        user_ids=log.user_ids,
        item_ids=item_ids,
        dropped_users=log.dropped_users[~held],
        dropped_items=dropped_items[~held].astype(np.int32),
        notes=log.notes,
        zero_users=log.zero_users,
        zero_items=renumber[log.zero_items].astype(np.int32),
    )
    return whole, np.sort(users)


def _drawn_rows(
    whole: Interactions, untouched: Complement, test_users: Int64, protocol: ProtocolConfig
) -> npt.NDArray[np.int32]:
    """Candidates of each test user, int32 [T, C], drawn from what they never touched."""
    full = test_users[untouched.size(test_users) == 0]
    if len(full) > 0:
        who = whole.user_ids.external(full[:1]).tolist()[0]
        raise DataError(
            f"test user {who!r} ({len(full):,} in all) has touched every item, so nothing is "
            "left to be ranked against; leave these out of the test file"
        )
    most = min(protocol.negatives, whole.n_items)
    return untouched.draw_distinct(test_users, most, generator(protocol.seed, "candidates.test"))


def _candidate_rows(
    whole: Interactions, untouched: Complement, test_users: Int64, candidates: Pairs,
    notes: list[str],
) -> npt.NDArray[np.int32]:  # fmt: skip
    """Candidates of each test user, int32 [T, C], touched and repeated ones dropped and said."""
    users = whole.user_ids.index(candidates.users)
    items = whole.item_ids.index(candidates.items)
    place = np.searchsorted(test_users, users)
    tested = test_users[np.minimum(place, len(test_users) - 1)] == users
    if not tested.all():
        notes.append(f"{int((~tested).sum()):,} candidates of users without a test row dropped")
    keys = users[tested] * whole.n_items + items[tested]
    distinct = np.unique(keys)
    if len(distinct) < len(keys):
        notes.append(f"{len(keys) - len(distinct):,} repeated candidates dropped")
    touched = untouched.touched(*np.divmod(distinct, whole.n_items))
    if touched.any():
        affected = len(np.unique(distinct[touched] // whole.n_items))
        notes.append(
            f"{int(touched.sum()):,} candidates that are positives of their user dropped "
            f"({affected:,} users)"
        )
    owner, item = np.divmod(distinct[~touched], whole.n_items)
    row = np.searchsorted(test_users, owner)
    counts = np.bincount(row, minlength=len(test_users))
    if (counts == 0).any():
        who = whole.user_ids.external(test_users[counts == 0][:1]).tolist()[0]
        raise DataError(
            f"{int((counts == 0).sum()):,} test users, {who!r} for one, have no candidate; "
            "give candidates for every test user or none at all"
        )
    out = np.full((len(test_users), int(counts.max(initial=0))), whole.n_items, dtype=np.int32)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    out[row, within] = item
    return out

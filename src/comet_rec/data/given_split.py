"""A split whose test items, and optionally candidates, come from files of the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig
from comet_rec.data.interactions import Interactions
from comet_rec.data.sampling import Complement, unobserved_items
from comet_rec.data.split import TEST, VALIDATION, HeldOut, Split, few_left
from comet_rec.errors import DataError
from comet_rec.random import generator

External = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a user id and an item id, as the user wrote them, in the order of their file.

    Parameters
    ----------
    users, items : ndarray [R], int64 or object (of `str` or `uuid.UUID`)
    notes : tuple of str
        Notes for the user from reading the file, one line each.
    """

    users: External
    items: External
    notes: tuple[str, ...] = ()


def given_split(
    log: Interactions, test: Pairs, candidates: Pairs | None, protocol: ProtocolConfig
) -> Split:
    """Split with the test items in `test`, and with the candidates in `candidates` or sampled ones.

    Parameters
    ----------
    log : Interactions
        The training part. A user with at least two rows has the latest one held out for
        validation.
    test : Pairs
        One row for each test user. Users without a training row are left out, with a note.
    candidates : Pairs or None
        Items to rank with each user's positive. Other positives of the user are dropped, with a
        note. If None, `protocol.negatives` candidates are sampled for each user.
    protocol : ProtocolConfig

    Raises
    ------
    DataError
        When a test user occurs twice or has no candidate, when a test pair is also a training
        row, or when no user has two training rows to validate with.
    """
    notes: list[str] = []
    whole_log, test_users = _with_test_rows(log, test, candidates, notes)
    part = np.zeros(len(whole_log), dtype=np.uint8)
    ends, counts = whole_log.user_starts[1:], np.diff(whole_log.user_starts)
    part[ends[test_users] - 1] = TEST
    has_test = np.zeros(whole_log.n_users, dtype=bool)
    has_test[test_users] = True

    unobserved = unobserved_items(whole_log)
    validated = np.flatnonzero(counts - has_test >= 2)
    validated = validated[unobserved.size(validated) > 0]  # without candidates all would be hits
    part[ends[validated] - 1 - has_test[validated]] = VALIDATION  # the row before the test row
    if len(validated) == 0:
        raise DataError(
            "no user has two training rows and an item left to compare with, so no validation "
            "item can be held out; give a longer training part"
        )
    rng = generator(protocol.seed, "candidates.validation")
    count = min(protocol.negatives, whole_log.n_items)
    negatives = unobserved.draw_distinct(validated, count, rng)
    positives = whole_log.items[part == VALIDATION].astype(np.int64)
    validation = HeldOut(validated, positives, negatives)

    if candidates is None:
        rows = _sampled_candidates(whole_log, unobserved, test_users, protocol)
        sampled_for = np.union1d(validated, test_users)
    else:
        rows = _given_candidates(whole_log, unobserved, test_users, candidates, notes)
        sampled_for = validated
    notes += few_left(unobserved, sampled_for, protocol.negatives)
    held = HeldOut(test_users, whole_log.items[part == TEST].astype(np.int64), rows)
    protocol = replace(protocol, split="given", negatives=rows.shape[1])
    return Split(whole_log, part, validation, held, protocol, (*test.notes, *notes))


def _with_test_rows(
    log: Interactions, test: Pairs, candidates: Pairs | None, notes: list[str]
) -> tuple[Interactions, Int64]:
    """The log with each test row appended as its user's last row, and the test users, ascending."""
    users, test_items = _known_users(log, test, candidates, notes)
    new_items = test_items if candidates is None else np.append(test_items, candidates.items)
    item_ids = log.item_ids.union(new_items)
    # New ids shift the indices of the ids after them: `renumber` maps old indices to new ones.
    renumber = item_ids.index(log.item_ids.external(np.arange(log.n_items)))
    n_items = len(item_ids)
    items = item_ids.index(test_items)
    train_items = renumber[log.items]

    # One number for each pair, so that sets of pairs can be compared.
    test_keys = users * n_items + items
    leaked = np.isin(test_keys, log.users.astype(np.int64) * n_items + train_items)
    if leaked.any():
        user = log.user_ids.external(users[leaked][:1]).tolist()[0]
        pair = (user, test_items[leaked][:1].tolist()[0])
        raise DataError(
            f"{int(leaked.sum()):,} test pairs, {pair} for one, are training rows too; "
            "take them out of one file"
        )
    dropped_items = renumber[log.dropped_items].astype(np.int64)
    dropped_keys = log.dropped_users.astype(np.int64) * n_items + dropped_items
    held = np.isin(dropped_keys, test_keys)
    if held.any():  # a held-out pair must not count as known
        notes.append(f"{int(held.sum()):,} test pairs are rows that the filter of ratings dropped")

    times = log.times
    if times is not None:
        latest = times[log.user_starts[users + 1] - 1]
        times = np.concatenate([times, latest + 1])
    all_users = np.concatenate([log.users, users])
    is_test = np.arange(len(all_users)) >= len(log)
    # By user, the test row last. The sort is stable, so the other rows keep their order.
    order = np.lexsort((is_test, all_users))
    whole_log = Interactions(
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
        dated=log.dated,
    )
    return whole_log, np.sort(users)


def _known_users(
    log: Interactions, test: Pairs, candidates: Pairs | None, notes: list[str]
) -> tuple[Int64, External]:
    """Indices of the test users that occur in the log, and the ids of their test items.

    A note is added to `notes` for test users that the log lacks.
    """
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
    users = users[known]
    repeated = np.flatnonzero(np.bincount(users, minlength=log.n_users) > 1)
    if len(repeated) > 0:
        user = log.user_ids.external(repeated[:1]).tolist()[0]
        raise DataError(f"test user {user!r} has more than one row; give one row a user")
    return users, test.items[known]


def _sampled_candidates(
    log: Interactions, unobserved: Complement, test_users: Int64, protocol: ProtocolConfig
) -> Int32:
    """Sample candidates for each test user from the user's unobserved items, int32 [T, C]."""
    full = test_users[unobserved.size(test_users) == 0]
    if len(full) > 0:
        user = log.user_ids.external(full[:1]).tolist()[0]
        raise DataError(
            f"test user {user!r} ({len(full):,} in all) interacted with every item, so there is "
            "nothing to rank the test item against; leave these users out of the test file"
        )
    count = min(protocol.negatives, log.n_items)
    rng = generator(protocol.seed, "candidates.test")
    return unobserved.draw_distinct(test_users, count, rng)


def _given_candidates(
    log: Interactions,
    unobserved: Complement,
    test_users: Int64,
    candidates: Pairs,
    notes: list[str],
) -> Int32:
    """Item indices of the given candidates for each test user, int32 [T, C].

    Positives of the user and repeated candidates are dropped, with a note in `notes`.
    """
    users = log.user_ids.index(candidates.users)
    items = log.item_ids.index(candidates.items)
    # `test_users` is ascending, so a binary search finds the row of each candidate's user.
    place = np.minimum(np.searchsorted(test_users, users), len(test_users) - 1)
    tested = test_users[place] == users
    if not tested.all():
        notes.append(f"{int((~tested).sum()):,} candidates of users without a test row dropped")
    keys = users[tested] * log.n_items + items[tested]
    distinct = np.unique(keys)
    if len(distinct) < len(keys):
        notes.append(f"{len(keys) - len(distinct):,} repeated candidates dropped")
    positive = unobserved.excludes(*np.divmod(distinct, log.n_items))
    if positive.any():
        affected = len(np.unique(distinct[positive] // log.n_items))
        notes.append(
            f"{int(positive.sum()):,} candidates that are positives of their user dropped "
            f"({affected:,} users)"
        )
    user, item = np.divmod(distinct[~positive], log.n_items)
    row = np.searchsorted(test_users, user)
    counts = np.bincount(row, minlength=len(test_users))
    if (counts == 0).any():
        name = log.user_ids.external(test_users[counts == 0][:1]).tolist()[0]
        raise DataError(
            f"{int((counts == 0).sum()):,} test users have no candidate item, such as {name!r}; "
            "give candidates for every test user or none at all"
        )
    padded = np.full((len(test_users), int(counts.max(initial=0))), log.n_items, dtype=np.int32)
    column = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded[row, column] = item
    return padded

"""The files of a split that others made, looked at before anything in them is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.given_split import Pairs
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import TEST, TRAIN
from comet_rec.errors import DataError
from comet_rec.evaluation.audit.checks import finding, run_checks
from comet_rec.evaluation.audit.findings import Finding, counted, ordered
from comet_rec.evaluation.audit.material import Held, Material

Int64 = npt.NDArray[np.int64]


def audit_files(
    log: Interactions,
    test: Pairs,
    candidates: Pairs | None = None,
    times: Mapping[tuple[Any, Any], int] | None = None,
) -> list[Finding]:
    """Findings about the files of a split, errors first; nothing is drawn, dropped or fixed.

    Parameters
    ----------
    log : Interactions
        The training file.
    test, candidates : Pairs
        The other files' rows, by external id. Without candidates nothing is said of them.
    times : mapping of (user, item) to int, optional
        Times of the test rows on the log's clock; without them nothing is said of ties and of
        rows from the future.

    Raises
    ------
    DataError
        When the test file has no row, or ids of the files are of another kind than those of the
        log.
    """
    if len(test.users) == 0:
        raise DataError("the test file has no row; give one row a user")
    found: list[Finding] = []
    log, users, items = _with_ids(log, test, candidates)
    users, items = _one_row_a_user(log, users, items, found)
    stamps = _stamps(log, users, items, times)
    whole, part = _joined(log, users, items, stamps)
    held = Held("test", TEST, users, items, *_nothing(), negatives=None)
    if candidates is not None:
        held = _with_candidates(whole, held, candidates, found)
    material = Material(whole, part, (held,), stamps is not None)
    return ordered([*found, *run_checks(material)])


def _nothing() -> tuple[Int64, Int64]:
    return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)


def _with_ids(
    log: Interactions, test: Pairs, candidates: Pairs | None
) -> tuple[Interactions, Int64, Int64]:
    """The log over the ids of all files, and the indices of the test rows."""
    extra = test.items.tolist() + ([] if candidates is None else candidates.items.tolist())
    user_ids, item_ids = log.user_ids.union(test.users.tolist()), log.item_ids.union(extra)
    new_user = user_ids.index(log.user_ids.external(np.arange(log.n_users)).tolist())
    new_item = item_ids.index(log.item_ids.external(np.arange(log.n_items)).tolist())
    renumbered = replace(
        log,
        users=new_user[log.users].astype(np.int32),
        items=new_item[log.items].astype(np.int32),
        dropped_users=new_user[log.dropped_users].astype(np.int32),
        dropped_items=new_item[log.dropped_items].astype(np.int32),
        user_ids=user_ids,
        item_ids=item_ids,
    )
    return renumbered, user_ids.index(test.users.tolist()), item_ids.index(test.items.tolist())


def _one_row_a_user(
    log: Interactions, users: Int64, items: Int64, found: list[Finding]
) -> tuple[Int64, Int64]:
    """Test users, ascending, and the item of each one's first row; the others are told."""
    distinct, first, counts = np.unique(users, return_index=True, return_counts=True)
    more = counts > 1
    if more.any():
        place = Material(log, np.empty(0, np.uint8), (), False)
        what = "test users have more than one test row; what follows is about the first"
        hit = counted(more, what, lambda n: place.example(user=distinct[n], rows=int(counts[n])))
        found.append(finding("test-users-repeated", hit))
    return distinct, items[first]


def _stamps(
    log: Interactions, users: Int64, items: Int64, times: Mapping[tuple[Any, Any], int] | None
) -> Int64 | None:
    """Times of the test rows where all are known, int64 [T]."""
    if times is None or log.times is None:
        return None
    pairs = zip(
        log.user_ids.external(users).tolist(), log.item_ids.external(items).tolist(), strict=True
    )
    stamps = [times.get(pair) for pair in pairs]
    return None if None in stamps else np.array(stamps, dtype=np.int64)


def _joined(
    log: Interactions, users: Int64, items: Int64, stamps: Int64 | None
) -> tuple[Interactions, npt.NDArray[np.uint8]]:
    """Training rows and, as the last of each user, test rows; and the part of each row."""
    all_users = np.concatenate([log.users, users])
    part = np.repeat(np.array([TRAIN, TEST], dtype=np.uint8), [len(log), len(users)])
    order = np.lexsort((part, all_users))
    times = log.times
    if times is not None:
        last = np.zeros(len(users), dtype=np.int64) if stamps is None else stamps
        times = np.concatenate([times, last])[order]
    joined = replace(
        log,
        users=all_users[order].astype(np.int32),
        items=np.concatenate([log.items, items])[order].astype(np.int32),
        times=times,
    )
    return joined, part[order]


def _with_candidates(
    log: Interactions, held: Held, candidates: Pairs, found: list[Finding]
) -> Held:
    """Every row of the candidate file beside its test user; rows of other users are told."""
    users = log.user_ids.index(candidates.users.tolist())
    items = log.item_ids.index(candidates.items.tolist())
    rows = np.minimum(np.searchsorted(held.users, users), len(held.users) - 1)
    tested = held.users[rows] == users
    if not tested.all():
        first = candidates.users[~tested][0]
        user = first.item() if isinstance(first, np.generic) else str(first)
        what = "candidates are of users without a test row"
        found.append(
            finding("candidates-without-test", counted(~tested, what, lambda _: {"user": user}))
        )
    rows, items = rows[tested], items[tested]
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=len(held.users))
    return replace(
        held, rows=rows[order], candidates=items[order], negatives=int(counts.max(initial=0))
    )

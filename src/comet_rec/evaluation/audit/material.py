"""Input of the audit's checks: rows marked as training, validation or test; held-out items."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig
from comet_rec.data.given_split import Pairs
from comet_rec.data.interactions import Interactions
from comet_rec.data.sampling import Complement, unobserved_items
from comet_rec.data.split import TEST, TRAIN, VALIDATION, Split
from comet_rec.evaluation.audit.findings import Example, Hit

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Held:
    """Held-out items of the test or validation part, and the candidates of their users.

    Parameters
    ----------
    name : {"test", "validation"}
    part : int
        Code of the part: `TEST` or `VALIDATION`.
    users, positives : int64 [T]
        Users in ascending order, and the held-out item of each user. In a split by time, a user may
        have several.
    rows, candidates : int64 [M]
        One entry for each candidate: the position of its user in `users` (ascending), and the
        item. Repeated candidates, and candidates that equal the positive, are included.
    negatives : int or None
        Number of candidates that each user should have; None if they are not sampled yet.
    """

    name: str
    part: int
    users: Int64
    positives: Int64
    rows: Int64
    candidates: Int64
    negatives: int | None


@dataclass(frozen=True, eq=False)
class Material:
    """A log and its held-out items, as input of the audit's checks. Faults are still in it.

    Parameters
    ----------
    log : Interactions
        All rows. A row that another tool put into two parts is there twice.
    part : uint8 [R]
        Code of each row's part: `TRAIN`, `VALIDATION` or `TEST`.
    held : tuple of Held
    test_times : bool
        Whether the test rows have real times; a test file may have no times.
    by_time : ProtocolConfig or None
        Protocol of a split by time; None for other splits.
    """

    log: Interactions
    part: npt.NDArray[np.uint8]
    held: tuple[Held, ...]
    test_times: bool
    by_time: ProtocolConfig | None = None

    @cached_property
    def train(self) -> Bool:
        """Whether each row is a training row, bool [R]."""
        return np.asarray(self.part == TRAIN)

    @cached_property
    def timed(self) -> Bool:
        """Whether each row has a real time, bool [R]; False for test rows without `test_times`."""
        return np.ones_like(self.train) if self.test_times else np.asarray(self.part != TEST)

    @cached_property
    def times(self) -> Int64 | None:
        """Times of the rows with real times, int64; None if the log has no times."""
        return None if self.log.times is None else self.log.times[self.timed]

    @cached_property
    def different_times(self) -> Int64 | None:
        """The same as `times`, but None also if all times are equal."""
        times = self.times
        all_equal = times is not None and len(times) > 1 and bool((times == times[0]).all())
        return None if all_equal else times

    def interacted(self, held: Held) -> Complement:
        """Items that each user interacted with in the raw log, for `excludes(users, items)`.

        Rows that were dropped when the log was read count too. In a split by time, rows after the
        part of `held` do not count.
        """
        if self.by_time is None:
            return self._interacted
        return unobserved_items(self.log.select(self.part <= held.part))

    @cached_property
    def _interacted(self) -> Complement:
        return unobserved_items(self.log)

    def keys(self, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> Int64:
        """One integer for each (user, item) pair: user · number of items + item, int64."""
        return np.asarray(users.astype(np.int64) * self.log.n_items + items)

    def columns(self, rows: Int64) -> dict[str, npt.NDArray[Any]]:
        """Users, items and times of these rows, as keyword arguments of `example` and `hit`."""
        log = self.log
        times = {} if log.times is None else {"time": log.times[rows]}
        return {"user": log.users[rows], "item": log.items[rows], **times}

    def example(self, place: int, **columns: npt.NDArray[Any]) -> Example:
        """Example for a finding: the value of each column at position `place`, as JSON can hold it.

        The columns ``user`` and ``item`` hold indices. They become external ids in the example.
        """
        ids = {"user": self.log.user_ids, "item": self.log.item_ids}
        example = {}
        for name, values in columns.items():
            value = values[place : place + 1]
            example[name] = _plain(ids[name].external(value) if name in ids else value)
        return example

    def hit(self, mask: Bool, message: str, **columns: npt.NDArray[Any]) -> Hit | None:
        """Hit that counts the True values of a mask; None if all values are False.

        Its message is, for instance, "3 of 40 `message`".

        Parameters
        ----------
        mask : bool [N]
            Whether each case is affected.
        message : str
            ``{share}`` in it stands for the share of affected cases, in percent.
        columns : ndarray [N]
            Values for the example, which shows the first affected case.
        """
        count, total = int(mask.sum()), len(mask)
        if count == 0:
            return None
        text = f"{count:,} of {total:,} {message}".replace("{share}", f"{count / total:.1%}")
        return Hit(count, total, text, self.example(int(np.argmax(mask)), **columns))


def of_log(log: Interactions) -> Material:
    """Input of the checks for a log without held-out items."""
    return Material(log, np.full(len(log), TRAIN, dtype=np.uint8), (), True)


def of_split(split: Split) -> Material:
    """Input of the checks for a split.

    The test rows of a given split, that is, a split that another tool made, count as rows without
    times.
    """
    n_items = split.interactions.n_items
    given = split.protocol.split == "given"
    held = []
    parts = (("test", TEST, split.test), ("validation", VALIDATION, split.validation))
    for name, code, part in parts:
        rows, columns = np.nonzero(part.candidates != n_items)
        candidates = part.candidates[rows, columns].astype(np.int64)
        # The protocol of a given split only has the number of candidates in the test file. The
        # validation candidates are sampled here, maybe in another number.
        negatives = part.candidates.shape[1] if given else split.protocol.negatives
        held.append(Held(name, code, part.users, part.positives, rows, candidates, negatives))
    by_time = split.protocol if split.protocol.split == "time" else None
    return Material(split.interactions, split.part, tuple(held), not given, by_time)


def of_files(
    log: Interactions,
    test: Pairs,
    candidates: Pairs | None,
    times: Mapping[tuple[Any, Any], int] | None,
) -> tuple[Material, dict[str, Hit | None]]:
    """Input of the checks for the files of a split, before the library corrects anything in them.

    Parameters are those of `audit_files`.

    Returns
    -------
    material : Material
        The first test row of each user, and the candidates of test users; other rows are left out.
    hits : dict
        Name of each check that concerns the files themselves → the fault found, or None.
    """
    log = _with_ids_of_files(log, test, candidates)
    users, first, counts = np.unique(
        log.user_ids.index(test.users), return_index=True, return_counts=True
    )
    positives = log.item_ids.index(test.items)[first]
    test_times = _times_of_pairs(log, users, positives, times)
    rows, part = _with_test_rows(log, users, positives, test_times)
    nothing = np.empty(0, dtype=np.int64)
    held = Held("test", TEST, users, positives, nothing, nothing, negatives=None)
    material = Material(rows, part, (held,), test_times is not None)
    message = "test users have more than one test row; the other findings use the first"
    hits = {"test-users-repeated": material.hit(counts > 1, message, user=users, rows=counts)}
    if candidates is None:
        return material, hits

    candidate_users = log.user_ids.index(candidates.users)
    place = np.minimum(np.searchsorted(users, candidate_users), len(users) - 1)
    tested = users[place] == candidate_users  # False for users without a test row
    hit = material.hit(~tested, "candidates are of users without a test row")
    if hit is not None:
        hit = replace(hit, example={"user": _plain(candidates.users[~tested])})
    hits["candidates-without-test"] = hit
    place, items = place[tested], log.item_ids.index(candidates.items)[tested]
    order = np.argsort(place, kind="stable")
    most = int(np.bincount(place).max(initial=0))
    held = replace(held, rows=place[order], candidates=items[order], negatives=most)
    return replace(material, held=(held,)), hits


def _with_ids_of_files(log: Interactions, test: Pairs, candidates: Pairs | None) -> Interactions:
    """Copy of the log with indices that cover the ids of all files."""
    items = test.items if candidates is None else np.append(test.items, candidates.items)
    user_ids, item_ids = log.user_ids.union(test.users), log.item_ids.union(items)
    # Indices follow sorted ids, so new ids shift old indices. These arrays map old to new indices.
    new_users = user_ids.index(log.user_ids.external(np.arange(log.n_users))).astype(np.int32)
    new_items = item_ids.index(log.item_ids.external(np.arange(log.n_items))).astype(np.int32)
    return replace(
        log,
        users=new_users[log.users],
        items=new_items[log.items],
        dropped_users=new_users[log.dropped_users],
        dropped_items=new_items[log.dropped_items],
        zero_users=new_users[log.zero_users],
        zero_items=new_items[log.zero_items],
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _times_of_pairs(
    log: Interactions, users: Int64, items: Int64, times: Mapping[tuple[Any, Any], int] | None
) -> Int64 | None:
    """Time of each (user, item) pair, int64 [T]; None unless all times are known."""
    if times is None or log.times is None:
        return None
    user_ids, item_ids = log.user_ids.external(users), log.item_ids.external(items)
    pairs = zip(user_ids.tolist(), item_ids.tolist(), strict=True)
    known = [times.get(pair) for pair in pairs]
    return None if None in known else np.array(known, dtype=np.int64)


def _with_test_rows(
    log: Interactions, users: Int64, items: Int64, test_times: Int64 | None
) -> tuple[Interactions, npt.NDArray[np.uint8]]:
    """The log with a test row after the last row of each test user, and the part of each row.

    `users` and `items` are the test rows.
    """
    all_users = np.concatenate([log.users, users])
    part = np.repeat(np.array([TRAIN, TEST], dtype=np.uint8), [len(log), len(users)])
    order = np.lexsort((part, all_users))  # by user, then part; otherwise in the old order
    times = log.times
    if times is not None:
        last = np.zeros(len(users), dtype=np.int64) if test_times is None else test_times
        times = np.concatenate([times, last])[order]
    joined = replace(
        log,
        users=all_users[order].astype(np.int32),
        items=np.concatenate([log.items, items])[order].astype(np.int32),
        times=times,
    )
    return joined, part[order]


def _plain(values: npt.NDArray[Any]) -> Any:
    """First value of an array as a plain Python object; a UUID becomes text."""
    value = values.tolist()[0]
    return str(value) if isinstance(value, uuid.UUID) else value

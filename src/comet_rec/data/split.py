"""Splits: training rows, held-out items, and the candidates to rank with each held-out item.

Leave-one-out holds out a user's latest row for test and the second-latest for validation. Rows with
equal times keep the order of the file. A user with fewer than three rows stays in training. A split
by time is made in `time_split`, and a split from files in `given_split`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig, Target
from comet_rec.data.arrays import Array, indices
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.queries import Queries, queries_of
from comet_rec.data.sampling import BLOCK, Complement, unobserved_items
from comet_rec.errors import DataError, InputError, by_reader
from comet_rec.random import generator

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out items, and the sampled candidates to rank together with each of them.

    Every test user has one held-out item; in a split by time, a user may have several.

    Parameters
    ----------
    users : int64 [T]
        User of each held-out item, ascending.
    positives : int64 [T]
        Held-out items.
    candidates : int32 [T, C]
        Items without an interaction of the user, ascending. If a user has fewer than C of them,
        the row is padded with `n_items`.
    queries : Queries or None
        In a split by time, the lists that the items are ranked in. None if each user has one list,
        whose history is all known rows of the user.
    """

    users: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]
    queries: Queries | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lists(self) -> npt.NDArray[np.int64]:
        """Index that scorers are asked with for each held-out item, int64 [T].

        It is the query or, without queries, the user.
        """
        return self.users if self.queries is None else self.queries.of_rows

    def take(self, rows: npt.NDArray[np.int64]) -> HeldOut:
        """Some of the held-out items. Queries keep their numbers."""
        queries = None if self.queries is None else self.queries.take(rows)
        return HeldOut(self.users[rows], self.positives[rows], self.candidates[rows], queries)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A log, divided into training, validation and test rows, with candidates for ranking.

    Parameters
    ----------
    interactions : Interactions
        The whole log.
    part : uint8 [R]
        Part of each row: 0 training, 1 validation, 2 test.
    validation, test : HeldOut
        Held-out items and their candidates.
    protocol : ProtocolConfig
        Settings of the split and of the candidates.
    notes : tuple of str
        Notes for the user about the split, one line each.
    """

    interactions: Interactions
    part: npt.NDArray[np.uint8]
    validation: HeldOut
    test: HeldOut
    protocol: ProtocolConfig
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Split({self.protocol.split}, {self.n_test_users:,} test users, "
            f"{self.protocol.negatives} negatives, of {self.interactions!r})"
        )

    @cached_property
    def n_test_users(self) -> int:
        """Number of users with a held-out test item."""
        return len(np.unique(self.test.users))

    @cached_property
    def train(self) -> Interactions:
        """Training rows, without the rows held out for validation and test."""
        return self.interactions.select(self.part == TRAIN)

    @cached_property
    def known(self) -> Interactions:
        """Training and validation rows: everything that is known before the test items.

        Histories for the ranking of test items come from these rows.
        """
        return self.interactions.select(self.part != TEST)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the protocol: its settings, test users, held-out items and candidates.

        Users and items are hashed by their ids, not by their indices.
        """
        log = self.interactions
        users, items = id_digests(log.user_ids), id_digests(log.item_ids)
        items = np.append(items, np.uint64(0))  # the pad, for users with fewer candidates
        state = hashlib.sha256(json.dumps(self.protocol.recorded(), sort_keys=True).encode())
        for held in (self.validation, self.test):
            state.update(users[held.users].tobytes())
            state.update(items[held.positives].tobytes())
            for first in range(0, len(held), BLOCK):
                block = held.candidates[first : first + BLOCK]
                # Sorted: the order of candidates must not change the hash.
                state.update(np.sort(items[block], axis=1).tobytes())
        return state.hexdigest()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Test users, held-out items and candidates as plain arrays by name, for storage."""
        return {
            f"{name}.{field}": getattr(held, field)
            for name, held in (("validation", self.validation), ("test", self.test))
            for field in ("users", "positives", "candidates")
        }

    @staticmethod
    def declared_part() -> Array:
        """Expected type and values of the stored array `part`, for checks."""
        return indices(("rows",), TEST + 1, dtype="uint8")

    @staticmethod
    def declared(n_users: int, n_items: int, protocol: ProtocolConfig) -> dict[str, Array]:
        """Expected types and shapes of the arrays that `Split.arrays` returns, for checks.

        Candidates may be `n_items`, the index that pads a row.
        """
        declared = {}
        order: Literal["ascending", "increasing"]
        order = "ascending" if protocol.split == "time" else "increasing"
        for name in ("validation", "test"):
            shape = (name, f"candidates of {name}")
            declared[f"{name}.users"] = indices((name,), n_users, order=order)
            declared[f"{name}.positives"] = indices((name,), n_items)
            declared[f"{name}.candidates"] = indices(shape, n_items + 1, dtype="int32")
        return declared

    @staticmethod
    def from_arrays(
        interactions: Interactions,
        part: npt.NDArray[np.uint8],
        arrays: Mapping[str, npt.NDArray[Any]],
        protocol: ProtocolConfig,
    ) -> Split:
        """Split from the arrays that `Split.arrays` returned for this log and protocol.

        Raises
        ------
        ValueError
            When the arrays of a split by time do not fit the times of the log.
        """
        held = [
            HeldOut(
                arrays[f"{name}.users"], arrays[f"{name}.positives"], arrays[f"{name}.candidates"]
            )
            for name in ("validation", "test")
        ]
        if protocol.split == "time":
            held = restored_queries(interactions, part, held, protocol)
        return Split(interactions, part, held[0], held[1], protocol)


def leave_one_out(
    interactions: Interactions,
    *,
    negatives: int = 99,
    seed: int = 0,
    ties: Literal["expected", "pessimistic"] = "expected",
) -> Split:
    """Hold out each user's latest item for test and the second-latest for validation.

    Parameters
    ----------
    interactions : Interactions
        The log to split.
    negatives : int
        Candidates for each user besides the positive. They are sampled without replacement from
        the items that the user never interacted with in the log, separately for validation and
        test.
    seed : int
        Seed of the candidates.
    ties : {"expected", "pessimistic"}
        Treatment of candidates with the same score as the positive: the average over their random
        orders, or all of them ranked above the positive.

    Raises
    ------
    DataError
        When no user has three rows, or all such users interacted with every item.
    InputError
        When `interactions` is no `Interactions` object.
    """
    if not isinstance(interactions, Interactions):
        raise InputError(not_a_log(interactions, "leave_one_out"))
    protocol = ProtocolConfig(negatives=negatives, seed=seed, ties=ties)
    log = interactions
    ends = log.user_starts[1:]
    users = np.flatnonzero(np.diff(log.user_starts) >= 3)
    if len(users) == 0:
        raise DataError(
            "leave-one-out needs a user with at least 3 interactions and none has; "
            f"give a longer log or train on all of it ({_on_all()})"
        )
    unobserved = unobserved_items(log)
    full = int((unobserved.size(users) == 0).sum())
    users = users[unobserved.size(users) > 0]  # without candidates every rank would be a hit
    if len(users) == 0:
        raise DataError(
            "leave-one-out needs an item to compare with, and every user interacted with all "
            f"{log.n_items} items; give a log of more items or train on all of it ({_on_all()})"
        )
    part = np.zeros(len(log), dtype=np.uint8)
    part[ends[users] - 1] = TEST
    part[ends[users] - 2] = VALIDATION
    short = log.n_users - len(users) - full
    notes = [f"{short:,} users with fewer than 3 interactions stay in training"] if short else []
    if full:
        notes.append(
            f"{full:,} users who interacted with every item stay in training: nothing to rank"
        )
    notes += _notes_on_order(log, ends[users])
    held = _held_out(log, users, part, protocol, unobserved)
    notes += few_left(unobserved, users, protocol.negatives)
    return Split(log, part, held[0], held[1], protocol, tuple(notes))


def _on_all() -> str:
    return by_reader(python="fit(log)", shell="--all")


IN_ORDER = 0.95
"""A log counts as sorted by item id if at least this share of steps leads to a higher item id. A
step leads from one row of a user to the user's next row."""
STEPS = 100
"""With fewer steps from row to row, a log is never judged to be sorted by item id."""


def _notes_on_order(log: Interactions, ends: npt.NDArray[np.int64]) -> list[str]:
    """Notes for the user if the order of the file decides which item is a user's latest.

    `ends`, int64 [T], holds the position after the last row of each test user.
    """
    if log.time_scope == "none":
        notes = ["no time column: the latest item is the last in the order of the file"]
        return notes + _notes_on_sorted_ids(
            log, np.ones(len(log) - 1, dtype=np.bool_), "give a time column"
        )
    if log.times is None:
        return []
    tied = int((log.times[ends - 1] == log.times[ends - 2]).sum())
    if tied == 0:
        return []
    notes = [
        f"{tied:,} of {len(ends):,} users' two latest items have equal times: the order of the "
        "file decides"
    ]
    return notes + _notes_on_sorted_ids(log, log.times[1:] == log.times[:-1], "give finer times")


def _notes_on_sorted_ids(log: Interactions, free: npt.NDArray[np.bool_], remedy: str) -> list[str]:
    """Note for the user if rows are sorted by item id, so that the highest id is held out.

    `free`, bool [R − 1], marks the steps from row to row whose order the file decides.
    """
    steps = free & (log.users[1:] == log.users[:-1])
    up = (log.items[1:] > log.items[:-1])[steps]
    if len(up) < STEPS or up.mean() < IN_ORDER:
        return []
    all_rows = steps.sum() == (log.users[1:] == log.users[:-1]).sum()
    rows = "rows" if all_rows else "rows of one time"
    return [
        f"each user's {rows} are in the order of item ids, so the highest id is held out, and "
        f"figures mean little: {remedy}, or shuffle the rows"
    ]


def _held_out(
    log: Interactions,
    users: npt.NDArray[np.int64],
    part: npt.NDArray[np.uint8],
    protocol: ProtocolConfig,
    unobserved: Complement,
) -> list[HeldOut]:
    """Held-out items of `users` for validation and for test, each with its own candidates."""
    held = []
    for name, code in (("validation", VALIDATION), ("test", TEST)):
        rng = generator(protocol.seed, f"candidates.{name}")
        count = min(protocol.negatives, log.n_items)
        candidates = unobserved.draw_distinct(users, count, rng)
        held.append(HeldOut(users, log.items[part == code].astype(np.int64), candidates))
    return held


def parts_at(log: Interactions, protocol: ProtocolConfig) -> npt.NDArray[np.uint8]:
    """Part of each row of the log in a split by time, uint8 [R].

    A row at a boundary belongs to the later part.
    """
    assert log.times is not None
    assert protocol.at is not None
    assert protocol.validation_at is not None
    part = np.full(len(log), TRAIN, dtype=np.uint8)
    part[log.times >= protocol.validation_at] = VALIDATION
    part[log.times >= protocol.at] = TEST
    return part


def validation_target(protocol: ProtocolConfig) -> Target:
    """Rule for the validation items of a split by time.

    A list for each row, after each epoch, would cost as much as the epoch. So "successive"
    validates on each user's last row.
    """
    return "last" if protocol.target == "successive" else protocol.target


def restored_queries(
    log: Interactions,
    part: npt.NDArray[np.uint8],
    held: list[HeldOut],
    protocol: ProtocolConfig,
) -> list[HeldOut]:
    """Validation and test items of a stored split by time, with their queries.

    Raises
    ------
    ValueError
        When the parts or the held-out items do not fit the times of the log.
    """
    if log.times is None or log.time_scope != "global":
        raise ValueError("a split by time needs times that compare across users")
    if not np.array_equal(part, parts_at(log, protocol)):
        raise ValueError("the parts of the rows do not fit the moment of the split")
    # One number for each pair. A log has each pair once, so it names the row.
    keys = log.users * np.int64(log.n_items) + log.items
    order = np.argsort(keys)
    out = []
    targets = (VALIDATION, validation_target(protocol)), (TEST, protocol.target)
    for each, (code, target) in zip(held, targets, strict=True):
        wanted = each.users * log.n_items + each.positives
        place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        rows = order[place]
        if bool((keys[rows] != wanted).any() or (part[rows] != code).any()):
            raise ValueError("a held-out item is no row of its part")
        hide = protocol.repeats == "hide"
        out.append(replace(each, queries=queries_of(log, rows, part, code, target, hide_seen=hide)))
    return out


def few_left(unobserved: Complement, users: npt.NDArray[np.int64], negatives: int) -> list[str]:
    """A note for the report if some of the users have fewer than `negatives` unobserved items.

    The list is empty otherwise.
    """
    few = int((unobserved.size(users) < negatives).sum())
    return [f"{few:,} users have fewer than {negatives} items left to sample from"] if few else []


def id_digests(ids: Ids) -> npt.NDArray[np.uint64]:
    """The first eight bytes of the BLAKE2b digest of each id, uint64 [n]."""
    joined = b"".join(
        hashlib.blake2b(f"{ids.kind}:{value}".encode(), digest_size=8).digest()
        for value in ids.values.tolist()
    )
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)

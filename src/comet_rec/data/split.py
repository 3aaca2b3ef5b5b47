"""Leave-one-out split: training rows, held-out items, and the candidates of each test user.

Leave-one-out: a user's latest row is the test positive, the second-latest the validation
positive; among equal times the row that stands later in the file is the later one. Users with
fewer than three rows stay in training whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig
from comet_rec.data.arrays import Array, indices
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.randomness import generator
from comet_rec.data.sampling import BLOCK, Complement, untouched_items
from comet_rec.errors import DataError, InputError, by_reader

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class HeldOut:
    """One positive per user and the candidates that it is ranked among.

    Parameters
    ----------
    users : int64 [T]
        Test users, ascending.
    positives : int64 [T]
        The held-out item of each.
    candidates : int32 [T, C]
        Items that the user never touched, ascending; `n_items` where fewer were left.
    """

    users: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A log with its held-out items and candidates.

    Parameters
    ----------
    interactions : Interactions
        The whole log.
    part : uint8 [R]
        0 training, 1 validation, 2 test, for each row.
    validation, test : HeldOut
    protocol : ProtocolConfig
    notes : tuple of str
        Notes of the split, a line each.
    """

    interactions: Interactions
    part: npt.NDArray[np.uint8]
    validation: HeldOut
    test: HeldOut
    protocol: ProtocolConfig
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Split({self.protocol.split}, {len(self.test):,} test users, "
            f"{self.protocol.negatives} negatives, of {self.interactions!r})"
        )

    @cached_property
    def train(self) -> Interactions:
        """Rows that weights may know before validation has chosen."""
        return self.interactions.select(self.part == TRAIN)

    @cached_property
    def known(self) -> Interactions:
        """Training and validation rows: what histories hold when the test item is ranked."""
        return self.interactions.select(self.part != TEST)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the protocol: its settings, and by external ids who is ranked against whom."""
        log = self.interactions
        users, items = _id_digests(log.user_ids), _id_digests(log.item_ids)
        items = np.append(items, np.uint64(0))
        state = hashlib.sha256(json.dumps(asdict(self.protocol), sort_keys=True).encode())
        for held in (self.validation, self.test):
            state.update(users[held.users].tobytes())
            state.update(items[held.positives].tobytes())
            for first in range(0, len(held), BLOCK):
                some = held.candidates[first : first + BLOCK]
                state.update(np.sort(items[some], axis=1).tobytes())
        return state.hexdigest()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Held-out items and candidates as plain arrays, for the artefact."""
        return {
            f"{name}.{field}": getattr(held, field)
            for name, held in (("validation", self.validation), ("test", self.test))
            for field in ("users", "positives", "candidates")
        }

    @staticmethod
    def declared_part() -> Array:
        """Declare the array `part`."""
        return indices(("rows",), TEST + 1, dtype="uint8")

    @staticmethod
    def declared(n_users: int, n_items: int) -> dict[str, Array]:
        """Declare the arrays that `arrays` gives; `n_items` pads users with fewer candidates."""
        found = {}
        for name in ("validation", "test"):
            shape = (name, f"candidates of {name}")
            found[f"{name}.users"] = indices((name,), n_users, order="increasing")
            found[f"{name}.positives"] = indices((name,), n_items)
            found[f"{name}.candidates"] = indices(shape, n_items + 1, dtype="int32")
        return found

    @staticmethod
    def from_arrays(
        interactions: Interactions,
        part: npt.NDArray[np.uint8],
        arrays: Mapping[str, npt.NDArray[Any]],
        protocol: ProtocolConfig,
    ) -> Split:
        """Rebuild the split whose `arrays` were stored."""
        held = [
            HeldOut(*(arrays[f"{name}.{field}"] for field in ("users", "positives", "candidates")))
            for name in ("validation", "test")
        ]
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
    negatives : int
        Candidates beside the positive, drawn without replacement from the items that the user
        never touched anywhere in the raw log; validation and test draw their own.
    seed : int
        Seed of the candidates.
    ties : {"expected", "pessimistic"}
        How a candidate with the positive's score counts.

    Raises
    ------
    DataError
        When no user has three rows, or none of those has an item left to be ranked against.
    InputError
        For what is no log.
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
    untouched = untouched_items(log)
    full = int((untouched.size(users) == 0).sum())
    users = users[untouched.size(users) > 0]  # a rank among nothing would be a hit
    if len(users) == 0:
        raise DataError(
            "leave-one-out needs items that a user never touched, and every user has touched all "
            f"{log.n_items}; give a log of more items or train on all of it ({_on_all()})"
        )
    part = np.zeros(len(log), dtype=np.uint8)
    part[ends[users] - 1] = TEST
    part[ends[users] - 2] = VALIDATION
    short = log.n_users - len(users) - full
    notes = [f"{short:,} users with fewer than 3 interactions stay in training"] if short else []
    if full:
        notes.append(f"{full:,} users who touched every item stay in training: nothing to rank")
    notes += _of_order(log, ends[users])
    held = _draw(log, users, part, protocol, untouched)
    notes += few_left(untouched, users, protocol.negatives)
    return Split(log, part, held[0], held[1], protocol, tuple(notes))


def _on_all() -> str:
    return by_reader(python="fit(log)", shell="--all")


IN_ORDER = 0.95
"""Share of users' steps to a higher item id from which on, of `STEPS` or more, no accident."""
STEPS = 100


def _of_order(log: Interactions, ends: npt.NDArray[np.int64]) -> list[str]:
    """Notes on what decides which item is a user's latest; `ends` is one past their last row."""
    if log.time_scope == "none":
        notes = ["no time column: the latest item is the last in the order of the file"]
        return notes + _by_id(log, np.ones(len(log) - 1, dtype=np.bool_), "give a time column")
    if log.times is None:
        return []
    tied = int((log.times[ends - 1] == log.times[ends - 2]).sum())
    if tied == 0:
        return []
    said = f"{tied:,} of {len(ends):,} users' two latest items have equal times"
    notes = [f"{said}: the order of the file decides"]
    return notes + _by_id(log, log.times[1:] == log.times[:-1], "give finer times")


def _by_id(log: Interactions, free: npt.NDArray[np.bool_], remedy: str) -> list[str]:
    """Whether rows that the order of the file is `free` to order are in the order of item ids."""
    steps = free & (log.users[1:] == log.users[:-1])
    up = (log.items[1:] > log.items[:-1])[steps]
    if len(up) < STEPS or up.mean() < IN_ORDER:
        return []
    what = "rows" if steps.sum() == (log.users[1:] == log.users[:-1]).sum() else "rows of one time"
    return [
        f"each user's {what} are in the order of item ids, so the highest id is held out, and "
        f"figures mean little: {remedy}, or shuffle the rows"
    ]


def _draw(
    log: Interactions,
    users: npt.NDArray[np.int64],
    part: npt.NDArray[np.uint8],
    protocol: ProtocolConfig,
    untouched: Complement,
) -> list[HeldOut]:
    """Candidates for the validation and test items of the same users."""
    held = []
    for name, code in (("validation", VALIDATION), ("test", TEST)):
        rng = generator(protocol.seed, f"candidates.{name}")
        most = min(protocol.negatives, log.n_items)
        drawn = untouched.draw_distinct(users, most, rng)
        held.append(HeldOut(users, log.items[part == code].astype(np.int64), drawn))
    return held


def few_left(untouched: Complement, users: npt.NDArray[np.int64], negatives: int) -> list[str]:
    """A note on users, [T], for whom fewer items can be drawn than are asked for."""
    few = int((untouched.size(users) < negatives).sum())
    return [f"{few:,} users have fewer than {negatives} items left to draw from"] if few else []


def _id_digests(ids: Ids) -> npt.NDArray[np.uint64]:
    """Eight bytes of BLAKE2b of each external id, uint64 [n]."""
    joined = b"".join(
        hashlib.blake2b(f"{ids.kind}:{value}".encode(), digest_size=8).digest()
        for value in ids.values.tolist()
    )
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)

"""Input of the audit's checks: the rows of a log with their parts, and the candidates as given."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.interactions import Interactions
from comet_rec.data.sampling import Complement, unobserved_items
from comet_rec.data.split import TEST, TRAIN, VALIDATION, HeldOut, Split

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Held:
    """Held-out items of one part, and every candidate as a row of its own.

    Parameters
    ----------
    name : {"test", "validation"}
    part : int
        Code of the part.
    users, positives : int64 [T]
        Users, ascending, and the item that is held out of each.
    rows, candidates : int64 [M]
        Place in `users`, ascending, and item of each candidate; repeats and positives included.
    negatives : int or None
        Candidates that each user should have; None where they are still to be drawn.
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
    """A log and what is held out of it, with all their faults.

    Parameters
    ----------
    log : Interactions
        All rows. Those that another tool put into two parts stand twice.
    part : uint8 [R]
    held : tuple of Held
    test_times : bool
        Whether the times of the test rows are the log's own (a given test file may have none).
    """

    log: Interactions
    part: npt.NDArray[np.uint8]
    held: tuple[Held, ...]
    test_times: bool

    @cached_property
    def train(self) -> npt.NDArray[np.bool_]:
        """Whether a row is for training, bool [R]."""
        return np.asarray(self.part == TRAIN)

    @cached_property
    def interacted(self) -> Complement:
        """Items of each user anywhere in the raw log, dropped rows included."""
        return unobserved_items(self.log)

    def keys(self, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> Int64:
        """One number for each pair, int64."""
        return np.asarray(users.astype(np.int64) * self.log.n_items + items)

    def example(self, *, user: Any = None, item: Any = None, **more: Any) -> dict[str, Any]:
        """External ids of a case, as JSON can hold them; `more` is added as it is."""
        found: dict[str, Any] = {}
        if user is not None:
            found["user"] = _plain(self.log.user_ids.external([user]).tolist()[0])
        if item is not None:
            found["item"] = _plain(self.log.item_ids.external([item]).tolist()[0])
        return found | more

    def row(self, row: int) -> dict[str, Any]:
        """User, item and time of a row, as an example."""
        log = self.log
        time = {} if log.times is None else {"time": int(log.times[row])}
        return self.example(user=int(log.users[row]), item=int(log.items[row]), **time)


def of_split(split: Split) -> Material:
    """Material of a split; the test times of a given one were made up when it was read."""
    n_items = split.interactions.n_items
    given = split.protocol.split == "given"
    held = []
    for name, code, part in (
        ("test", TEST, split.test),
        ("validation", VALIDATION, split.validation),
    ):
        # A given split's protocol has the width of its test file; validation was drawn by us.
        wanted = part.candidates.shape[1] if given else split.protocol.negatives
        held.append(_of_held(name, code, part, wanted, n_items))
    return Material(split.interactions, split.part, tuple(held), not given)


def of_log(log: Interactions) -> Material:
    """Material of a log of which nothing is held out."""
    return Material(log, np.zeros(len(log), dtype=np.uint8), (), True)


def _of_held(name: str, code: int, held: HeldOut, negatives: int, n_items: int) -> Held:
    rows, columns = np.nonzero(held.candidates != n_items)
    return Held(
        name=name,
        part=code,
        users=held.users,
        positives=held.positives,
        rows=rows,
        candidates=held.candidates[rows, columns].astype(np.int64),
        negatives=negatives,
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, uuid.UUID) else value

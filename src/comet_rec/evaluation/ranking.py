"""Ranks of held-out items among their candidates and among the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.errors import NonFiniteError
from comet_rec.evaluation.metrics import TieRule, figures, rank

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Rows = Callable[[Int64], Float32]
"""Scores of all items for a block of users, [B] → [B, n_items]."""

BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Ranks:
    """How a positive stands against its candidates, for each test user.

    Parameters
    ----------
    better, tied : int64 [T]
        Candidates with a higher and with an equal score.
    """

    better: Int64
    tied: Int64

    @property
    def rank(self) -> npt.NDArray[np.float64]:
        """Better + 1 + tied/2."""
        return rank(self.better, self.tied)


@dataclass(frozen=True, eq=False)
class Report:
    """Figures of one model under one protocol; ``report["HR@10"]`` is the sampled figure.

    Parameters
    ----------
    model : str
    protocol : dict
        Its settings and hash.
    users : int64 [T]
        Test users.
    sampled_ranks, full_ranks : Ranks
        Against the drawn candidates; against the whole catalogue without seen items, or None.
    """

    model: str
    protocol: dict[str, Any]
    users: Int64
    sampled_ranks: Ranks
    full_ranks: Ranks | None
    ties: TieRule = "expected"
    sampled: dict[str, float] = field(init=False)
    sampled_se: dict[str, float] = field(init=False)
    full: dict[str, float] | None = field(init=False, default=None)
    full_se: dict[str, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        pairs = [("sampled", self.sampled_ranks), ("full", self.full_ranks)]
        for name, ranks in pairs:
            if ranks is not None:
                means, errors = figures(ranks.better, ranks.tied, self.ties)
                object.__setattr__(self, name, means)
                object.__setattr__(self, f"{name}_se", errors)

    def __getitem__(self, name: str) -> float:
        return self.sampled[name]

    @property
    def ranks(self) -> npt.NDArray[np.float64]:
        """Sampled rank of each test user's positive, float64 [T]."""
        return self.sampled_ranks.rank

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``evaluate --json`` prints it."""
        return {
            "model": self.model,
            "protocol": self.protocol,
            "n_users": len(self.users),
            "sampled": self.sampled,
            "sampled_se": self.sampled_se,
            "full": self.full,
            "full_se": self.full_se,
        }


def blocks(held: HeldOut, size: int = BLOCK) -> Iterator[slice]:
    """Consecutive blocks of test users."""
    for first in range(0, len(held), size):
        yield slice(first, min(first + size, len(held)))


def sampled_ranks(rows: Rows, held: HeldOut) -> Ranks:
    """Rank each positive among its own candidates.

    Parameters
    ----------
    rows : callable
        Scores of all items for a block of users.
    held : HeldOut

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    better, tied = np.empty(len(held), np.int64), np.empty(len(held), np.int64)
    for block in blocks(held):
        scores = checked(rows(held.users[block]))
        positive = np.take_along_axis(scores, held.positives[block, None], axis=1)
        candidates = held.candidates[block]
        exists = candidates < scores.shape[1]
        drawn = np.take_along_axis(scores, np.where(exists, candidates, 0), axis=1)
        better[block] = ((drawn > positive) & exists).sum(axis=1)
        tied[block] = ((drawn == positive) & exists).sum(axis=1)
    return Ranks(better, tied)


def full_ranks(rows: Rows, held: HeldOut, seen: Interactions) -> Ranks:
    """Rank each positive among all items that are not in `seen` for its user.

    Parameters
    ----------
    rows : callable
        Scores of all items for a block of users.
    held : HeldOut
    seen : Interactions
        What was known of the users when the positive was still to come.

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    better, tied = np.empty(len(held), np.int64), np.empty(len(held), np.int64)
    for block in blocks(held):
        users = held.users[block]
        scores = checked(rows(users))
        positive = np.take_along_axis(scores, held.positives[block, None], axis=1)
        # Seen items count on neither side: their shares are taken off again.
        row, item = seen.touched(users)
        own, seen_scores = positive[row, 0], scores[row, item]
        is_other = item != held.positives[block][row]
        seen_better = np.bincount(row, (seen_scores > own) & is_other, len(users))
        seen_tied = np.bincount(row, (seen_scores == own) & is_other, len(users))
        better[block] = (scores > positive).sum(axis=1) - seen_better
        tied[block] = (scores == positive).sum(axis=1) - 1 - seen_tied
    return Ranks(better, tied)


def checked(scores: Float32) -> Float32:
    """Pass on scores that are all finite.

    Raises
    ------
    NonFiniteError
        Else: a rank among NaNs would mean nothing.
    """
    if not bool(np.isfinite(scores).all()):
        raise NonFiniteError(
            "a score is NaN or infinite; train again with a lower train.learning_rate"
        )
    return scores

"""Ranks of held-out items among their candidates and among the whole catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.errors import NonFiniteError, UnknownNameError
from comet_rec.evaluation.metrics import TieRule, figures, hit_rate, ndcg, rank, standard_error
from comet_rec.models.interfaces import Scorer
from comet_rec.random import generator

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

BLOCK_BYTES = 64 * 2**20
"""Scores held at a time; a catalogue of a million items is ranked for 16 users at once."""


FEW_USERS = 30
"""Test users below which figures come with a word of caution."""


def caution(users: int) -> list[str]:
    """A line on figures of so few test users that chance decides them; none of more."""
    if users >= FEW_USERS:
        return []
    who = f"{users} test user{'s' * (users != 1)}"
    return [f"caution: only {who}, so chance decides; measure on {FEW_USERS} or more"]


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

    def figure(self, name: str, ties: TieRule) -> npt.NDArray[np.float64]:
        """HR@k or NDCG@k of each user, at any k, float64 [T].

        Raises
        ------
        UnknownNameError
            For another figure.
        """
        match = re.fullmatch(r"(HR|NDCG)@([1-9][0-9]{0,99})", str(name))
        if match is None:
            raise UnknownNameError(
                f"no figure {name!r}; there are HR@k and NDCG@k for any k, such as HR@10 and "
                "NDCG@20"
            )
        metric = {"HR": hit_rate, "NDCG": ndcg}[match[1]]
        worst = int((self.better + self.tied).max(initial=0)) + 1  # a larger k adds nothing
        return metric(self.better, self.tied, min(int(match[2]), worst), ties)


class Figures(dict[str, float]):
    """HR@k and NDCG@k of some ranks: at 5 and 10 listed, at any other k made when asked for.

    Parameters
    ----------
    ranks : Ranks
    ties : {"expected", "pessimistic"}
    errors : bool
        Standard errors of the means over users, not the means.
    """

    def __init__(self, ranks: Ranks, ties: TieRule, *, errors: bool = False) -> None:
        super().__init__(figures(ranks.better, ranks.tied, ties)[errors])
        self._ranks, self._ties, self._errors = ranks, ties, errors

    def __getitem__(self, name: str) -> float:
        if isinstance(name, str) and dict.__contains__(self, name):
            return super().__getitem__(name)
        values = self._ranks.figure(name, self._ties)
        return standard_error(values) if self._errors else float(values.mean())

    def __contains__(self, name: object) -> bool:
        try:
            self[name]  # type: ignore[index]
        except KeyError:
            return False
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """The figure of this name, or the default."""
        try:
            return self[name]
        except KeyError:
            return default


@dataclass(frozen=True, eq=False, repr=False)
class Report(Mapping[str, float]):
    """Figures of one model under one protocol, a mapping of names to the sampled figures.

    ``report["HR@10"]`` is the figure among sampled candidates, ``report.full["HR@10"]`` the one
    over the whole catalogue. HR@k and NDCG@k are there at any k; 5 and 10 are listed.

    Parameters
    ----------
    model : str
    protocol : dict
        Its settings and hash.
    users : int64 [T]
        Indices of the test users; `interactions.user_ids.external` has their ids.
    sampled_ranks, full_ranks : Ranks
        Against the sampled candidates; against the whole catalogue without seen items (for models
        whose pairs are dear, of a sample of the test users), or None.
    ties : {"expected", "pessimistic"}
    full_users : int64 [F]
        The users of `full_ranks`; a subset of `users`, in their order. None where it is.
    """

    model: str
    protocol: dict[str, Any]
    users: Int64
    sampled_ranks: Ranks
    full_ranks: Ranks | None
    ties: TieRule = "expected"
    full_users: Int64 | None = None
    sampled: Figures = field(init=False)
    sampled_se: Figures = field(init=False)
    full: Figures | None = field(init=False, default=None)
    full_se: Figures | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        pairs = [("sampled", self.sampled_ranks), ("full", self.full_ranks)]
        for name, ranks in pairs:
            if ranks is not None:
                object.__setattr__(self, name, Figures(ranks, self.ties))
                object.__setattr__(self, f"{name}_se", Figures(ranks, self.ties, errors=True))

    def __getitem__(self, name: str) -> float:
        """Sampled HR@k or NDCG@k, at any k."""
        return self.sampled[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sampled)

    def __len__(self) -> int:
        return len(self.sampled)

    # A report is one measurement: two with equal figures need not be of one model.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        parts = [("sampled", self.sampled), ("full", self.full)]
        texts = [
            f"{room} " + " ".join(f"{name} {value:.4f}" for name, value in means.items())
            for room, means in parts
            if means is not None
        ]
        texts += caution(len(self.users))
        return f"Report({self.model}, {len(self.users):,} users: {'; '.join(texts)})"

    def of_users(self, name: str, *, full: bool = False) -> npt.NDArray[np.float64]:
        """HR@k or NDCG@k of each user that was ranked, at any k: what paired tests ask for.

        float64 [T]; over the whole catalogue [F], of `full_users`.

        Parameters
        ----------
        name : str
            "HR@20", "NDCG@1", …
        full : bool
            Over the whole catalogue.

        Raises
        ------
        UnknownNameError
            For another figure, and for a full one where the whole catalogue was not ranked.
        """
        ranks = self.full_ranks if full else self.sampled_ranks
        if ranks is None:
            raise UnknownNameError(f"no full {name}: the whole catalogue was not ranked")
        return ranks.figure(name, self.ties)

    @property
    def ranks(self) -> npt.NDArray[np.float64]:
        """Sampled rank of each test user's positive, float64 [T]."""
        return self.sampled_ranks.rank

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``evaluate --json`` prints it."""
        ranked = None if self.full_ranks is None else len(self.full_ranks.better)
        return {
            "model": self.model,
            "protocol": self.protocol,
            "n_users": len(self.users),
            "n_users_full": ranked,
            "sampled": dict(self.sampled),
            "sampled_se": dict(self.sampled_se),
            "full": None if self.full is None else dict(self.full),
            "full_se": None if self.full_se is None else dict(self.full_se),
        }


def blocks(count: int, row_items: int) -> Iterator[slice]:
    """Consecutive blocks of users whose scores, `row_items` each, fit into `BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // (4 * max(row_items, 1)))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def sampled_ranks(scores: Scorer, held: HeldOut) -> Ranks:
    """Rank each positive among its own candidates.

    Parameters
    ----------
    scores : Scorer
    held : HeldOut

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    (ranks,) = weighed_ranks(scores, None, (0.0,), held)
    return ranks


def weighed_ranks(
    scores: Scorer, second: Scorer | None, weights: Sequence[float], held: HeldOut
) -> list[Ranks]:
    """Rank each positive among its own candidates by scores + w · second, for each weight w.

    Both are asked for once, whatever the number of weights.

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    better, tied = np.empty((2, len(weights), len(held)), np.int64)
    for block in blocks(len(held), 1 + held.candidates.shape[1]):
        users, candidates = held.users[block], held.candidates[block].astype(np.int64)
        exists = candidates < scores.n_items
        positives = held.positives[block, None]
        items = np.hstack([positives, np.where(exists, candidates, positives)])
        first = checked(scores.score_pairs(users, items))
        more = None if second is None else checked(second.score_pairs(users, items))
        for place, weight in enumerate(weights):
            summed = _summed(first, more, weight)
            positive, candidate = summed[:, :1], summed[:, 1:]
            better[place, block] = ((candidate > positive) & exists).sum(axis=1)
            tied[place, block] = ((candidate == positive) & exists).sum(axis=1)
    return [Ranks(*pair) for pair in zip(better, tied, strict=True)]


def _summed(first: Float32, second: Float32 | None, weight: float) -> Float32:
    """The first scores + weight · second; the first alone where there is no second."""
    return first if second is None else first + np.float32(weight) * second


def drawn_users(held: HeldOut, most: int | None) -> HeldOut:
    """At most so many of the held-out rows: one draw, the same for every model."""
    if most is None or most >= len(held):
        return held
    rows = np.sort(generator(0, "full.users").permutation(len(held))[:most])
    return HeldOut(held.users[rows], held.positives[rows], held.candidates[rows])


def full_ranks(scores: Scorer, held: HeldOut, seen: Interactions) -> Ranks:
    """Rank each positive among all items that are not in `seen` for its user.

    Parameters
    ----------
    scores : Scorer
    held : HeldOut
    seen : Interactions
        Interactions that were known when the positive was still to come.

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    (ranks,) = weighed_full_ranks(scores, None, (0.0,), held, seen)
    return ranks


def weighed_full_ranks(
    scores: Scorer,
    second: Scorer | None,
    weights: Sequence[float],
    held: HeldOut,
    seen: Interactions,
) -> list[Ranks]:
    """Rank as `full_ranks`, by scores + w · second, for each weight w.

    Both are asked for once, whatever the number of weights.

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    better, tied = np.empty((2, len(weights), len(held)), np.int64)
    held_at_once = 1 if second is None else 4
    for block in blocks(len(held), scores.n_items * held_at_once):
        users, positives = held.users[block], held.positives[block]
        first = checked(scores.score_all(users))
        more = None if second is None else checked(second.score_all(users))
        row, item = seen.interacted_items(users)
        is_other = item != positives[row]
        for place, weight in enumerate(weights):
            summed = _summed(first, more, weight)
            positive = np.take_along_axis(summed, positives[:, None], axis=1)
            # Seen items count on neither side: their shares are taken off again.
            own, seen_scores = positive[row, 0], summed[row, item]
            seen_better = np.bincount(row, (seen_scores > own) & is_other, len(users))
            seen_tied = np.bincount(row, (seen_scores == own) & is_other, len(users))
            better[place, block] = np.count_nonzero(summed > positive, axis=1) - seen_better
            tied[place, block] = np.count_nonzero(summed == positive, axis=1) - 1 - seen_tied
    # A log that repeats a pair, as a stranger's run can, takes its share off twice.
    better, tied = np.maximum(better, 0), np.maximum(tied, 0)
    return [Ranks(*pair) for pair in zip(better, tied, strict=True)]


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

"""Ranks of held-out items among sampled candidates and among all items."""

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
"""Memory for the scores that are computed at a time: 16 users if there are a million items."""

FEW_USERS = 30
"""Number of test users below which reports carry a line of caution."""


def caution(users: int) -> list[str]:
    """A list with a line of caution for fewer than `FEW_USERS` test users; else an empty list."""
    if users >= FEW_USERS:
        return []
    count = f"{users} test user{'s' * (users != 1)}"
    return [f"caution: only {count}, so chance decides; measure on {FEW_USERS} or more"]


@dataclass(frozen=True, eq=False)
class Ranks:
    """For each test user, how many candidates score higher than the positive, and how many tie.

    Parameters
    ----------
    better, tied : int64 [T]
        Numbers of candidates with a higher score than the positive, and with the same score.
    """

    better: Int64
    tied: Int64

    @property
    def rank(self) -> npt.NDArray[np.float64]:
        """Rank of each positive, with half of the tied candidates above it, float64 [T]."""
        return rank(self.better, self.tied)

    def figure(self, name: str, ties: TieRule) -> npt.NDArray[np.float64]:
        """The metric `name`, HR@k or NDCG@k for any k, of each user, float64 [T].

        Raises
        ------
        UnknownNameError
            If `name` is neither HR@k nor NDCG@k.
        """
        match = re.fullmatch(r"(HR|NDCG)@([1-9][0-9]{0,99})", str(name))
        if match is None:
            raise UnknownNameError(
                f"unknown metric {name!r}; use HR@k or NDCG@k with any k, such as HR@10 or NDCG@20"
            )
        metric = {"HR": hit_rate, "NDCG": ndcg}[match[1]]
        worst = int((self.better + self.tied).max(initial=0)) + 1  # a larger k changes nothing
        return metric(self.better, self.tied, min(int(match[2]), worst), ties)


class Figures(dict[str, float]):
    """Mean HR@k and NDCG@k over users, as a dict from names such as "HR@10" to values.

    Iteration gives k = 5 and 10. Any other k is computed on access.

    Parameters
    ----------
    ranks : Ranks
    ties : {"expected", "pessimistic"}
    errors : bool
        Hold the standard errors of the means instead of the means.
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
        """Value of the metric `name`; `default` if there is no such metric."""
        try:
            return self[name]
        except KeyError:
            return default


@dataclass(frozen=True, eq=False, repr=False)
class Report(Mapping[str, float]):
    """Metrics of one model under one protocol: a mapping from names to sampled metrics.

    ``report["HR@10"]`` is the sampled metric, ``report.full["HR@10"]`` the full metric. HR@k and
    NDCG@k work for any k; iteration gives k = 5 and 10.

    Parameters
    ----------
    model : str
    protocol : dict
        Settings and hash of the protocol.
    users : int64 [T]
        Indices of the test users; `interactions.user_ids.external` has their ids.
    sampled_ranks, full_ranks : Ranks
        Ranks among sampled candidates, and among all items that the user has not interacted with.
        `full_ranks` covers only a sample of users if the model scores slowly, and is None without
        a full ranking.
    ties : {"expected", "pessimistic"}
    full_users : int64 [F]
        Users in `full_ranks`: a subset of `users`, in the same order. None without a full ranking.
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
        """Sampled metric by name: HR@k or NDCG@k, for any k."""
        return self.sampled[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sampled)

    def __len__(self) -> int:
        return len(self.sampled)

    # Reports compare by identity: two models can have equal metrics.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        parts = [("sampled", self.sampled), ("full", self.full)]
        texts = [
            f"{kind} " + " ".join(f"{name} {value:.4f}" for name, value in means.items())
            for kind, means in parts
            if means is not None
        ]
        texts += caution(len(self.users))
        return f"Report({self.model}, {len(self.users):,} users: {'; '.join(texts)})"

    def of_users(self, name: str, *, full: bool = False) -> npt.NDArray[np.float64]:
        """HR@k or NDCG@k of each ranked user, for any k. Paired tests use these values.

        The array is float64 [T], in the order of `users`. For the full metric it is [F], in the
        order of `full_users`.

        Parameters
        ----------
        name : str
            "HR@20", "NDCG@1", …
        full : bool
            Return the full metric instead of the sampled metric.

        Raises
        ------
        UnknownNameError
            If `name` is neither HR@k nor NDCG@k, or if `full` is True without a full ranking.
        """
        ranks = self.full_ranks if full else self.sampled_ranks
        if ranks is None:
            raise UnknownNameError(
                f"no full {name}: the model was evaluated without a full ranking"
            )
        return ranks.figure(name, self.ties)

    @property
    def ranks(self) -> npt.NDArray[np.float64]:
        """Rank of each test user's positive among sampled candidates, float64 [T]."""
        return self.sampled_ranks.rank

    def to_dict(self) -> dict[str, Any]:
        """The report as the plain data that ``evaluate --json`` prints."""
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
    """Divide `count` users into consecutive slices whose scores fit into `BLOCK_BYTES`.

    Each user has `row_items` float32 scores.
    """
    size = max(1, BLOCK_BYTES // (4 * max(row_items, 1)))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def sampled_ranks(scores: Scorer, held: HeldOut) -> Ranks:
    """Rank each positive among the sampled candidates of its user.

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
    """Rank each positive among its user's candidates by a weighted sum of two models' scores.

    The sum is scores + w · second, and there is one `Ranks` for each weight w. If `second` is None,
    only `scores` counts. Both scorers run once, whatever the number of weights.

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    better, tied = np.empty((2, len(weights), len(held)), np.int64)
    for block in blocks(len(held), 1 + held.candidates.shape[1]):
        users, candidates = held.users[block], held.candidates[block].astype(np.int64)
        exists = candidates < scores.n_items  # False for padding, [b, C]
        positives = held.positives[block, None]
        # The positive is scored in place of padding, which does not count.
        items = np.hstack([positives, np.where(exists, candidates, positives)])  # [b, 1 + C]
        first_scores = checked(scores.score_pairs(users, items))
        second_scores = None if second is None else checked(second.score_pairs(users, items))
        for place, weight in enumerate(weights):
            summed = _summed(first_scores, second_scores, weight)
            positive, candidate = summed[:, :1], summed[:, 1:]
            better[place, block] = ((candidate > positive) & exists).sum(axis=1)
            tied[place, block] = ((candidate == positive) & exists).sum(axis=1)
    return [Ranks(*pair) for pair in zip(better, tied, strict=True)]


def _summed(first: Float32, second: Float32 | None, weight: float) -> Float32:
    """Sum first + weight · second; only `first` if `second` is None."""
    return first if second is None else first + np.float32(weight) * second


def drawn_users(held: HeldOut, most: int | None) -> HeldOut:
    """Random sample of at most `most` held-out rows; all rows if `most` is None.

    The sample is the same for every model.
    """
    if most is None or most >= len(held):
        return held
    rows = np.sort(generator(0, "full.users").permutation(len(held))[:most])
    return HeldOut(held.users[rows], held.positives[rows], held.candidates[rows])


def full_ranks(scores: Scorer, held: HeldOut, seen: Interactions) -> Ranks:
    """Rank each positive among all items, except its user's other items in `seen`.

    Parameters
    ----------
    scores : Scorer
    held : HeldOut
    seen : Interactions
        Known interactions, whose items the ranking leaves out.

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
    """Rank each positive as `full_ranks` does, by a weighted sum of two models' scores.

    The sum is scores + w · second, and there is one `Ranks` for each weight w. If `second` is None,
    only `scores` counts. Both scorers run once, whatever the number of weights.

    Raises
    ------
    NonFiniteError
        When a score is NaN or infinite.
    """
    better, tied = np.empty((2, len(weights), len(held)), np.int64)
    held_at_once = 1 if second is None else 4
    for block in blocks(len(held), scores.n_items * held_at_once):
        users, positives = held.users[block], held.positives[block]
        first_scores = checked(scores.score_all(users))
        second_scores = None if second is None else checked(second.score_all(users))
        row, item = seen.interacted_items(users)  # [S] each, a pair for each seen item
        is_other = item != positives[row]
        for place, weight in enumerate(weights):
            summed = _summed(first_scores, second_scores, weight)  # [b, I]
            positive = np.take_along_axis(summed, positives[:, None], axis=1)  # [b, 1]
            # Seen items do not count: subtract those that are better or tied.
            positive_scores, seen_scores = positive[row, 0], summed[row, item]
            is_better, is_tied = seen_scores > positive_scores, seen_scores == positive_scores
            seen_better = np.bincount(row, is_better & is_other, len(users))
            seen_tied = np.bincount(row, is_tied & is_other, len(users))
            better[place, block] = np.count_nonzero(summed > positive, axis=1) - seen_better
            # The positive ties with itself.
            tied[place, block] = np.count_nonzero(summed == positive, axis=1) - 1 - seen_tied
    # A run from elsewhere may repeat a pair; the pair was then subtracted twice.
    better, tied = np.maximum(better, 0), np.maximum(tied, 0)
    return [Ranks(*pair) for pair in zip(better, tied, strict=True)]


def checked(scores: Float32) -> Float32:
    """Return the scores if all of them are finite.

    Raises
    ------
    NonFiniteError
        If a score is NaN or infinite, since ranks would then mean nothing.
    """
    if not bool(np.isfinite(scores).all()):
        raise NonFiniteError(
            "a score is NaN or infinite; train again with a lower train.learning_rate"
        )
    return scores

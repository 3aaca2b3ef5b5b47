"""Ranks of held-out items among sampled candidates and among all items."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec import processes, verify
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.errors import NonFiniteError, UnknownNameError
from comet_rec.evaluation.metrics import (
    CUTOFFS,
    TieRule,
    clustered_error,
    figures,
    first_of_lists,
    hit_rate,
    ndcg,
    ndcg_of_lists,
    rank,
    recall_of_lists,
    standard_error,
)
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
    """For each positive, how many candidates score higher, and how many have the same score.

    Parameters
    ----------
    better, tied : int64 [T]
        Numbers of candidates with a higher score than the positive, and with the same score.
    lists : int64 [T] or None
        List of each positive, from 0 to L − 1. None if each positive has a list of its own and a
        user of its own, as in leave-one-out.
    owners : int64 [L] or None
        User of each list, ascending.
    """

    better: Int64
    tied: Int64
    lists: Int64 | None = None
    owners: Int64 | None = None

    @staticmethod
    def of_held(better: Int64, tied: Int64, held: HeldOut) -> Ranks:
        """Ranks of held-out items, with the lists of their queries."""
        if held.queries is None:
            return Ranks(better, tied)
        queries, lists = np.unique(held.queries.of_rows, return_inverse=True)
        return Ranks(better, tied, lists, held.queries.users[queries])

    def take(self, rows: npt.NDArray[np.bool_]) -> Ranks:
        """The ranks of some positives, in lists that have at least one of them."""
        assert self.lists is not None
        assert self.owners is not None
        kept, lists = np.unique(self.lists[rows], return_inverse=True)
        return Ranks(self.better[rows], self.tied[rows], lists, self.owners[kept])

    @property
    def n_users(self) -> int:
        """Number of users with a list."""
        return len(self.better if self.owners is None else np.unique(self.owners))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, without k. Recall and MRR are for splits by time."""
        return ("HR", "NDCG") if self.lists is None else ("HR", "NDCG", "Recall", "MRR")

    @property
    def rank(self) -> npt.NDArray[np.float64]:
        """Rank of each positive, with half of the tied candidates above it, float64 [T]."""
        return rank(self.better, self.tied)

    def figure(self, name: str, ties: TieRule) -> npt.NDArray[np.float64]:
        """The metric `name` of each list, float64 [L]: HR@k or NDCG@k for any k.

        In a split by time, Recall@k and MRR@k are metrics too. Without `lists`, each positive and
        user has a list.

        Raises
        ------
        UnknownNameError
            If there is no such metric.
        """
        match = re.fullmatch(rf"({'|'.join(self.metrics)})@([1-9][0-9]{{0,99}})", str(name))
        if match is None:
            known = " or ".join(f"{metric}@k" for metric in self.metrics)
            raise UnknownNameError(
                f"unknown metric {name!r}; use {known} with any k, such as HR@10 or NDCG@20"
            )
        worst = int((self.better + self.tied).max(initial=0)) + 1  # a larger k changes nothing
        k = min(int(match[2]), worst)
        if self.lists is None:
            metric = {"HR": hit_rate, "NDCG": ndcg}[match[1]]
            return metric(self.better, self.tied, k, ties)
        ranks = self.better, self.tied, self.lists
        if match[1] in ("HR", "MRR"):
            hits, reciprocal = first_of_lists(*ranks, k, ties)
            return hits if match[1] == "HR" else reciprocal
        if match[1] == "NDCG":
            return ndcg_of_lists(*ranks, k, ties)
        return recall_of_lists(*ranks, k, ties)

    def of_users(self, name: str, ties: TieRule) -> npt.NDArray[np.float64]:
        """The metric `name` of each user, float64 [U], such that its mean is the mean over lists.

        The value of a user is the sum over the user's lists, times users per list.
        """
        values = self.figure(name, ties)
        if self.owners is None:
            return values
        _, users = np.unique(self.owners, return_inverse=True)
        sums = np.bincount(users, values)
        return np.asarray(sums * (len(sums) / len(values)))

    def error(self, name: str, ties: TieRule) -> float:
        """Standard error of the mean of the metric `name`; lists of one user count together."""
        return self._error(self.figure(name, ties))

    def _error(self, values: npt.NDArray[np.float64]) -> float:
        """Standard error of the mean of one value for each list."""
        if self.owners is None:
            return standard_error(values)
        return clustered_error(values, np.unique(self.owners, return_inverse=True)[1])

    def means(self, ties: TieRule) -> tuple[dict[str, float], dict[str, float]]:
        """Means of the listed metrics at k = 5 and 10, and the standard errors of the means."""
        if self.lists is None:
            return figures(self.better, self.tied, ties)
        names = [f"{metric}@{k}" for k in CUTOFFS for metric in self.metrics]
        values = {name: self.figure(name, ties) for name in names}
        means = {name: float(of_lists.mean()) for name, of_lists in values.items()}
        return means, {name: self._error(of_lists) for name, of_lists in values.items()}


class Figures(dict[str, float]):
    """Mean HR@k and NDCG@k over users, as a dict from names such as "HR@10" to values.

    Iteration gives k = 5 and 10. Any other k is computed on access. In a split by time, means are
    over lists, and Recall@k and MRR@k are listed too.

    Parameters
    ----------
    ranks : Ranks
    ties : {"expected", "pessimistic"}
    errors : bool
        Hold the standard errors of the means instead of the means.
    """

    def __init__(self, ranks: Ranks, ties: TieRule, *, errors: bool = False) -> None:
        super().__init__(ranks.means(ties)[errors])
        self._ranks, self._ties, self._errors = ranks, ties, errors

    def __getitem__(self, name: str) -> float:
        if isinstance(name, str) and dict.__contains__(self, name):
            return super().__getitem__(name)
        if self._errors:
            return self._ranks.error(name, self._ties)
        return float(self._ranks.figure(name, self._ties).mean())

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
        Indices of the test users; `interactions.user_ids.external` has their ids. In a split by
        time, each user is there once, whatever the number of lists.
    sampled_ranks, full_ranks : Ranks
        Ranks among sampled candidates, and among all items that the user has not interacted with.
        `full_ranks` covers only a sample of users if the model scores slowly, and is None without
        a full ranking.
    ties : {"expected", "pessimistic"}
    full_users : int64 [F]
        Users in `full_ranks`: a subset of `users`, in the same order. None without a full ranking.
    time_split : dict or None
        For a split by time: numbers of test rows and new users, figures by group, and figures of
        the lists (`by_time.findings`). None for other splits.
    """

    model: str
    protocol: dict[str, Any]
    users: Int64
    sampled_ranks: Ranks
    full_ranks: Ranks | None
    ties: TieRule = "expected"
    full_users: Int64 | None = None
    time_split: dict[str, Any] | None = None
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
        order of `full_users`. The mean is the figure of the report, so a user with several lists
        gets their sum, times users per list.

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
        return ranks.of_users(name, self.ties)

    @property
    def ranks(self) -> npt.NDArray[np.float64]:
        """Rank of each positive among sampled candidates, float64, one for each held-out item."""
        return self.sampled_ranks.rank

    def to_dict(self) -> dict[str, Any]:
        """The report as the plain data that ``evaluate --json`` prints."""
        ranked = None if self.full_ranks is None else self.full_ranks.n_users
        more = {} if self.time_split is None else {"time_split": self.time_split}
        return {
            "model": self.model,
            "protocol": self.protocol,
            "n_users": len(self.users),
            "n_users_full": ranked,
            "sampled": dict(self.sampled),
            "sampled_se": dict(self.sampled_se),
            "full": None if self.full is None else dict(self.full),
            "full_se": None if self.full_se is None else dict(self.full_se),
            **more,
        }


def blocks(count: int, row_items: int) -> Iterator[slice]:
    """Divide `count` users into consecutive slices whose scores fit into `BLOCK_BYTES`.

    Each user has `row_items` float32 scores.
    """
    size = max(1, BLOCK_BYTES // (4 * max(row_items, 1)))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def own_blocks(count: int, row_items: int) -> Iterator[slice]:
    """As `blocks`, for the lists that this process ranks."""
    part = processes.share(count)
    for block in blocks(part.stop - part.start, row_items):
        yield slice(part.start + block.start, part.start + block.stop)


def _of_all_processes(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values [W, T], of which each process has filled in its share of the T lists."""
    count = values.shape[1]
    return processes.gathered_array(values[:, processes.share(count)].T, count).T


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
    several = held.queries is not None and held.queries.several
    own = np.empty((len(weights), len(held) if several else 0), np.float32)
    for block in own_blocks(len(held), 1 + held.candidates.shape[1]):
        users, candidates = held.lists[block], held.candidates[block].astype(np.int64)
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
            if several:
                own[place, block] = positive[:, 0]
    better, tied = _of_all_processes(better), _of_all_processes(tied)
    if several:
        own = _of_all_processes(own)
        # The other positives of a list are ranked in it too.
        for place in range(len(weights)):
            more_better, more_tied = _among_positives(own[place], held.lists)
            better[place] += more_better
            tied[place] += more_tied
    return [Ranks.of_held(*pair, held) for pair in zip(better, tied, strict=True)]


def _among_positives(scores: Float32, lists: Int64) -> tuple[Int64, Int64]:
    """For each positive, how many positives of its list score higher, and how many others tie.

    `scores` and `lists` are [T].
    """
    order = np.lexsort((-scores, lists))
    scores, lists = scores[order], lists[order]
    new_list = np.ones(len(order), dtype=bool)
    new_list[1:] = lists[1:] != lists[:-1]
    new_score = new_list.copy()
    new_score[1:] |= scores[1:] != scores[:-1]
    list_start = np.flatnonzero(new_list)[np.cumsum(new_list) - 1]
    group = np.cumsum(new_score) - 1  # positives of one list and score
    group_start = np.flatnonzero(new_score)[group]
    better, tied = np.empty((2, len(order)), np.int64)
    better[order] = group_start - list_start
    tied[order] = np.bincount(group)[group] - 1
    return better, tied


def _summed(first: Float32, second: Float32 | None, weight: float) -> Float32:
    """Sum first + weight · second; only `first` if `second` is None."""
    return first if second is None else first + np.float32(weight) * second


def drawn_users(held: HeldOut, most: int | None) -> HeldOut:
    """Random sample of at most `most` lists, with all their held-out items; all if `most` is None.

    Without queries, each user has a list. The sample is the same for every model.
    """
    lists = np.unique(held.lists)
    if most is None or most >= len(lists):
        return held
    drawn = np.sort(generator(0, "full.users").permutation(len(lists))[:most])
    return held.take(np.flatnonzero(np.isin(held.lists, lists[drawn])))


def full_ranks(scores: Scorer, held: HeldOut, seen: Interactions) -> Ranks:
    """Rank each positive among all items, except its user's other items in `seen`.

    In a split by time, the queries of the held-out items say which items exist and are seen.

    Parameters
    ----------
    scores : Scorer
    held : HeldOut
    seen : Interactions
        Known interactions, whose items the ranking leaves out. A split by time does not read them.

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
    for block in own_blocks(len(held), scores.n_items * held_at_once):
        users, positives = held.lists[block], held.positives[block]
        first_scores = _of_all(scores, users)
        second_scores = None if second is None else _of_all(second, users)
        row, item = seen_items(held, users, seen)  # [S] each, a pair for each seen item
        is_other = item != positives[row]
        for place, weight in enumerate(weights):
            summed = _summed(first_scores, second_scores, weight)  # [b, I]
            if held.queries is not None:
                # An item that did not exist is below every other item.
                summed = np.where(held.queries.exists, summed, np.float32(-np.inf))
            positive = np.take_along_axis(summed, positives[:, None], axis=1)  # [b, 1]
            # Seen items do not count: subtract those that are better or tied.
            positive_scores, seen_scores = positive[row, 0], summed[row, item]
            is_better, is_tied = seen_scores > positive_scores, seen_scores == positive_scores
            seen_better = np.bincount(row, is_better & is_other, len(users))
            seen_tied = np.bincount(row, is_tied & is_other, len(users))
            better[place, block] = np.count_nonzero(summed > positive, axis=1) - seen_better
            # The positive ties with itself.
            tied[place, block] = np.count_nonzero(summed == positive, axis=1) - 1 - seen_tied
            if verify.verifying():
                counts = better[place, block], tied[place, block]
                _verify(counts, summed, positives, row, item)
    better, tied = _of_all_processes(better), _of_all_processes(tied)
    # A run from elsewhere may repeat a pair; the pair was then subtracted twice.
    better, tied = np.maximum(better, 0), np.maximum(tied, 0)
    return [Ranks.of_held(*pair, held) for pair in zip(better, tied, strict=True)]


def _verify(
    counts: tuple[Int64, Int64], scores: Float32, positives: Int64, row: Int64, item: Int64
) -> None:
    """Compare numbers of better and tied items with counts of one list after another.

    `scores` is [b, I], and `row` and `item` are the places of seen items.
    """
    if len(np.unique(row * scores.shape[1] + item)) < len(row):
        return  # a run from elsewhere repeats a pair, which is then subtracted twice
    for place, positive in enumerate(positives):
        counted = np.ones(scores.shape[1], dtype=bool)
        counted[item[row == place]] = False
        counted[positive] = False
        others, positive_score = scores[place, counted], scores[place, positive]
        expected = (int((others > positive_score).sum()), int((others == positive_score).sum()))
        fast = (int(counts[0][place]), int(counts[1][place]))
        verify.assert_equal(f"better and tied items of list {place}", fast, expected)


def _of_all(scores: Scorer, lists: Int64) -> Float32:
    """Scores of all items for each list, [B, I]; equal neighbours are scored once."""
    if bool((lists[1:] > lists[:-1]).all()):
        return checked(scores.score_all(lists))
    distinct, place = np.unique(lists, return_inverse=True)
    return checked(scores.score_all(distinct))[place]


def seen_items(held: HeldOut, lists: Int64, known: Interactions) -> tuple[Int64, Int64]:
    """Items that the lists with these indices leave out: position in `lists`, and item; [S] each.

    Without queries, `lists` are users, and their items in `known` are left out.
    """
    if held.queries is None:
        return known.interacted_items(lists)
    return held.queries.seen(lists)


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

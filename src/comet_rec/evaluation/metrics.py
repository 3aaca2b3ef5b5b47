"""HR@k, NDCG@k, MRR@k and recall@k, for lists with one positive or several.

They are computed from the numbers of candidates with a higher score and with the same score.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
TieRule = Literal["expected", "pessimistic"]

CUTOFFS = (5, 10)


def rank(better: Int64, tied: Int64) -> Float64:
    """Rank of each positive, averaged over random orders of tied candidates, float64 [T].

    This is better + 1 + tied/2, with `better` and `tied` as in `hit_rate`.
    """
    return np.asarray(better + 1 + tied / 2)


def hit_rate(better: Int64, tied: Int64, k: int, ties: TieRule = "expected") -> Float64:
    """HR@k of each user, float64 [T]: the chance that the rank is at most k.

    Parameters
    ----------
    better, tied : int64 [T]
        Numbers of candidates with a higher score than the positive, and with the same score.
    k : int
    ties : {"expected", "pessimistic"}
        "expected" averages over random orders of tied candidates. "pessimistic" ranks the positive
        behind all of them.
    """
    if ties == "pessimistic":
        return np.asarray(better + tied < k, dtype=np.float64)
    # The rank is uniform over better + 1 … better + tied + 1; count the ranks up to k.
    return np.asarray(np.clip(k - better, 0, tied + 1) / (tied + 1))


def ndcg(better: Int64, tied: Int64, k: int, ties: TieRule = "expected") -> Float64:
    """NDCG@k of each user, float64 [T]: 1/log2(rank + 1) if the rank is at most k, else 0.

    Parameters are those of `hit_rate`.
    """
    gains = np.zeros(k + 2)
    gains[1 : k + 1] = 1 / np.log2(np.arange(1, k + 1) + 1)  # gains[r] at rank r, 0 beyond k
    if ties == "pessimistic":
        return np.asarray(gains[np.minimum(better + tied + 1, k + 1)])
    # Mean gain over ranks better + 1 … better + tied + 1, as a difference of cumulative sums.
    up_to = np.cumsum(gains)
    last = up_to[np.minimum(better + tied + 1, k)]
    before = up_to[np.minimum(better, k)]
    return np.asarray((last - before) / (tied + 1))


def recall_of_lists(better: Int64, tied: Int64, lists: Int64, k: int, ties: TieRule) -> Float64:
    """Recall@k of each list, float64 [L]: the share of its positives among the first k.

    Parameters
    ----------
    better, tied : int64 [T]
        For each positive, the numbers of other items of its list with a higher score and with the
        same score. Other positives of the list count.
    lists : int64 [T]
        List of each positive, from 0 to L − 1.
    k : int
    ties : {"expected", "pessimistic"}
        "expected" averages over random orders of tied items. "pessimistic" ranks the positives
        behind all other items of the same score.
    """
    better, tied = _worst_order(better, tied, lists) if ties == "pessimistic" else (better, tied)
    hits = np.bincount(lists, hit_rate(better, tied, k))
    return np.asarray(hits / np.bincount(lists))


def ndcg_of_lists(better: Int64, tied: Int64, lists: Int64, k: int, ties: TieRule) -> Float64:
    """NDCG@k of each list, float64 [L]: Σ 1/log2(rank + 1) over its positives among the first k.

    The sum is divided by its largest value, which the list has with its positives in front.
    Parameters are those of `recall_of_lists`.
    """
    better, tied = _worst_order(better, tied, lists) if ties == "pessimistic" else (better, tied)
    gains = np.bincount(lists, ndcg(better, tied, k))
    counts = np.bincount(lists)
    most = min(k, int(counts.max(initial=0)))
    ideal = np.cumsum(1 / np.log2(np.arange(1, most + 1) + 1))
    return np.asarray(gains / ideal[np.minimum(counts, most) - 1])


def first_of_lists(
    better: Int64, tied: Int64, lists: Int64, k: int, ties: TieRule
) -> tuple[Float64, Float64]:
    """HR@k and MRR@k of each list, from the first of its positives; float64 [L] each.

    HR@k is 1 if the first positive is among the first k items; MRR@k is then 1/rank. Parameters are
    those of `recall_of_lists`.
    """
    better, tied = _worst_order(better, tied, lists) if ties == "pessimistic" else (better, tied)
    count = int(lists.max(initial=-1)) + 1
    ahead = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(ahead, lists, better)
    # The best positives of a list share its best score with others: n items, p of them positives.
    is_best = better == ahead[lists]
    p = np.bincount(lists[is_best], minlength=count)
    n = np.ones(count, dtype=np.int64)
    n[lists[is_best]] = tied[is_best] + 1
    hits, reciprocal = np.zeros(count), np.zeros(count)
    none_yet = np.ones(count)  # chance that the first places of the n hold no positive
    for place in range(k):
        # The next place holds no positive: n − p − place of n − place items are none.
        left = np.maximum(n - p - place, 0) / np.maximum(n - place, 1)
        is_first = none_yet * (1 - left) * (ahead + place < k)
        hits += is_first
        reciprocal += is_first / (ahead + place + 1)
        none_yet *= left
    return hits, reciprocal


def _worst_order(better: Int64, tied: Int64, lists: Int64) -> tuple[Int64, Int64]:
    """Numbers of better and tied items if positives stand behind all others of the same score."""
    order = np.lexsort((better, lists))
    # Positives of one list and score follow one another: number them, and count them.
    starts = np.ones(len(order), dtype=bool)
    starts[1:] = (np.diff(lists[order]) != 0) | (np.diff(better[order]) != 0)
    group = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    place = np.arange(len(order)) - first[group]
    others = tied[order] + 1 - np.bincount(group)[group]  # tied items that are no positives
    worse = np.empty_like(better)
    worse[order] = better[order] + others + place
    return worse, np.zeros_like(tied)


def clustered_error(values: Float64, users: Int64) -> float:
    """Standard error of a mean over lists, if lists of one user are not independent.

    It equals `standard_error` if every user has one list.

    Parameters
    ----------
    values : float64 [L]
        Metric of each list.
    users : int64 [L]
        User of each list, from 0.
    """
    deviations = np.bincount(users, values - values.mean())
    count = len(deviations)
    scale = count / (count - 1) if count > 1 else 0.0
    return float(np.sqrt(scale * (deviations**2).sum()) / len(values))


def figures(
    better: Int64, tied: Int64, ties: TieRule = "expected"
) -> tuple[dict[str, float], dict[str, float]]:
    """HR@5, NDCG@5, HR@10 and NDCG@10: their means over users, and the means' standard errors.

    Parameters are those of `hit_rate`.
    """
    means, errors = {}, {}
    for k in CUTOFFS:
        for name, metric in (("HR", hit_rate), ("NDCG", ndcg)):
            values = metric(better, tied, k, ties)
            means[f"{name}@{k}"] = float(values.mean())
            errors[f"{name}@{k}"] = standard_error(values)
    return means, errors


def standard_error(values: Float64) -> float:
    """Standard error of a mean over T users: sample standard deviation/√T; 0 for T = 1."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return deviation / float(np.sqrt(len(values)))

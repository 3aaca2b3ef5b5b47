"""HR@k and NDCG@k of one positive, from the numbers of better and of tied candidates."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
TieRule = Literal["expected", "pessimistic"]

CUTOFFS = (5, 10)


def rank(better: Int64, tied: Int64) -> Float64:
    """Mean rank over random orders of tied candidates: better + 1 + tied/2, float64 [T]."""
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
    """NDCG@k of each user, float64 [T]: [rank ≤ k] / log2(rank + 1), one relevant item.

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


def figures(
    better: Int64, tied: Int64, ties: TieRule = "expected"
) -> tuple[dict[str, float], dict[str, float]]:
    """Means over users of HR and NDCG at 5 and 10, and the standard errors of those means.

    The errors come from `standard_error`.
    """
    means, errors = {}, {}
    for k in CUTOFFS:
        for name, metric in (("HR", hit_rate), ("NDCG", ndcg)):
            values = metric(better, tied, k, ties)
            means[f"{name}@{k}"] = float(values.mean())
            errors[f"{name}@{k}"] = standard_error(values)
    return means, errors


def standard_error(values: Float64) -> float:
    """Sample standard deviation of the users' values divided by √T; 0 for T = 1."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return deviation / float(np.sqrt(len(values)))

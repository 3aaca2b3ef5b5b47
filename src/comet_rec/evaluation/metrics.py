"""HR@k and NDCG@k for one positive per user.

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

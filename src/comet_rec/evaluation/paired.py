"""Paired comparisons of models over the same test users."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.randomness import generator

Float64 = npt.NDArray[np.float64]

DRAWS = 10_000


@dataclass(frozen=True)
class Paired:
    """A model against a reference, on one metric.

    Parameters
    ----------
    difference : float
        Mean over users of the model's value minus the reference's.
    low, high : float
        95 % percentile interval of that mean under resampling of users.
    wilcoxon : float
        p-value of the signed-rank test, two-sided; 1 where no user differs.
    bootstrap : float
        Two-sided p-value of the bootstrap: how often the resampled mean changes its sign.
    error : float
        Standard error of the difference: over users, and of what is not of users.
    """

    difference: float
    low: float
    high: float
    wilcoxon: float
    bootstrap: float
    error: float

    @property
    def p(self) -> float:
        """Two-sided p-value of the difference over its standard error, normal; 1 without one."""
        return math.erfc(abs(self.difference) / self.error / math.sqrt(2)) if self.error else 1.0


def paired(values: Float64, reference: Float64, seed: int = 0, *, noise: float = 0.0) -> Paired:
    """Compare two models' per-user values, in the same order of users.

    Parameters
    ----------
    values, reference : float64 [T]
        Of each user; of several trainings, the mean over them.
    seed : int
        Of the bootstrap.
    noise : float
        Variance of the difference that has nothing to do with the choice of users, as that
        between trainings; the intervals hold it, the signed-rank test does not.
    """
    differences = np.asarray(values - reference, dtype=np.float64)
    means = _resampled_means(differences, seed)
    if noise > 0:
        means = means + math.sqrt(noise) * generator(seed, "noise").standard_normal(len(means))
    low, high = np.percentile(means, [2.5, 97.5])
    below = (np.count_nonzero(means <= 0) + 1) / (len(means) + 1)
    above = (np.count_nonzero(means >= 0) + 1) / (len(means) + 1)
    return Paired(
        float(differences.mean()),
        float(low),
        float(high),
        _signed_rank(differences),
        float(min(1.0, 2 * min(below, above))),
        math.sqrt(float(differences.var()) / len(differences) + noise),
    )


def _resampled_means(differences: Float64, seed: int) -> Float64:
    """Means of resampled users; equal values are drawn together, as multinomial counts."""
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    rng = generator(seed, "bootstrap")
    drawn = rng.multinomial(n, counts / n, size=DRAWS)
    return np.asarray(drawn @ values / n)


def _signed_rank(differences: Float64) -> float:
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    found: Any = wilcoxon(differences, zero_method="pratt", method="approx")
    return float(found.pvalue)


def holm(p_values: list[float]) -> list[float]:
    """p-values after Holm's step-down correction for their number, in the same order."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    out = np.empty(m)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (m - place) * p_values[index]))
        out[index] = largest
    return [float(p) for p in out]

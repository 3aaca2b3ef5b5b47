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
    """

    difference: float
    low: float
    high: float
    wilcoxon: float
    bootstrap: float


def paired(values: Float64, reference: Float64, seed: int = 0) -> Paired:
    """Compare two models' per-user values, float64 [T] each, in the same order of users."""
    differences = np.asarray(values - reference, dtype=np.float64)
    means = _resampled_means(differences, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    below = (np.count_nonzero(means <= 0) + 1) / (len(means) + 1)
    above = (np.count_nonzero(means >= 0) + 1) / (len(means) + 1)
    return Paired(
        float(differences.mean()),
        float(low),
        float(high),
        _signed_rank(differences),
        float(min(1.0, 2 * min(below, above))),
    )


@dataclass(frozen=True)
class Difference:
    """A model against a reference, each with one or several trainings.

    Parameters
    ----------
    difference : float
        Mean over users and trainings of the model's value minus the reference's.
    low, high : float
        95 % interval, from Student's t.
    error : float
        Standard error: over users, and over trainings.
    freedom : float
        Degrees of freedom (Welch and Satterthwaite).
    p : float
        Two-sided; 1 where nothing differs.
    """

    difference: float
    low: float
    high: float
    error: float
    freedom: float
    p: float


def over_trainings(values: Float64, reference: Float64) -> Difference:
    """Compare two models over the same users and all their trainings.

    The variance of the difference has a part of the choice of users, and for each model one of
    the choice of a training, that between its trainings' means. What users and trainings make
    together is in both, so the test is careful where that is most of the noise. A model with one
    training is given the other's; where both have one, the interval says nothing of it.

    Parameters
    ----------
    values, reference : float64 [trainings, T]
        Of each user, users in the same order.
    """
    from scipy.stats import t

    differences = values.mean(axis=0) - reference.mean(axis=0)
    n = len(differences)
    parts = [(float(differences.var(ddof=1)) / n, n - 1.0)] if n > 1 else []
    several = [of for of in (values, reference) if len(of) > 1]
    for of in several:
        times = 1 / len(of) if len(several) == 2 else 1 / len(values) + 1 / len(reference)
        parts.append((float(of.mean(axis=1).var(ddof=1)) * times, len(of) - 1.0))
    mean, total = float(differences.mean()), sum(variance for variance, _ in parts)
    if total == 0:
        return Difference(mean, mean, mean, 0.0, math.inf, 1.0 if mean == 0 else 0.0)
    freedom = total**2 / sum(variance**2 / free for variance, free in parts)
    error = math.sqrt(total)
    reach = float(t.ppf(0.975, freedom)) * error
    p = float(2 * t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - reach, mean + reach, error, freedom, p)


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

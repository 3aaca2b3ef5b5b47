"""Paired comparisons of models over the same test users."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.random import generator

Float64 = npt.NDArray[np.float64]

DRAWS = 10_000
"""Number of bootstrap samples of users."""
BLOCK = 1_000
"""Number of bootstrap means that are computed at a time."""

LEAST_P = 2 / (DRAWS + 1)
"""Smallest p-value that the bootstrap can give: no resampled mean has the other sign."""


@dataclass(frozen=True)
class Paired:
    """Comparison of a model with a reference model on one metric.

    Parameters
    ----------
    difference : float
        Mean over users of the model's value minus the reference's.
    low, high : float
        95 % percentile interval of that mean under resampling of users.
    wilcoxon : float
        p-value of the signed-rank test, two-sided; 1 if no user differs.
    bootstrap : float
        Two-sided p-value of the bootstrap: how often the resampled mean changes its sign. The
        p-value is at least 2^(1 − T), that of a sign test on T differences of one sign.
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
    # One is added to both counts, so that no p-value is 0.
    below = (np.count_nonzero(means <= 0) + 1) / (len(means) + 1)
    above = (np.count_nonzero(means >= 0) + 1) / (len(means) + 1)
    return Paired(
        float(differences.mean()),
        float(low),
        float(high),
        _signed_rank(differences),
        float(min(1.0, max(2 * min(below, above), 2.0 ** (1 - len(differences))))),
    )


@dataclass(frozen=True)
class Noise:
    """How much a model's mean varies between its trainings.

    Parameters
    ----------
    variance : float
        Variance of one training's mean.
    freedom : float
        Degrees of freedom of that estimate.
    """

    variance: float
    freedom: float

    @staticmethod
    def largest(models: Iterable[Float64]) -> Noise | None:
        """Largest noise among models with several trainings; None when no model has several.

        The degrees of freedom are summed over these models. The largest estimate is rather too
        large than too small. A mean of the variances would not fit, since models differ too much.

        Parameters
        ----------
        models : iterable of float64 [trainings, T]
        """
        repeated = [values.mean(axis=1) for values in models if len(values) > 1]
        freedom = sum(len(means) - 1 for means in repeated)
        if freedom == 0:
            return None
        return Noise(max(float(means.var(ddof=1)) for means in repeated), float(freedom))


SILENT = Noise(0.0, math.inf)
"""Noise of a model whose training has no random draws."""


@dataclass(frozen=True)
class Difference:
    """Comparison of a model with a reference model, each with one or several trainings.

    Parameters
    ----------
    difference : float
        Mean over users and trainings of the model's value minus the reference's.
    low, high : float
        95 % interval, from Student's t.
    error : float
        Standard error over users and trainings.
    freedom : float
        Degrees of freedom (Welch and Satterthwaite).
    p : float or None
        Two-sided p-value; 1 if nothing differs. None if the noise of users or of trainings is
        unknown: one user, equal differences of all users, or one training without a borrowed
        estimate. `error` and the interval then lack that noise.
    """

    difference: float
    low: float
    high: float
    error: float
    freedom: float
    p: float | None


def over_trainings(
    values: Float64, reference: Float64, noise: tuple[Noise | None, Noise | None] = (None, None)
) -> Difference:
    """Compare two models over the same users and all their trainings.

    The variance of the difference is a sum. One term is for the choice of users. One term for each
    model is for the choice of a training: the variance between the means of its trainings. The
    interaction of users and trainings is in both kinds of terms. So the test is conservative if
    this interaction dominates.

    Parameters
    ----------
    values, reference : float64 [trainings, T]
        Values of each user, users in the same order.
    noise : pair of Noise or None
        Noise that the model and the reference borrow if they have only one training.
    """
    from scipy.stats import t

    differences = values.mean(axis=0) - reference.mean(axis=0)
    n = len(differences)
    parts = [(float(differences.var(ddof=1)) / n, n - 1.0)] if n > 1 else []
    lent: dict[Noise, int] = {}  # estimate → number of models that borrow it
    known = n > 1  # one user says nothing about the noise of users
    for trainings, estimate in zip((values, reference), noise, strict=True):
        count = len(trainings)
        if count > 1:
            parts.append((float(trainings.mean(axis=1).var(ddof=1)) / count, count - 1.0))
        elif estimate is not None:
            lent[estimate] = lent.get(estimate, 0) + 1
        else:
            known = False
    parts += [(times * estimate.variance, estimate.freedom) for estimate, times in lent.items()]
    mean, total = float(differences.mean()), sum(variance for variance, _ in parts)
    if total == 0:
        return Difference(mean, mean, mean, 0.0, math.inf, 1.0 if known and mean == 0 else None)
    # Welch and Satterthwaite
    freedom = total**2 / sum(variance**2 / free for variance, free in parts)
    error = math.sqrt(total)
    reach = float(t.ppf(0.975, freedom)) * error  # half of the interval
    p = float(2 * t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - reach, mean + reach, error, freedom, p if known else None)


def _resampled_means(differences: Float64, seed: int) -> Float64:
    """Means of bootstrap samples of users, float64 [DRAWS].

    Users with equal values are drawn together, as multinomial counts.
    """
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    rng = generator(seed, "bootstrap")
    # [BLOCK, distinct values] @ [distinct values]
    blocks = (rng.multinomial(n, counts / n, size=BLOCK) @ values for _ in range(0, DRAWS, BLOCK))
    return np.concatenate(list(blocks)) / n


def _signed_rank(differences: Float64) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; zeros count by Pratt's method."""
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    result: Any = wilcoxon(differences, zero_method="pratt", method="approx")
    return float(result.pvalue)


def holm(p_values: list[float]) -> list[float]:
    """p-values after Holm's step-down correction for the number of tests, in the given order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    # The smallest of n values is multiplied by n, the next by n − 1, …; none falls below the last.
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out[order] = np.minimum(1, steps)
    return [float(value) for value in out]

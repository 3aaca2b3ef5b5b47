"""Paired comparisons of models on the same test users."""

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
"""Number of bootstrap samples that are computed at a time."""

LEAST_P = 2 / (DRAWS + 1)
"""Smallest p-value of the bootstrap, reached if no resampled mean has the other sign."""


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
        Two-sided p-value of Wilcoxon's signed-rank test; 1 if the models are equal for all users.
    bootstrap : float
        Two-sided p-value of the bootstrap, from the share of resampled means with the other sign.
        It is at least 2^(1 − T), the p-value of a sign test if all T differences have one sign.
    """

    difference: float
    low: float
    high: float
    wilcoxon: float
    bootstrap: float


def paired(values: Float64, reference: Float64, seed: int = 0) -> Paired:
    """Compare two models on their per-user metrics.

    `values` and `reference` are float64 [T], with users in the same order. `seed` is that of the
    bootstrap.
    """
    differences = np.asarray(values - reference, dtype=np.float64)
    means = _resampled_means(differences, seed)
    # One is added to both counts, so that no p-value is 0.
    below = (np.count_nonzero(means <= 0) + 1) / (len(means) + 1)
    above = (np.count_nonzero(means >= 0) + 1) / (len(means) + 1)
    return Paired(
        *_with_interval(differences, means),
        _signed_rank(differences),
        float(min(1.0, max(2 * min(below, above), 2.0 ** (1 - len(differences))))),
    )


def mean_difference(
    values: Float64, reference: Float64, seed: int = 0
) -> tuple[float, float, float]:
    """`difference`, `low` and `high` of `paired`, without the time that its p-values take."""
    differences = np.asarray(values - reference, dtype=np.float64)
    return _with_interval(differences, _resampled_means(differences, seed))


def _with_interval(differences: Float64, means: Float64) -> tuple[float, float, float]:
    """Mean of the differences, and the 95 % percentile interval of their resampled means."""
    low, high = np.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


@dataclass(frozen=True)
class Noise:
    """Variance of a model's mean metric between trainings with different seeds.

    Parameters
    ----------
    variance : float
        Estimated variance of the mean metric of one training.
    freedom : float
        Degrees of freedom of that estimate.
    """

    variance: float
    freedom: float

    @staticmethod
    def largest(models: Iterable[Float64]) -> Noise | None:
        """Largest noise among the models with several trainings; None if no model has several.

        It serves as a cautious estimate for a model with one training. Models differ too much to
        average their variances. The degrees of freedom are summed over the models with several
        trainings.

        Parameters
        ----------
        models : iterable of float64 [trainings, T]
            For each model, the metric of each training and test user.
        """
        repeated = [values.mean(axis=1) for values in models if len(values) > 1]
        freedom = sum(len(means) - 1 for means in repeated)
        if freedom == 0:
            return None
        return Noise(max(float(means.var(ddof=1)) for means in repeated), float(freedom))


SILENT = Noise(0.0, math.inf)
"""Noise of a model whose training uses no random numbers."""


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
        Two-sided p-value; 1 if nothing differs. None if the variance of users or of trainings is
        unknown. The reason is one user, equal differences of all users, or one training without a
        borrowed estimate. `error` and the interval then leave out that variance.
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
    """Compare two models on the same users and over all their trainings, by a t-test.

    The variance of the mean difference is a sum of three terms. One is the sampling variance of
    users. The other two are, for each model, the variance between its trainings. The interaction of
    users and trainings is in the terms of both kinds, so the test is conservative if this
    interaction dominates.

    Parameters
    ----------
    values, reference : float64 [trainings, T]
        Metric of each training and user; both models have the same users in the same order.
    noise : pair of Noise or None
        For `values` and for `reference`, the noise to assume if there is only one training.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats takes half a second to import

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
    reach = float(stdtrit(freedom, 0.975)) * error  # half of the interval
    p = float(2 * stdtr(freedom, -abs(mean) / error))
    return Difference(mean, mean - reach, mean + reach, error, freedom, p if known else None)


def _resampled_means(differences: Float64, seed: int) -> Float64:
    """Mean differences over bootstrap samples of users, float64 [DRAWS].

    Users with equal differences are sampled together, as multinomial counts.
    """
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    rng = generator(seed, "bootstrap")
    # [BLOCK, distinct values] @ [distinct values]
    blocks = (rng.multinomial(n, counts / n, size=BLOCK) @ values for _ in range(0, DRAWS, BLOCK))
    return np.concatenate(list(blocks)) / n


def _signed_rank(differences: Float64) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; 1 if all differences are zero.

    Single zeros count by Pratt's method.
    """
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    result: Any = wilcoxon(differences, zero_method="pratt", method="approx")
    return float(result.pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method, and keep their order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    # The smallest of n values is multiplied by n, the next by n − 1, …; none falls below the last.
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out[order] = np.minimum(1, steps)
    return [float(value) for value in out]

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
BLOCK = 1_000
"""Number of resampled means that are computed at a time."""

LEAST_P = 2 / (DRAWS + 1)
"""Smallest p-value of the bootstrap: no resampled mean has the other sign."""


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
        Two-sided p-value of the bootstrap: how often the resampled mean changes its sign; not
        below 2^(1 − T), that of T differences of one sign.
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
        Degrees of freedom that it was estimated with.
    """

    variance: float
    freedom: float

    @staticmethod
    def largest(models: Iterable[Float64]) -> Noise | None:
        """Largest noise among models with several trainings; None when no model has several.

        The degrees of freedom are those of all: the largest of many estimates is too large rather
        than too small, and models differ too much for a mean of their variances.

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
"""Noise of a model whose training draws nothing."""


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
    p : float or None
        Two-sided; 1 where nothing differs; None where noise is not known and so is not in error
        and interval: of a training, or of users who all differ alike.
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

    The variance of the difference has a part of the choice of users, and for each model one of
    the choice of a training, that between its trainings' means. The part that users and trainings
    make together is in both, so the test is careful where that is most of the noise.

    Parameters
    ----------
    values, reference : float64 [trainings, T]
        Values of each user, users in the same order.
    noise : pair of Noise or None
        Lent to the model and to the reference where they have one training.
    """
    from scipy.stats import t

    differences = values.mean(axis=0) - reference.mean(axis=0)
    n = len(differences)
    parts = [(float(differences.var(ddof=1)) / n, n - 1.0)] if n > 1 else []
    lent: dict[Noise, int] = {}  # one estimate, however many it is lent to
    known = n > 1  # of one user nothing is known
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
    freedom = total**2 / sum(variance**2 / free for variance, free in parts)
    error = math.sqrt(total)
    reach = float(t.ppf(0.975, freedom)) * error
    p = float(2 * t.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - reach, mean + reach, error, freedom, p if known else None)


def _resampled_means(differences: Float64, seed: int) -> Float64:
    """Means of resampled users; equal values are drawn together, as multinomial counts."""
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    rng = generator(seed, "bootstrap")
    blocks = (rng.multinomial(n, counts / n, size=BLOCK) @ values for _ in range(0, DRAWS, BLOCK))
    return np.concatenate(list(blocks)) / n


def _signed_rank(differences: Float64) -> float:
    from scipy.stats import wilcoxon

    if not differences.any():
        return 1.0
    result: Any = wilcoxon(differences, zero_method="pratt", method="approx")
    return float(result.pvalue)


def holm(p_values: list[float]) -> list[float]:
    """p-values after Holm's step-down correction for their number, in the same order."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    out[order] = np.minimum(1, steps)
    return [float(value) for value in out]

"""What the paper prints (arXiv 2007.14129v1), and when a figure of ours reproduces it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, variance

METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
DIM = 128
"""K of the COMET in the paper's tables."""
Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class PaperLog:
    """One of the paper's data sets, a column of Table I.

    Parameters
    ----------
    title : str
        As the paper calls it.
    users, items, interactions : int
    density : float
    """

    title: str
    users: int
    items: int
    interactions: int
    density: float

    @property
    def counts(self) -> tuple[int, int, int]:
        """Users, items, interactions."""
        return self.users, self.items, self.interactions


LOGS = {
    "ml-1m": PaperLog("ML-1M", 6_040, 3_706, 1_000_209, 0.04468),
    "amazon-movies": PaperLog("Movies&Tv", 40_928, 51_509, 1_163_413, 0.00055),
    "amazon-cds": PaperLog("CDs&Vinyl", 26_876, 66_820, 770_188, 0.00043),
}
"""Table I, by the catalog's names."""

ALGORITHMS: dict[str, dict[str, Four]] = {
    "BCE-MF": {
        "ml-1m": (0.540, 0.375, 0.706, 0.428),
        "amazon-movies": (0.635, 0.499, 0.739, 0.533),
        "amazon-cds": (0.606, 0.465, 0.727, 0.508),
    },
    "SVD++": {
        "ml-1m": (0.557, 0.388, 0.713, 0.438),
        "amazon-movies": (0.564, 0.425, 0.675, 0.460),
        "amazon-cds": (0.582, 0.434, 0.707, 0.473),
    },
    "FISM": {
        "ml-1m": (0.528, 0.372, 0.699, 0.433),
        "amazon-movies": (0.583, 0.452, 0.708, 0.471),
        "amazon-cds": (0.592, 0.457, 0.729, 0.512),
    },
    "MLP": {
        "ml-1m": (0.526, 0.362, 0.703, 0.421),
        "amazon-movies": (0.570, 0.425, 0.703, 0.471),
        "amazon-cds": (0.588, 0.445, 0.712, 0.485),
    },
    "GMF": {
        "ml-1m": (0.540, 0.372, 0.711, 0.429),
        "amazon-movies": (0.569, 0.427, 0.712, 0.479),
        "amazon-cds": (0.620, 0.481, 0.729, 0.515),
    },
    "NeuMF": {
        "ml-1m": (0.548, 0.381, 0.727, 0.443),
        "amazon-movies": (0.596, 0.453, 0.721, 0.493),
        "amazon-cds": (0.629, 0.491, 0.750, 0.529),
    },
    "ConvNCF": {
        "ml-1m": (0.539, 0.376, 0.710, 0.431),
        "amazon-movies": (0.623, 0.488, 0.726, 0.521),
        "amazon-cds": (0.603, 0.457, 0.722, 0.496),
    },
    "COMET": {
        "ml-1m": (0.558, 0.392, 0.730, 0.448),
        "amazon-movies": (0.637, 0.493, 0.758, 0.532),
        "amazon-cds": (0.666, 0.527, 0.777, 0.562),
    },
}
"""Tables II and III: `METRICS` of each algorithm on each data set."""

FILTERS: dict[str, dict[str, Four]] = {
    "COMET(1)": {
        "amazon-cds": (0.642, 0.513, 0.749, 0.547),
        "amazon-movies": (0.631, 0.483, 0.758, 0.524),
    },
    "COMET(1,8)": {
        "amazon-cds": (0.660, 0.525, 0.772, 0.558),
        "amazon-movies": (0.619, 0.476, 0.748, 0.515),
    },
    "COMET(1,8,32)": {
        "amazon-cds": (0.665, 0.523, 0.779, 0.559),
        "amazon-movies": (0.619, 0.477, 0.749, 0.517),
    },
    "COMET(1,8,32,128)": {
        "amazon-cds": (0.666, 0.527, 0.777, 0.562),
        "amazon-movies": (0.637, 0.493, 0.758, 0.532),
    },
}
"""Tables IV and V: `METRICS` of each set of filter widths."""


@dataclass(frozen=True)
class Cell:
    """A figure of ours, and the paper's beside it where it prints one.

    Parameters
    ----------
    ours : float
        Mean over training seeds.
    error : float
        Standard error: over users (their mean over seeds) and over seeds.
    seeds : tuple of float
        The figure of each seed.
    paper : float or None
    verdict : str
        "reproduced", "better" or "lower"; empty where the paper prints nothing.
    """

    ours: float
    error: float
    seeds: tuple[float, ...]
    paper: float | None = None
    verdict: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.paper is None else self.ours - self.paper


def cell(
    values: Sequence[float], errors: Sequence[float], users: int, paper: float | None = None
) -> Cell:
    """Put the figures of several seeds beside the paper's.

    Reproduced means |ours − paper's| ≤ 1.96·√(SE² + SE_paper²). The paper reports no error;
    SE_paper is that of a mean of `users` binomial draws, √(p(1 − p)/T), which bounds that of
    NDCG from above.

    Parameters
    ----------
    values, errors : sequence of float
        The figure of each seed, and its standard error over users.
    users : int
        T, test users.
    paper : float, optional
    """
    spread = variance(values) / len(values) if len(values) > 1 else 0.0
    ours, error = mean(values), math.sqrt(mean(e * e for e in errors) + spread)
    if paper is None:
        return Cell(ours, error, tuple(values))
    reach = 1.96 * math.sqrt(error**2 + paper * (1 - paper) / users)
    verdict = "reproduced"
    if abs(ours - paper) > reach:
        verdict = "better" if ours > paper else "lower"
    return Cell(ours, error, tuple(values), paper, verdict)

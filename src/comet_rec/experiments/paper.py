"""Metrics that the paper (arXiv 2007.14129v1) prints; `paper.toml` holds the numbers."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
DIM = 128
"""Embedding size K of COMET in the paper's tables."""
Figures = tuple[float, float, float, float]
"""A value for each metric in `METRICS`."""
Printed = dict[str, dict[str, Figures]]
"""Metrics of a table of the paper: model → log → values."""


@dataclass(frozen=True)
class PaperLog:
    """One of the paper's data sets, a column of Table I.

    Parameters
    ----------
    title : str
        Name in the paper.
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
        """Numbers of users, items and interactions."""
        return self.users, self.items, self.interactions


_DATA = tomllib.loads(files(__package__).joinpath("paper.toml").read_text(encoding="utf-8"))


def _printed(name: str) -> Printed:
    return {
        model: {log: tuple(figures) for log, figures in columns.items()}
        for model, columns in _DATA[name].items()
    }


LOGS = {name: PaperLog(**entry) for name, entry in _DATA["logs"].items()}
"""Table I, by the names of the data sets in this library."""

ALGORITHMS = _printed("algorithms")
"""Metrics in Tables II and III."""

FILTERS = _printed("filters")
"""Metrics in Tables IV and V."""

"""The parts of a study, and what each of them needs trained on a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from comet_rec.config import unknown
from comet_rec.errors import ConfigError
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.studies import Planner

PAPER = ("table1", "table2", "table3", "table4", "table5", "figure3", "figure4", "figure5")
OURS = ("falsification", "reliability", "ties", "beyond", "ablation", "falsification-best")
PARTS = (*PAPER, "figure6", *OURS)
"""What can be asked for, `all` besides. Tables II and III are one study, so are IV and V."""

Of = Callable[[Planner], list[Job]]
SEEDED: dict[str, Of] = {
    "table2": Planner.algorithms,
    "table3": Planner.algorithms,
    "table4": Planner.filters,
    "table5": Planner.filters,
    "beyond": Planner.beyond,
    "ablation": Planner.ablation,
    "falsification": Planner.falsifications,
    "falsification-best": Planner.falsifications_of_best,
}
"""What a part needs trained, in several seeds; these come first."""
ALONE: dict[str, Of] = {
    "figure5": Planner.figure_5,
    "reliability": Planner.algorithms,
    "figure3": Planner.figure_3,
    "figure4": Planner.figure_4,
    "figure6": lambda planner: [*chain(*planner.figure_6().values())],
}
"""In one seed."""


def parts_of(asked: Sequence[str]) -> list[str]:
    """Parts in the order of a report; `all` stands for each of them.

    Raises
    ------
    ConfigError
        For an unknown part; the nearest one is named.
    """
    for name in asked:
        if name not in (*PARTS, "all"):
            raise ConfigError(unknown("part", name, [*PARTS, "all"]))
    return [name for name in PARTS if name in asked or "all" in asked]

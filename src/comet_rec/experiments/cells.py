"""What stands in a cell: a model's figures over its trainings, in text and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np

from comet_rec.evaluation.reliability import expected_figures, unseen_others
from comet_rec.experiments import paper
from comet_rec.experiments.budgets import CLOSED
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.paper import Cell
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner

MORE = 100
"""Negatives that the literature on sequences reports with; the paper has 99."""
CORE = 5
"""Rows below which that literature leaves an item out."""


def number(value: float) -> str:
    """Three decimals and no zero before the point, as the paper prints."""
    return f"{value:.3f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.3f}"


def of_metric(records: Sequence[Record], metric: str, theirs: float | None = None) -> Cell:
    """Cell of a sampled figure over the seeds that are there."""
    values = [float(record.values["sampled"][metric]) for record in records]
    errors = [float(record.values["sampled_se"][metric]) for record in records]
    return paper.cell(values, errors, int(records[0].values["n_users"]), theirs)


def of_full(records: Sequence[Record], metric: str) -> Cell | None:
    """The same over the whole catalogue; None where it was not ranked."""
    found = [record.values for record in records if record.values["full"] is not None]
    if not found:
        return None
    values = [float(of["full"][metric]) for of in found]
    errors = [float(of["full_se"][metric]) for of in found]
    return paper.cell(values, errors, int(found[0]["n_users_full"]))


def sample_of_users(record: Record) -> str:
    """What has to stand beside a full figure that is not over all test users."""
    ranked, users = record.values["n_users_full"], record.values["n_users"]
    return "" if record.values["full"] is None or ranked == users else f" ({ranked:,} users)"


def trainings_of(job: Job, runner: Runner) -> list[Record]:
    """Records of a model's trainings; of one that draws nothing all seeds are one."""
    found = runner.seeds_of(job)
    return found[:1] if job.model in CLOSED else found


def seeds_told(job: Job, records: Sequence[Record]) -> str:
    """Number of seeds, for a table."""
    return "–" if job.model in CLOSED else str(len(records))


def epochs_told(job: Job, log: StudyLog, records: Sequence[Record]) -> str:
    """Chosen epoch of each seed, and how many there could have been."""
    if job.model in CLOSED:
        return "–"
    assert log.split is not None
    most = job.estimator().config_for(log.split.interactions).train.epochs
    return f"{', '.join(str(record.values['epochs']) for record in records)} of {most}"


def with_more(
    log: StudyLog, records: Sequence[Record], least: int = 0
) -> tuple[float, float] | None:
    """HR@10 and NDCG@10 with `MORE` negatives, in expectation over draws, mean over seeds.

    Negatives are items of `least` rows or more. A record does not say which items are better than
    the positive: all of them are taken to be such, so the figure is at least this.
    """
    assert log.split is not None
    held, found = log.split.test, []
    rows = np.bincount(log.split.interactions.items, minlength=log.split.interactions.n_items)
    others = unseen_others(held, log.split.known, rows >= least)
    for record in records:
        whole = record.full_ranks(len(held))
        if whole is None:
            return None
        found.append(expected_figures(whole, others, MORE, 10))
    return mean(hr for hr, _ in found), mean(gain for _, gain in found)

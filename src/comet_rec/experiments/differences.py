"""Sections that hold models against one another, user by user, over all their training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.evaluation.paired import SILENT, Difference, Noise, holm, over_trainings
from comet_rec.experiments.budgets import CLOSED
from comet_rec.experiments.cells import (
    epochs_told,
    number,
    of_full,
    of_metric,
    sample_of_users,
    seeds_told,
    trainings_of,
)
from comet_rec.experiments.jobs import Job, with_seed
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import Drawing, Section, Table

METRICS = ("HR@10", "NDCG@10")
WHOLE = "NDCG@10"
"""Of the whole catalogue."""
ABOVE = "the row above"
HOW = (
    "Tables of differences: ± is one standard error, over users and, where a model has several "
    "seeds, over seeds. In brackets the 95 % interval of the paired difference over users and "
    "trainings, not corrected (Student's t, degrees of freedom after Welch and Satterthwaite). A "
    "model with one seed is lent the variance between trainings of the noisiest model on the log "
    "that has several in this report; where there is none, the interval is over users alone and "
    "there is no p: the difference may be luck of the seed. p is corrected by Holm's method over "
    "the rows of its column. Models that draw nothing have no seeds (–)."
)
Tests = dict[str, tuple[Difference, float | None]]
"""By a model's label: the test and its corrected p-value."""


def compared(
    name: str, title: str, text: list[str], logs: Sequence[tuple[StudyLog, list[Job]]],
    runner: Runner, *, stepwise: bool = False,
) -> Section:  # fmt: skip
    """Models beside the first of them, or each beside the one above it (Figures 3, 4, …).

    Figures, paired differences, bars.
    """
    section = Section(name, title, list(text))
    for log, jobs in logs:
        if why := log.why or runner.why_none(jobs):
            section.leave_out(log, {job.label: why for job in jobs})
            continue
        table, data = differences(log, jobs, runner, stepwise=stepwise)
        section.tables += [table] if table.rows else []
        section.leave_out(
            log, {job.label: str(runner.record(job)) for job in jobs if job.label not in data}
        )
        section.data[log.name] = data
        if len(data) > 1:
            caption = f"{title}, {log.title}; bars are ± 1.96 standard errors"
            drawn = {"models": data, "metrics": list(METRICS)}
            section.drawings.append(Drawing(f"{name}-{log.name}", "bars", caption, drawn))
    return section


def differences(
    log: StudyLog, jobs: list[Job], runner: Runner, *, stepwise: bool = False
) -> tuple[Table, dict[str, dict[str, Any]]]:
    """Figures of each model and its paired difference from the first, or from the one above."""
    other = ABOVE if stepwise else jobs[0].label
    columns = ["model", "seeds", "epochs", *METRICS]
    columns += [cell for metric in METRICS for cell in (f"{metric} − {other}", "p")]
    columns += [f"full {WHOLE}", f"full {WHOLE} − {other}", "p"]
    table, data = Table(log.title, columns, [], log=log.title), {}
    seeds = {job.label: trainings_of(job, runner) for job in jobs}
    against = dict(zip(jobs[1:], jobs if stepwise else [jobs[0]] * len(jobs), strict=False))
    repeated = _repeated(log, runner)
    sampled = {metric: _tests(against, seeds, repeated, metric, full=False) for metric in METRICS}
    full = _tests(against, seeds, repeated, WHOLE, full=True)
    for job in jobs:
        records = seeds[job.label]
        if not records:
            continue
        cells = {metric: of_metric(records, metric) for metric in METRICS}
        whole = of_full(records, WHOLE)
        text = f"{whole.ours:.4f} ± {whole.error:.4f}" if whole else ""
        row = [job.label, seeds_told(job, records), epochs_told(job, log, records)]
        row += [f"{number(cell.ours)} ± {number(cell.error)}" for cell in cells.values()]
        for metric in METRICS:
            row += _told(sampled[metric].get(job.label))
        row.append(text + sample_of_users(records[0]))
        table.rows.append(row + _told(full.get(job.label)))
        values = [record.values for record in records]
        data[job.label] = {
            "seeds": len(records),
            "sampled": {metric: cell.ours for metric, cell in cells.items()},
            "sampled_se": {metric: cell.error for metric, cell in cells.items()},
            "full": whole and {WHOLE: whole.ours},
            "full_se": whole and {WHOLE: whole.error},
            "epochs": [v["epochs"] for v in values],
            "train_seconds": mean(v["train_seconds"] for v in values),
            "differences": {
                **{metric: _as_data(of.get(job.label)) for metric, of in sampled.items()},
                f"full {WHOLE}": _as_data(full.get(job.label)),
            },
        }
    return table, data


def _repeated(log: StudyLog, runner: Runner) -> list[list[Record]]:
    """All trainings on a log, a list for each model."""
    jobs = {with_seed(item.job, 0) for item in runner.items if item.job.log == log.name}
    found = [trainings_of(job, runner) for job in sorted(jobs, key=lambda job: job.label)]
    by_folder = {records[0].key: records for records in found if records}  # two labels of one
    return list(by_folder.values())


Values = npt.NDArray[np.float64]


def _tests(
    against: dict[Job, Job], seeds: dict[str, list[Record]], repeated: list[list[Record]],
    metric: str, *, full: bool,
) -> Tests:  # fmt: skip
    def values(records: list[Record]) -> Values | None:
        found = [record.user_values(metric, full=full) for record in records]
        same = len({len(of) for of in found}) == 1 and len(found[0]) > 0
        return np.array(found) if same else None

    others = [of for of in map(values, repeated) if of is not None]
    users = max((of.shape[1] for of in others), default=0)
    lent = Noise.largest(of for of in others if of.shape[1] == users)
    tests = {}
    for job, to in against.items():
        ours, theirs = values(seeds[job.label]), values(seeds[to.label])
        if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
            continue  # not there, or over a sample of users of its own
        noise = [SILENT if of.model in CLOSED else lent for of in (job, to)]
        tests[job.label] = over_trainings(ours, theirs, (noise[0], noise[1]))
    ps = {label: test.p for label, test in tests.items() if test.p is not None}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    return {label: (test, corrected.get(label)) for label, test in tests.items()}


def _told(found: tuple[Difference, float | None] | None) -> list[str]:
    if found is None:
        return ["", ""]
    test, p = found
    text = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
    return [text, "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"]


def _as_data(found: tuple[Difference, float | None] | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    data: dict[str, float | None] = {**asdict(found[0]), "holm": found[1]}
    if found[0].error == 0:  # JSON has no infinity
        data["freedom"] = None
    return data

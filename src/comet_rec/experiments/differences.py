"""Models held against one another, user by user, over all their training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.evaluation.paired import SILENT, Difference, Noise, holm, over_trainings
from comet_rec.experiments.compare import METRICS
from comet_rec.experiments.jobs import Job, with_seed
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.plans import NON_ITERATIVE
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import (
    epochs_text,
    full_cell,
    records_of,
    sampled_cell,
    seeds_text,
    titled,
)
from comet_rec.experiments.tables import (
    Cell,
    Drawing,
    Section,
    Table,
)

FULL = "NDCG@10"
"""The full figure that is compared."""
ABOVE = "the row above"

LogsJobs = Sequence[tuple[StudyLog, list[Job]]]
Values = npt.NDArray[np.float64]
Tests = dict[str, tuple[Difference, float | None]]
"""By a model's label: the test and its corrected p-value."""


def compared(name: str, logs: LogsJobs, runner: Runner, *, stepwise: bool = False) -> Section:
    """Models beside the first of them, or each beside the one above it (Figures 3, 4, …).

    Figures, paired differences, bars.
    """
    section = titled(name)
    for log, jobs in logs:
        if why := log.why or runner.why_none(jobs):
            section.leave_out(log, {job.label: why for job in jobs})
            continue
        table, data = differences(log, jobs, runner, stepwise=stepwise)
        section.add(table)
        missing = (job for job in jobs if job.label not in data)
        section.leave_out(log, {job.label: str(runner.record(job)) for job in missing})
        section.data[log.name] = data
        if len(data) > 1:
            caption = f"{section.title}, {log.title}; bars are ± 1.96 standard errors"
            drawn = {"models": data, "metrics": list(METRICS)}
            section.drawings.append(Drawing(f"{name}-{log.name}", "bars", caption, drawn))
    return section


def add_differences(
    section: Section, logs: LogsJobs, runner: Runner, *, stepwise: bool = False
) -> None:
    """Add each model's paired differences to a section that has their figures."""
    for log, jobs in logs:
        if log.why or runner.why_none(jobs):
            continue
        table, data = differences(log, jobs, runner, stepwise=stepwise)
        found = {label: row["differences"] for label, row in data.items()}
        if any(any(tests.values()) for tests in found.values()):
            section.tables.append(replace(table, title=f"{table.title}, differences", log=""))
        section.data[log.name]["differences"] = found


def differences(
    log: StudyLog, jobs: list[Job], runner: Runner, *, stepwise: bool = False
) -> tuple[Table, dict[str, dict[str, Any]]]:
    """Figures of each model and its paired difference from the first, or from the one above."""
    other = ABOVE if stepwise else jobs[0].label
    columns = ["model", "seeds", "epochs", *METRICS]
    for metric in METRICS:
        columns += [f"{metric} − {other}", "p"]
    columns += [f"full {FULL}", f"full {FULL} − {other}", "p"]
    table, data = Table(log.title, columns, [], log=log.title), {}

    records = {job.label: records_of(job, runner) for job in jobs}
    references = jobs if stepwise else [jobs[0]] * len(jobs)
    against = dict(zip(jobs[1:], references, strict=False))
    trainings = _trainings(log, runner)
    tests = {metric: _tests(against, records, trainings, metric, full=False) for metric in METRICS}
    full_tests = _tests(against, records, trainings, FULL, full=True)
    for job in jobs:
        found = records[job.label]
        if not found:
            continue
        cells = {metric: sampled_cell(found, metric) for metric in METRICS}
        full = full_cell(found, FULL)
        row: list[Cell | str] = [job.label, seeds_text(job, found), epochs_text(job, log, found)]
        row += cells.values()
        for metric in METRICS:
            row += _texts(tests[metric].get(job.label))
        table.rows.append([*row, full or "", *_texts(full_tests.get(job.label))])
        data[job.label] = {
            "seeds": len(found),
            "sampled": {metric: cell.value for metric, cell in cells.items()},
            "sampled_se": {metric: cell.error for metric, cell in cells.items()},
            "full": full and {FULL: full.value},
            "full_se": full and {FULL: full.error},
            "epochs": [record.values["epochs"] for record in found],
            "train_seconds": mean(record.values["train_seconds"] for record in found),
            "differences": {
                **{metric: _data(of.get(job.label)) for metric, of in tests.items()},
                f"full {FULL}": _data(full_tests.get(job.label)),
            },
        }
    return table, data


def _trainings(log: StudyLog, runner: Runner) -> list[list[Record]]:
    """Records of all models on a log, a list for each; a model with two labels counts once."""
    jobs = {with_seed(item.job, 0) for item in runner.items if item.job.log == log.name}
    found = [records_of(job, runner) for job in sorted(jobs, key=lambda job: job.label)]
    return list({records[0].key: records for records in found if records}.values())


def _tests(
    against: Mapping[Job, Job],
    records: Mapping[str, list[Record]],
    trainings: Sequence[list[Record]],
    metric: str,
    *,
    full: bool,
) -> Tests:
    """Paired tests of each job against its reference, p corrected for their number.

    A model with one seed borrows the noise of the noisiest of `trainings` on the same users.
    """

    def values(found: list[Record]) -> Values | None:
        """Figures by seed and user, float64 [seeds, T]; None if the seeds differ in users."""
        each = [record.user_values(metric, full=full) for record in found]
        same = len({len(row) for row in each}) == 1 and len(each[0]) > 0
        return np.array(each) if same else None

    others = [array for array in map(values, trainings) if array is not None]
    users = max((array.shape[1] for array in others), default=0)
    borrowed = Noise.largest(array for array in others if array.shape[1] == users)
    tests = {}
    for job, reference in against.items():
        ours, theirs = values(records[job.label]), values(records[reference.label])
        if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
            continue  # not run, or measured on a sample of users of its own
        noise = [SILENT if one.model in NON_ITERATIVE else borrowed for one in (job, reference)]
        tests[job.label] = over_trainings(ours, theirs, (noise[0], noise[1]))
    ps = {label: test.p for label, test in tests.items() if test.p is not None}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    return {label: (test, corrected.get(label)) for label, test in tests.items()}


def _texts(found: tuple[Difference, float | None] | None) -> list[str]:
    """Cells of a difference and of its p-value."""
    if found is None:
        return ["", ""]
    test, p = found
    text = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
    return [text, "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"]


def _data(found: tuple[Difference, float | None] | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    data: dict[str, float | None] = {**asdict(found[0]), "holm": found[1]}
    if found[0].error == 0:  # JSON has no infinity
        data["freedom"] = None
    return data

"""Sections that hold models against one another, user by user, over all their training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

import numpy as np

from comet_rec.evaluation.paired import Difference, holm, over_trainings
from comet_rec.experiments.jobs import Job, Record
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import (
    Drawing,
    Section,
    Table,
    number,
    of_full,
    of_metric,
    sample_of_users,
)

METRICS = ("HR@10", "NDCG@10")
TESTED = "NDCG@10"
ABOVE = "the row above"
HOW = (
    "± is one standard error, over users and, where a model has several seeds, over seeds; in "
    "brackets the 95 % interval of the paired difference, over users and trainings (Student's "
    "t); p belongs to it, after Holm's correction. A model with one seed is given the noise "
    "between the other's trainings. Where both have one seed it is in neither: a difference may "
    "be there and still be luck of the seed."
)
Tests = dict[str, tuple[Difference, float]]
"""By a model's label: the test and its corrected p-value."""


def compared(
    name: str, title: str, text: list[str], logs: Sequence[tuple[StudyLog, list[Job]]],
    runner: Runner, *, stepwise: bool = False,
) -> Section:  # fmt: skip
    """Models beside the first of them, or each beside the one above it (Figures 3, 4, …).

    Figures, paired differences, bars.
    """
    section = Section(name, title, [*text, HOW])
    for log, jobs in logs:
        if why := log.why or runner.why_none(jobs):
            section.text.append(f"{log.title}: not run: {why}.")
            continue
        table, data = differences(log, jobs, runner, stepwise=stepwise)
        section.tables.append(table)
        section.data[log.name] = data
        if data:
            caption = f"{title}, {log.title}; bars are ± 1.96 standard errors"
            drawn = {"models": data, "metrics": list(METRICS)}
            section.drawings.append(Drawing(f"{name}-{log.name}", "bars", caption, drawn))
    return section


def differences(
    log: StudyLog, jobs: list[Job], runner: Runner, *, stepwise: bool = False
) -> tuple[Table, dict[str, dict[str, Any]]]:
    """Figures of each model and its paired difference from the first, or from the one above."""
    other = ABOVE if stepwise else jobs[0].label
    columns = ["model", "seeds", *METRICS, f"{TESTED} − {other}", "p"]
    columns += [f"full {TESTED}", f"full {TESTED} − {other}", "p"]
    table, data = Table(log.title, columns, []), {}
    seeds = {job.label: runner.seeds_of(job) for job in jobs}
    against = dict(zip(jobs[1:], jobs if stepwise else [jobs[0]] * len(jobs), strict=False))
    pairs = {job.label: (seeds[job.label], seeds[to.label]) for job, to in against.items()}
    sampled, full = _tests(pairs, full=False), _tests(pairs, full=True)
    for job in jobs:
        records = seeds[job.label]
        if not records:
            why = f"not run: {runner.record(job)}"
            table.rows.append([job.label, why, *[""] * (len(columns) - 2)])
            continue
        cells = {metric: of_metric(records, metric) for metric in METRICS}
        whole = of_full(records, TESTED)
        text = f"{whole.ours:.4f} ± {whole.error:.4f}" if whole else ""
        row = [job.label, str(len(records))]
        row += [f"{number(cell.ours)} ± {number(cell.error)}" for cell in cells.values()]
        row += _told(sampled.get(job.label))
        row.append(text + sample_of_users(records[0]))
        table.rows.append(row + _told(full.get(job.label)))
        values = [record.values for record in records]
        data[job.label] = {
            "seeds": len(records),
            "sampled": {metric: cell.ours for metric, cell in cells.items()},
            "sampled_se": {metric: cell.error for metric, cell in cells.items()},
            "full": whole and {TESTED: whole.ours},
            "full_se": whole and {TESTED: whole.error},
            "epochs": [v["epochs"] for v in values],
            "train_seconds": mean(v["train_seconds"] for v in values),
            "difference": _as_data(sampled.get(job.label)),
            "full_difference": _as_data(full.get(job.label)),
        }
    return table, data


def _tests(pairs: dict[str, tuple[list[Record], list[Record]]], *, full: bool) -> Tests:
    found = {}
    for label, (records, reference) in pairs.items():
        ours = [record.of_users(TESTED, full=full) for record in records]
        theirs = [record.of_users(TESTED, full=full) for record in reference]
        if not ours or not theirs or len({len(of) for of in (*ours, *theirs)}) != 1:
            continue  # not there, or over a sample of users of its own
        if not len(ours[0]):
            continue
        found[label] = over_trainings(np.array(ours), np.array(theirs))
    corrected = holm([test.p for test in found.values()])
    return {label: (test, p) for (label, test), p in zip(found.items(), corrected, strict=True)}


def _told(found: tuple[Difference, float] | None) -> list[str]:
    if found is None:
        return ["", ""]
    test, p = found
    text = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
    return [text, "< 0.001" if p < 0.001 else f"{p:.3f}"]


def _as_data(found: tuple[Difference, float] | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    data: dict[str, float | None] = {**asdict(found[0]), "holm": found[1]}
    if found[0].error == 0:  # JSON has no infinity
        data["freedom"] = None
    return data

"""Sections of a report on trained models: their metrics and the paired differences between them.

Other sections use helpers from this module too. The texts of sections are in `texts.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.resources import files
from itertools import chain
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.evaluation.paired import SILENT, Difference, Noise, holm, over_trainings
from comet_rec.evaluation.reliability import expected_figures, unseen_others
from comet_rec.experiments import paper
from comet_rec.experiments.jobs import RECORDS, Job, with_seed
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.paper import Figures, Printed
from comet_rec.experiments.plans import NON_ITERATIVE
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.tables import (
    METRICS,
    NOT_RUN,
    OTHER_LOG,
    SMALLER,
    Cell,
    Section,
    Table,
    compared_cell,
    interval_text,
    number,
    p_text,
)

FULL = "NDCG@10"
"""Metric over all items (full ranking) that the tables of differences show."""
ABOVE = "the row above"
MORE = 100
"""Number of negatives in many papers on sequential recommendation; COMET's paper has 99."""
CORE = 5
"""Fewest rows of an item in the data sets of many papers on sequential recommendation."""

LogsJobs = Sequence[tuple[StudyLog, list[Job]]]
Values = npt.NDArray[np.float64]
Tested = tuple[Difference, float | None]
"""A paired test, and its p-value after Holm's correction (None if it has no p-value)."""


@cache
def _texts() -> dict[str, tuple[str, list[str]]]:
    """Name of each section in `texts.md` → its title and paragraphs."""
    source = files(__package__).joinpath("texts.md").read_text(encoding="utf-8")
    texts = {}
    for part in re.split(r"^# ", source, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        name, _, title = heading.partition(": ")
        texts[name] = title, body.strip().split("\n\n")
    return texts


def paragraphs(name: str) -> list[str]:
    """Paragraphs of the section `name` in `texts.md`."""
    return list(_texts()[name][1])


def titled(name: str) -> Section:
    """New section with the title and the paragraphs of `name` in `texts.md`."""
    title, text = _texts()[name]
    return Section(name, title, list(text))


def sampled_cell(
    records: Sequence[Record], metric: str, paper: float | None = None, unlike: str = ""
) -> Cell:
    """Table cell of a sampled metric, averaged over the seeds of a model.

    `records` has a record for each seed; `paper` and `unlike` are as in `compared_cell`.
    """
    values = [float(record.values["sampled"][metric]) for record in records]
    errors = [float(record.values["sampled_se"][metric]) for record in records]
    return compared_cell(values, errors, int(records[0].values["n_users"]), paper, unlike)


def full_cell(records: Sequence[Record], metric: str) -> Cell | None:
    """Table cell of a full metric, averaged over the seeds that have it; None if no seed does."""
    ranked = [record.values for record in records if record.values["full"] is not None]
    if not ranked:
        return None
    values = [float(entry["full"][metric]) for entry in ranked]
    errors = [float(entry["full_se"][metric]) for entry in ranked]
    cell = compared_cell(values, errors, int(ranked[0]["n_users_full"]))
    first = records[0].values
    sample = first["full"] is not None and first["n_users_full"] != first["n_users"]
    note = f" ({first['n_users_full']:,} users)" if sample else ""
    return replace(cell, note=note, digits=4)


def records_of(job: Job, runner: Runner) -> list[Record]:
    """Records of a job's finished seeds; one record for a non-iterative model."""
    records = runner.seeds_of(job)
    return records[:1] if job.model in NON_ITERATIVE else records


def seeds_text(job: Job, records: Sequence[Record]) -> str:
    """Number of a job's seeds as text; a dash for a non-iterative model."""
    return "–" if job.model in NON_ITERATIVE else str(len(records))


def epochs_text(job: Job, log: StudyLog, records: Sequence[Record]) -> str:
    """Chosen epoch of each seed, and the largest allowed number of epochs, as text.

    A non-iterative model gets a dash.
    """
    if job.model in NON_ITERATIVE:
        return "–"
    assert log.split is not None
    most = job.estimator().config_for(log.split.interactions).train.epochs
    return f"{', '.join(str(record.values['epochs']) for record in records)} of {most}"


def table_1(logs: Sequence[StudyLog]) -> Section:
    """Table I: users, items, interactions and density of each log."""
    section = titled("table1")
    columns = ["data set", "users", "items", "interactions", "density", "the paper's", "verdict"]
    table = Table("", columns, [])
    for log in logs:
        theirs = paper.LOGS.get(log.name)
        printed = "" if theirs is None else ", ".join(f"{n:,}" for n in theirs.counts)
        if log.split is None:
            table.rows.append([log.title, "", "", "", "", printed, NOT_RUN])
            section.data[log.name] = {NOT_RUN: log.why}
            continue
        rows = log.split.interactions
        verdict = "" if theirs is None else "equal" if log.is_the_papers else OTHER_LOG
        counts = (f"{n:,}" for n in (rows.n_users, rows.n_items, len(rows)))
        table.rows.append([log.title, *counts, f"{rows.density:.5f}", printed, verdict])
        section.data[log.name] = {
            "users": rows.n_users, "items": rows.n_items, "interactions": len(rows),
            "density": rows.density, "verdict": verdict, "notes": list(rows.notes),
            "protocol": log.split.hash,
        }  # fmt: skip
    section.tables.append(table)
    return section


def algorithms_table(name: str, printed: Printed, logs: LogsJobs, runner: Runner) -> Section:
    """Section with the four sampled metrics of each model on each log.

    `printed` has the figures of the paper to show beside them; it is empty for models beyond the
    paper. `name` is that of the section in `texts.md`.
    """
    section = titled(name)
    section.text += paragraphs("cells-beside-the-paper" if printed else "cells")
    for log, jobs in logs:
        in_the_paper = any(log.name in columns for columns in printed.values())
        why = log.why or runner.why_none(jobs)
        if log.split is None or (why and not in_the_paper):
            section.add(_table_not_run(log, printed))
            section.leave_out(log, {job.label: why for job in jobs})
            section.data[log.name] = {NOT_RUN: why}
            continue
        table, data = _rows_of_models(log, jobs, printed, runner)
        section.add(table)
        section.data[log.name] = data
        section.text += _chance_of_other_rows(log, jobs, printed, runner)
        shown = {str(row[0]) for row in table.rows}
        section.leave_out(log, {k: v[NOT_RUN] for k, v in data.items() if k not in shown})
    return section


def _table_not_run(log: StudyLog, printed: Printed) -> Table:
    """Table of only the paper's figures, for a log that could not be read."""
    rows = [
        _row_not_run(label, "", figures[log.name])
        for label, figures in printed.items()
        if log.name in figures
    ]
    return Table(f"{log.title} (not run)", ["model", *paper.METRICS], rows, log=log.title)


def _row_not_run(label: str, why: str, figures: Figures) -> list[Cell | str]:
    """Table row of a model that was not run: the reason `why`, and the paper's figures."""
    return [label, *(Cell(None, paper=figure, status=NOT_RUN, note=why) for figure in figures)]


def _rows_of_models(
    log: StudyLog, jobs: list[Job], printed: Printed, runner: Runner
) -> tuple[Table, dict[str, Any]]:
    """Table of the models on one log, and the same metrics as data for ``report.json``."""
    after = ["full HR@10", "full NDCG@10", "seeds", "epochs", "seconds a seed"]
    if not printed:  # results beyond the paper: also the usual number of negatives
        after = [
            f"HR@10, NDCG@10 with {MORE}", f"with {MORE} of items of {CORE} rows, at least", *after
        ]  # fmt: skip
    table = Table(log.title, ["model", *paper.METRICS, *after], [], log=log.title)
    data: dict[str, dict[str, Any]] = {}
    for job in jobs:
        first = runner.record(job)
        theirs = printed.get(job.label, {}).get(log.name)
        if not isinstance(first, Record):
            if theirs:
                empty = [""] * len(after)
                table.rows.append([*_row_not_run(job.label, first, theirs), *empty])
            data[job.label] = {NOT_RUN: first}
            continue
        records = records_of(job, runner)
        cells = _sampled_cells(log, job, records, theirs)
        data[job.label] = _data_of_model(records, cells)
        row: list[Cell | str] = [job.label, *cells.values()]
        if not printed:
            with_more = {
                f"with {MORE} negatives": _with_more(log, records),
                f"with {MORE} negatives of {CORE} rows": _with_more(log, records, CORE),
            }
            data[job.label] |= with_more
            row += [", ".join(map(number, pair)) if pair else "" for pair in with_more.values()]
        row += [full_cell(records, metric) or "" for metric in METRICS]
        row += [seeds_text(job, records), epochs_text(job, log, records)]
        table.rows.append([*row, f"{runner.seconds(job):,.0f}"])
    return table, data


def _sampled_cells(
    log: StudyLog, job: Job, records: Sequence[Record], theirs: Figures | None
) -> dict[str, Cell]:
    """Cells of the paper's metrics for one model, by metric.

    They are compared with the paper's figures, `theirs`, if log and model size are those of the
    paper.
    """
    unlike = unlike_the_papers(log, job)
    printed = theirs or [None] * len(paper.METRICS)
    return {
        metric: sampled_cell(records, metric, figure, unlike)
        for metric, figure in zip(paper.METRICS, printed, strict=True)
    }


def unlike_the_papers(log: StudyLog, job: Job) -> str:
    """Status of metrics that cannot be compared with the paper's; empty if they can."""
    if not log.is_the_papers:
        return OTHER_LOG
    k = dict(job.settings).get("model.embedding_dim", paper.DIM)
    return SMALLER if job.model == "comet" and k < paper.DIM else ""


def _data_of_model(records: Sequence[Record], cells: Mapping[str, Cell]) -> dict[str, Any]:
    """Data of one model for ``report.json``."""
    kept = ("seed", "epochs", "train_seconds", "validation", "sampled", "full", "settings")
    optional = ("machine",)  # the first records do not have it
    return {
        "cells": {metric: cell.as_data() for metric, cell in cells.items()},
        "runs": [
            {key: record.values[key] for key in kept}
            | {key: record.values[key] for key in optional if key in record.values}
            for record in records
        ],
        "versions": records[0].values["versions"],
        "protocol": records[0].values["protocol"]["hash"],
    }


def _with_more(
    log: StudyLog, records: Sequence[Record], least: int = 0
) -> tuple[float, float] | None:
    """Expected HR@10 and NDCG@10 with `MORE` negatives, averaged over seeds.

    All negatives have at least `least` rows. A record does not say which items rank above the
    positive. The computation assumes that all of them have so many rows, so the values are lower
    bounds. The result is None if a seed has no full ranks.
    """
    assert log.split is not None
    test, figures = log.split.test, []
    log_rows = log.split.interactions
    rows_of_item = np.bincount(log_rows.items, minlength=log_rows.n_items)
    others = unseen_others(test, log.split.known, rows_of_item >= least)
    for record in records:
        ranks = record.full_ranks(len(test))
        if ranks is None:
            return None
        figures.append(expected_figures(ranks, others, MORE, 10))
    return mean(hr for hr, _ in figures), mean(gain for _, gain in figures)


def _chance_of_other_rows(
    log: StudyLog, jobs: list[Job], printed: Printed, runner: Runner
) -> list[str]:
    """Sentence on how often our metrics of a model match the paper's figures of another model.

    Many such matches mean that a match with the right model says little. The list is empty if
    nothing can be compared.
    """
    ours = {job.label: job for job in jobs if isinstance(runner.record(job), Record)}
    statuses = [
        sampled_cell(records_of(job, runner), metric, columns[log.name][place]).status
        for label, job in ours.items()
        for other, columns in printed.items()
        if label in printed and other != label and log.name in columns
        for place, metric in enumerate(paper.METRICS)
        if not unlike_the_papers(log, job)
    ]
    if not statuses:
        return []
    same = statuses.count("reproduced")
    return [
        f"{log.title}: this test is weak. Compared with the paper's figures of each other model, "
        f"our rows would reproduce {same} of {len(statuses)}."
    ]


def compared(name: str, logs: LogsJobs, runner: Runner) -> Section:
    """Section that compares each model with the first, with bars of metrics (Figures 3, 4, …).

    `name` is that of the section in `texts.md`.
    """
    section = titled(name)
    panels = {}
    for log, jobs in logs:
        if why := log.why or runner.why_none(jobs):
            section.leave_out(log, {job.label: why for job in jobs})
            continue
        table, data = differences(log, jobs, runner)
        section.add(table)
        missing = (job for job in jobs if job.label not in data)
        section.leave_out(log, {job.label: str(runner.record(job)) for job in missing})
        section.data[log.name] = data
        if len(data) > 1:
            panels[log.title] = data
    caption = f"{section.title}, {', '.join(panels)}; bars are ± 1.96 standard errors"
    section.draw("bars", caption, panels)
    return section


def add_differences(
    section: Section, logs: LogsJobs, runner: Runner, *, stepwise: bool = False
) -> None:
    """Add tables of paired differences to a section that already has the models' metrics.

    Each model is compared with the first one or, if `stepwise` is True, with the row above it.
    """
    for log, jobs in logs:
        if log.why or runner.why_none(jobs):
            continue
        table, data = differences(log, jobs, runner, stepwise=stepwise)
        tests = {label: row["differences"] for label, row in data.items()}
        if any(any(of_model.values()) for of_model in tests.values()):
            section.tables.append(replace(table, title=f"{table.title}, differences", log=""))
        section.data[log.name]["differences"] = tests


def differences(
    log: StudyLog, jobs: list[Job], runner: Runner, *, stepwise: bool = False
) -> tuple[Table, dict[str, dict[str, Any]]]:
    """Table of each model's metrics and paired differences, and the same as data.

    Each model is compared with the first one or, if `stepwise` is True, with the row above it.
    """
    other = ABOVE if stepwise else jobs[0].label
    columns = ["model", "seeds", "epochs", *METRICS]
    for metric in METRICS:
        columns += [f"{metric} − {other}", "p"]
    columns += [f"full {FULL}", f"full {FULL} − {other}", "p"]
    table, data = Table(log.title, columns, [], log=log.title), {}

    by_label = {job.label: records_of(job, runner) for job in jobs}
    references = jobs if stepwise else [jobs[0]] * len(jobs)
    against = dict(zip(jobs[1:], references, strict=False))
    trainings = _trainings(log, runner)
    tests = {metric: _tests(against, by_label, trainings, metric, full=False) for metric in METRICS}
    tests[f"full {FULL}"] = _tests(against, by_label, trainings, FULL, full=True)
    for job in jobs:
        records = by_label[job.label]
        if not records:
            continue
        cells = {metric: sampled_cell(records, metric) for metric in METRICS}
        full = full_cell(records, FULL)
        *sampled_texts, full_texts = [
            _texts_of_test(test.get(job.label)) for test in tests.values()
        ]
        table.rows.append(
            [
                job.label, seeds_text(job, records), epochs_text(job, log, records),
                *cells.values(),
                *chain(*sampled_texts), full or "", *full_texts,
            ]
        )  # fmt: skip
        data[job.label] = {
            "seeds": len(records),
            "sampled": {metric: cell.value for metric, cell in cells.items()},
            "sampled_se": {metric: cell.error for metric, cell in cells.items()},
            "full": full and {FULL: full.value},
            "full_se": full and {FULL: full.error},
            "epochs": [record.values["epochs"] for record in records],
            "train_seconds": mean(record.values["train_seconds"] for record in records),
            "differences": {
                name: _data_of_test(test.get(job.label)) for name, test in tests.items()
            },
        }
    return table, data


def _trainings(log: StudyLog, runner: Runner) -> list[list[Record]]:
    """For each model on a log, the records of its seeds; a model with two labels counts once."""
    jobs = {with_seed(item.job, 0) for item in runner.items if item.job.log == log.name}
    trainings = [records_of(job, runner) for job in sorted(jobs, key=lambda job: job.label)]
    return list({records[0].key: records for records in trainings if records}.values())


def _tests(
    against: Mapping[Job, Job],
    records: Mapping[str, list[Record]],
    trainings: Sequence[list[Record]],
    metric: str,
    *,
    full: bool,
) -> dict[str, Tested]:
    """Paired tests of jobs against their references, with corrected p-values, by label.

    `against` maps a job to its reference. The variance between the trainings of a model with one
    seed is unknown. It is replaced by the largest such variance in `trainings` on the same users.
    """

    def values(seeds: list[Record]) -> Values | None:
        """Metric by seed and user, float64 [seeds, T]; None if the seeds differ in users."""
        each = [record.user_values(metric, full=full) for record in seeds]
        same = len({len(row) for row in each}) == 1 and len(each[0]) > 0
        return np.array(each) if same else None

    others = [array for array in map(values, trainings) if array is not None]
    users = max((array.shape[1] for array in others), default=0)
    borrowed = Noise.largest(array for array in others if array.shape[1] == users)
    tests = {}
    for job, reference in against.items():
        ours, theirs = values(records[job.label]), values(records[reference.label])
        if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
            continue  # not run, or ranked for another sample of users
        noise = [SILENT if one.model in NON_ITERATIVE else borrowed for one in (job, reference)]
        tests[job.label] = over_trainings(ours, theirs, (noise[0], noise[1]))
    ps = {label: test.p for label, test in tests.items() if test.p is not None}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    return {label: (test, corrected.get(label)) for label, test in tests.items()}


def _texts_of_test(tested: Tested | None) -> list[str]:
    """Text of a difference and text of its p-value; both empty without a test."""
    if tested is None:
        return ["", ""]
    test, p = tested
    text = interval_text(test.difference, test.low, test.high)
    return [text, "" if p is None else p_text(p)]


def _data_of_test(tested: Tested | None) -> dict[str, float | None] | None:
    """Data of a paired test for ``report.json``; None without a test."""
    if tested is None:
        return None
    test, p = tested
    data: dict[str, float | None] = {**asdict(test), "holm": p}
    if test.error == 0:  # JSON has no infinity
        data["freedom"] = None
    return data


def figure_5(logs: LogsJobs, runner: Runner) -> Section:
    """Section with heat maps of the kernels that COMET learned on each log."""
    section = titled("figure5")
    panels = {}
    for log, jobs in logs:
        record = runner.record(jobs[0]) if log.split is not None else log.why
        kernels = record.kernels if isinstance(record, Record) else {}
        if not kernels:
            if isinstance(record, Record):
                record = (
                    f"record {record.key} has no kernels; remove it from "
                    f"{RECORDS}/{log.name}.zip to train the model again"
                )
            section.leave_out(log, {"COMET": record})
            continue
        panels[log.title] = {title: weights.tolist() for title, weights in kernels.items()}
        section.data[log.name] = {
            title: {"rows": len(weights), "width": len(weights[0])}
            for title, weights in kernels.items()
        }
    section.draw("kernels", f"Kernels of COMET on {', '.join(panels)}", panels)
    return section


def figure_6(logs: Sequence[tuple[StudyLog, dict[str, list[Job]]]], runner: Runner) -> Section:
    """Section on COMET over embedding sizes, regularisation weights and numbers of channels."""
    section = titled("figure6")
    panels = {}
    for log, grids in logs:
        jobs = [job for grid in grids.values() for job in grid]
        if why := log.why or runner.why_none(jobs):
            section.leave_out(log, dict.fromkeys((job.label for job in jobs), why))
            continue
        curves = {}
        for key, grid in grids.items():
            table, curves[key] = _curve(log, key, grid, runner)
            section.tables.append(table)
        section.data[log.name] = curves
        if any(len(points) > 1 for points in curves.values()):
            panels[log.title] = {key: points for key, points in curves.items() if points}
    section.draw("curves", f"Figure 6 on {', '.join(panels)}", panels)
    return section


def _curve(
    log: StudyLog, key: str, jobs: list[Job], runner: Runner
) -> tuple[Table, list[dict[str, Any]]]:
    """Table and curve points of COMET's metrics over the values of one setting, `key`."""
    columns = [key, "HR@10", "NDCG@10", "epochs", "seconds"]
    table = Table(f"{log.title}: {key}", columns, [], log=log.title)
    points = []
    for job in jobs:
        record, value = runner.record(job), dict(job.settings)[key]
        if not isinstance(record, Record):
            not_run = Cell(None, status=NOT_RUN, note=record)
            table.rows.append([f"{value:g}", not_run, "", "", ""])
            continue
        cells = [sampled_cell([record], metric) for metric in METRICS]
        seconds = f"{record.values['train_seconds']:,.0f}"
        table.rows.append([f"{value:g}", *cells, epochs_text(job, log, [record]), seconds])
        kept = {name: record.values[name] for name in ("sampled", "sampled_se")}
        points.append({"value": value, **kept})
    return table, points

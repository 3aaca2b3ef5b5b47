"""Sections of a report for the paper's tables and figures, and the cells that all sections share.

The texts of sections are in `texts.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from statistics import mean
from typing import Any

import numpy as np

from comet_rec.evaluation.reliability import expected_figures, unseen_others
from comet_rec.experiments import paper
from comet_rec.experiments.jobs import RECORDS, Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.paper import METRICS, Figures, Printed
from comet_rec.experiments.plans import NON_ITERATIVE
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.tables import (
    NOT_RUN,
    OTHER_LOG,
    SMALLER,
    Cell,
    Drawing,
    Section,
    Table,
    compared_cell,
    number,
)

FULL = ("HR@10", "NDCG@10")
"""Full figures that tables show."""
MORE = 100
"""Negatives that the literature on sequences reports with; the paper has 99."""
CORE = 5
"""Rows below which that literature leaves an item out."""

LogsJobs = Sequence[tuple[StudyLog, list[Job]]]


@cache
def _texts() -> dict[str, tuple[str, list[str]]]:
    """Title and paragraphs of each part of `texts.md`."""
    source = files(__package__).joinpath("texts.md").read_text(encoding="utf-8")
    found = {}
    for part in re.split(r"^# ", source, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        name, _, title = heading.partition(": ")
        found[name] = title, body.strip().split("\n\n")
    return found


def paragraphs(name: str) -> list[str]:
    """Paragraphs of `texts.md` under a name."""
    return list(_texts()[name][1])


def titled(name: str) -> Section:
    """A section with the title and the paragraphs that `texts.md` has for it."""
    title, text = _texts()[name]
    return Section(name, title, list(text))


def sampled_cell(records: Sequence[Record], metric: str, paper: float | None = None) -> Cell:
    """Cell of a sampled figure over the seeds that are there."""
    values = [float(record.values["sampled"][metric]) for record in records]
    errors = [float(record.values["sampled_se"][metric]) for record in records]
    return compared_cell(values, errors, int(records[0].values["n_users"]), paper)


def full_cell(records: Sequence[Record], metric: str) -> Cell | None:
    """Cell of a full figure over the seeds that have one; None where the model was not ranked."""
    ranked = [record.values for record in records if record.values["full"] is not None]
    if not ranked:
        return None
    values = [float(entry["full"][metric]) for entry in ranked]
    errors = [float(entry["full_se"][metric]) for entry in ranked]
    cell = compared_cell(values, errors, int(ranked[0]["n_users_full"]))
    first = records[0].values
    sample = first["full"] is not None and first["n_users_full"] != first["n_users"]
    note = f" ({first['n_users_full']:,} users)" if sample else ""
    return Cell(cell.value, cell.error, cell.seeds, note=note, digits=4)


def records_of(job: Job, runner: Runner) -> list[Record]:
    """Records of a model's trainings; one for a model that draws nothing."""
    found = runner.seeds_of(job)
    return found[:1] if job.model in NON_ITERATIVE else found


def seeds_text(job: Job, records: Sequence[Record]) -> str:
    """Number of seeds."""
    return "–" if job.model in NON_ITERATIVE else str(len(records))


def epochs_text(job: Job, log: StudyLog, records: Sequence[Record]) -> str:
    """Chosen epoch of each seed, and how many there could have been."""
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
    """Four sampled figures of each model on each log, beside the paper's where it has them."""
    section = titled(name)
    section.text += paragraphs("cells-beside-the-paper" if printed else "cells")
    for log, jobs in logs:
        if log.split is None:
            section.add(_table_not_run(log, printed))
            section.data[log.name] = {NOT_RUN: log.why}
            continue
        in_the_paper = any(log.name in columns for columns in printed.values())
        if not in_the_paper and (why := runner.why_none(jobs)):
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
    columns = ["model", *METRICS]
    rows = [
        _row_not_run(columns, label, "", figures[log.name])
        for label, figures in printed.items()
        if log.name in figures
    ]
    return Table(f"{log.title} (not run)", columns, rows, log=log.title)


def _row_not_run(
    columns: Sequence[str], label: str, why: str, figures: Figures
) -> list[Cell | str]:
    cells = [Cell(None, paper=figure, status=NOT_RUN, note=why) for figure in figures]
    return [label, *cells, *[""] * (len(columns) - 1 - len(cells))]


def _rows_of_models(
    log: StudyLog, jobs: list[Job], printed: Printed, runner: Runner
) -> tuple[Table, dict[str, Any]]:
    after = ["full HR@10", "full NDCG@10", "seeds", "epochs", "seconds a seed"]
    if not printed:  # past the paper: what others report with
        after = [
            f"HR@10, NDCG@10 with {MORE}", f"with {MORE} of items of {CORE} rows, at least", *after
        ]  # fmt: skip
    table = Table(log.title, ["model", *METRICS, *after], [], log=log.title)
    data: dict[str, dict[str, Any]] = {}
    for job in jobs:
        first = runner.record(job)
        theirs = printed.get(job.label, {}).get(log.name)
        if not isinstance(first, Record):
            if theirs:
                table.rows.append(_row_not_run(table.columns, job.label, first, theirs))
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
        row += [full_cell(records, metric) or "" for metric in FULL]
        row += [seeds_text(job, records), epochs_text(job, log, records)]
        table.rows.append([*row, f"{runner.seconds(job):,.0f}"])
    return table, data


def _sampled_cells(
    log: StudyLog, job: Job, records: Sequence[Record], theirs: Figures | None
) -> dict[str, Cell]:
    """Cells of `METRICS`, compared with the paper's where log and size are the paper's."""
    unlike = unlike_the_papers(log, job)
    cells = {}
    for place, metric in enumerate(METRICS):
        printed = theirs[place] if theirs else None
        if printed is None or not unlike:
            cells[metric] = sampled_cell(records, metric, printed)
        else:
            ours = sampled_cell(records, metric)
            cells[metric] = Cell(ours.value, ours.error, ours.seeds, printed, unlike)
    return cells


def unlike_the_papers(log: StudyLog, job: Job) -> str:
    """Why a job's figures cannot be held against the paper's; empty where they can."""
    if not log.is_the_papers:
        return OTHER_LOG
    k = dict(job.settings).get("model.embedding_dim", paper.DIM)
    return SMALLER if job.model == "comet" and k < paper.DIM else ""


def _data_of_model(records: Sequence[Record], cells: Mapping[str, Cell]) -> dict[str, Any]:
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
    """HR@10 and NDCG@10 with `MORE` negatives, in expectation over draws, mean over seeds.

    Negatives are items of `least` rows or more. A record does not say which items are ahead of
    the positive: all of them are taken to be such items, so the figure is a lower bound.
    """
    assert log.split is not None
    test, found = log.split.test, []
    log_rows = log.split.interactions
    rows_of_item = np.bincount(log_rows.items, minlength=log_rows.n_items)
    others = unseen_others(test, log.split.known, rows_of_item >= least)
    for record in records:
        ranks = record.full_ranks(len(test))
        if ranks is None:
            return None
        found.append(expected_figures(ranks, others, MORE, 10))
    return mean(hr for hr, _ in found), mean(gain for _, gain in found)


def _chance_of_other_rows(
    log: StudyLog, jobs: list[Job], printed: Printed, runner: Runner
) -> list[str]:
    """How often our rows would reproduce what the paper prints of other models."""
    ours = {job.label: job for job in jobs if isinstance(runner.record(job), Record)}
    statuses = [
        sampled_cell(records_of(job, runner), metric, columns[log.name][place]).status
        for label, job in ours.items()
        for other, columns in printed.items()
        if label in printed and other != label and log.name in columns
        for place, metric in enumerate(METRICS)
        if not unlike_the_papers(log, job)
    ]
    if not statuses:
        return []
    same = statuses.count("reproduced")
    return [
        f"{log.title}: how weak a test that is: held against the paper's figures of each other "
        f"model, our rows would reproduce {same} of {len(statuses)}."
    ]


def figure_5(logs: LogsJobs, runner: Runner) -> Section:
    """Heat maps of learned kernels."""
    section = titled("figure5")
    for log, jobs in logs:
        record = runner.record(jobs[0]) if log.split is not None else log.why
        kernels = record.kernels if isinstance(record, Record) else {}
        if not kernels:
            if isinstance(record, Record):
                record = (
                    f"its record {record.key} has no kernels; take it out of "
                    f"{RECORDS}/{log.name}.zip to train it anew"
                )
            section.leave_out(log, {"COMET": record})
            continue
        data = {"kernels": {title: weights.tolist() for title, weights in kernels.items()}}
        caption = f"Kernels of COMET on {log.title}"
        section.drawings.append(Drawing(f"figure5-{log.name}", "kernels", caption, data))
        section.data[log.name] = {
            title: {"rows": len(weights), "width": len(weights[0])}
            for title, weights in kernels.items()
        }
    return section


def figure_6(logs: Sequence[tuple[StudyLog, dict[str, list[Job]]]], runner: Runner) -> Section:
    """HR@10 and NDCG@10 over embedding size, regularisation and channels."""
    section = titled("figure6")
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
            drawn = {"curves": curves, "metrics": list(FULL)}
            caption = f"Figure 6 on {log.title}"
            section.drawings.append(Drawing(f"figure6-{log.name}", "curves", caption, drawn))
    return section


def _curve(
    log: StudyLog, key: str, jobs: list[Job], runner: Runner
) -> tuple[Table, list[dict[str, Any]]]:
    columns = [key, "HR@10", "NDCG@10", "epochs", "seconds"]
    table = Table(f"{log.title}: {key}", columns, [], log=log.title)
    points = []
    for job in jobs:
        record, value = runner.record(job), dict(job.settings)[key]
        if not isinstance(record, Record):
            not_run = Cell(None, status=NOT_RUN, note=record)
            table.rows.append([f"{value:g}", not_run, "", "", ""])
            continue
        cells = [sampled_cell([record], metric) for metric in FULL]
        seconds = f"{record.values['train_seconds']:,.0f}"
        table.rows.append([f"{value:g}", *cells, epochs_text(job, log, [record]), seconds])
        kept = {name: record.values[name] for name in ("sampled", "sampled_se")}
        points.append({"value": value, **kept})
    return table, points

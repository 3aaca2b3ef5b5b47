"""The parts of a report: from records to tables of text, raw figures, and what to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from comet_rec.experiments import paper
from comet_rec.experiments.cells import (
    CORE,
    MORE,
    epochs_told,
    number,
    of_full,
    of_metric,
    sample_of_users,
    seeds_told,
    trainings_of,
    with_more,
)
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.paper import METRICS, Cell
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner

FULL = ("HR@10", "NDCG@10")
"""Figures over the whole catalogue that tables show."""
OTHER = "another log"
"""Mark of a cell whose figures are not of the paper's log."""
SMALLER = "a smaller model"
"""Mark of a COMET's cell whose K is below the paper's."""


@dataclass
class Table:
    """Text in rows and columns.

    Parameters
    ----------
    title : str
    columns : list of str
    rows : list of list of str
    marks : dict of (row, column) to str
        Verdicts of cells, for colours.
    log : str
        Title of the log whose trainings the rows are; empty for a table of something else.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    marks: dict[tuple[int, int], str] = field(default_factory=dict)
    log: str = ""


@dataclass
class Drawing:
    """A figure to draw.

    Parameters
    ----------
    name : str
        Of its files.
    kind : {"bars", "curves", "kernels", "expected", "steps"}
    caption : str
    data : dict
        What `plots` draws.
    """

    name: str
    kind: str
    caption: str
    data: dict[str, Any]


@dataclass
class Section:
    """A table or figure of the paper, or a page of our own.

    Parameters
    ----------
    name : str
    title : str
    text : list of str
        Paragraphs.
    tables, drawings : list
    data : dict
        Raw figures, for `report.json`.
    missing : dict of str to int
        Title of a log to the number of its rows that were not run.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)

    def leave_out(self, log: StudyLog, why: Mapping[str, str]) -> None:
        """Say which rows a log's table does not have, and why: labels to reasons.

        Nothing on a log that could not be had: the report says so once.
        """
        if not why or log.split is None:
            return
        labels: dict[str, list[str]] = {}
        for label, reason in why.items():
            labels.setdefault(reason, []).append(label)
        said = "; ".join(f"{', '.join(of)} ({reason})" for reason, of in labels.items())
        self.missing[log.title] = self.missing.get(log.title, 0) + len(why)
        self.text.append(f"{log.title}, not run: {said}.")


def beside_the_paper(
    name: str,
    title: str,
    printed: dict[str, dict[str, paper.Four]],
    logs: Sequence[tuple[StudyLog, list[Job]]],
    runner: Runner,
) -> Section:
    """A table of the paper: four figures of each model on each log, a verdict in each cell."""
    text = (
        "Each cell: the mean over training seeds ± one standard error, over users and, where there "
        "are several, over seeds"
    )
    if printed:
        text += (
            "; the paper's figure; the verdict. Reproduced: the two differ by no more than 1.96 "
            "standard errors of their difference, the paper's taken from the binomial"
        )
    section = Section(name, title, [f"{text}."])
    for log, jobs in logs:
        if log.split is None:
            table = _not_run(log, printed)
            section.tables += [table] if table.rows else []
            section.data[log.name] = {"not run": log.why}
            continue
        named = any(log.name in columns for columns in printed.values())
        if not named and (why := runner.why_none(jobs)):
            section.leave_out(log, {job.label: why for job in jobs})
            section.data[log.name] = {"not run": why}
            continue
        table, data = _cells(log, jobs, printed, runner)
        section.tables += [table] if table.rows else []
        section.data[log.name] = data
        section.text += _beside_other_rows(log, jobs, printed, runner)
        shown = {row[0] for row in table.rows}
        section.leave_out(log, {k: v["not run"] for k, v in data.items() if k not in shown})
    return section


def _beside_other_rows(
    log: StudyLog, jobs: list[Job], printed: dict[str, dict[str, paper.Four]], runner: Runner
) -> list[str]:
    """How often our rows would reproduce what the paper prints of other models."""
    ours = {job.label: job for job in jobs if isinstance(runner.record(job), Record)}
    found = [
        of_metric(trainings_of(job, runner), metric, columns[log.name][place]).verdict
        for label, job in ours.items()
        for other, columns in printed.items()
        if label in printed and other != label and log.name in columns
        for place, metric in enumerate(METRICS)
        if not _unlike_the_papers(log, job)
    ]
    if not found:
        return []
    same = found.count("reproduced")
    return [
        f"{log.title}: how weak a test that is: held against the paper's figures of each other "
        f"model, our rows would reproduce {same} of {len(found)}."
    ]


def _not_run(log: StudyLog, printed: dict[str, dict[str, paper.Four]]) -> Table:
    table = Table(log.title, ["model", *METRICS], [], log=log.title)
    for label, columns in printed.items():
        if log.name in columns:
            _add_not_run(table, label, "", columns[log.name])
    table.title += " (not run)"
    return table


def _add_not_run(table: Table, label: str, why: str, theirs: paper.Four) -> None:
    """A row without figures; each figure that the paper prints is a cell without ours."""
    why = f"not run: {why}" if why else "not run"
    cells = [f"paper {number(value)}; {why}" for value in theirs]
    row = len(table.rows)
    table.marks |= {(row, place): "not run" for place in range(1, len(METRICS) + 1)}
    rest = len(table.columns) - 1 - len(cells)
    table.rows.append([label, *cells, *[""] * rest])


def _cells(
    log: StudyLog, jobs: list[Job], printed: dict[str, dict[str, paper.Four]], runner: Runner
) -> tuple[Table, dict[str, Any]]:
    columns = ["model", *METRICS, "full HR@10", "full NDCG@10", "seeds", "epochs", "seconds a seed"]
    if not printed:  # past the paper: what others report with
        place = len(METRICS) + 1
        columns[place:place] = [
            f"HR@10, NDCG@10 with {MORE}",
            f"with {MORE} of items of {CORE} rows, at least",
        ]
    data: dict[str, dict[str, Any]] = {}
    table = Table(log.title, columns, [], log=log.title)
    for job in jobs:
        first = runner.record(job)
        theirs = printed.get(job.label, {}).get(log.name)
        if not isinstance(first, Record):
            if theirs:
                _add_not_run(table, job.label, first, theirs)
            data[job.label] = {"not run": first}
            continue
        records = trainings_of(job, runner)
        unlike = _unlike_the_papers(log, job)
        beside = None if unlike else theirs
        cells = {
            metric: of_metric(records, metric, beside[place] if beside else None)
            for place, metric in enumerate(METRICS)
        }
        row = _row(job, log, records, list(cells.values()), runner.seconds(job))
        data[job.label] = _data(records, cells)
        if theirs and unlike:
            for place, value in enumerate(theirs, 1):
                row[place] += f"; paper {number(value)}: {unlike}"
                table.marks[len(table.rows), place] = unlike
        if not printed:
            more = {
                f"with {MORE} negatives": with_more(log, records),
                f"with {MORE} negatives of {CORE} rows": with_more(log, records, CORE),
            }
            data[job.label] |= more
            place = len(METRICS) + 1
            row[place:place] = [", ".join(map(number, of)) if of else "" for of in more.values()]
        table.rows.append(row)
        for place, found in enumerate(cells.values(), 1):
            if found.verdict:
                table.marks[len(table.rows) - 1, place] = found.verdict
    return table, data


def _unlike_the_papers(log: StudyLog, job: Job) -> str:
    """Why a job's figures get no verdict beside the paper's; nothing where they do."""
    if not log.is_the_papers:
        return OTHER
    k = dict(job.settings).get("model.embedding_dim", paper.DIM)
    return SMALLER if job.model == "comet" and k < paper.DIM else ""


def _row(
    job: Job, log: StudyLog, records: list[Record], cells: list[Cell], seconds: float
) -> list[str]:
    row = [job.label]
    for found in cells:
        text = f"{number(found.ours)} ± {number(found.error)}"
        if found.difference is not None and found.paper is not None:
            text += f"; paper {number(found.paper)}, {found.difference:+.3f}: {found.verdict}"
        row.append(text)
    full = [of_full(records, metric) for metric in FULL]
    shown = [f"{cell.ours:.4f} ± {cell.error:.4f}" if cell else "" for cell in full]
    shown = [f"{text}{sample_of_users(records[0])}" for text in shown]
    epochs = epochs_told(job, log, records)
    return [*row, *shown, seeds_told(job, records), epochs, f"{seconds:,.0f}"]


def _data(records: list[Record], cells: dict[str, Cell]) -> dict[str, Any]:
    kept = ("seed", "epochs", "train_seconds", "validation", "sampled", "full", "settings")
    some = ("machine",)  # not in records from before it was kept
    runs = [
        {key: record.values[key] for key in kept}
        | {key: record.values[key] for key in some if key in record.values}
        for record in records
    ]
    return {
        "cells": {m: {**asdict(c), "difference": c.difference} for m, c in cells.items()},
        "runs": runs,
        "versions": records[0].values["versions"],
        "protocol": records[0].values["protocol"]["hash"],
    }


def verdicts(section: Section) -> dict[str, int]:
    """How many cells have which verdict."""
    return dict(Counter(mark for table in section.tables for mark in table.marks.values()))

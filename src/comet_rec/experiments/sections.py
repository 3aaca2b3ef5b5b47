"""The parts of a report: from records to tables of text, raw figures, and what to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from comet_rec.evaluation.paired import holm, paired
from comet_rec.experiments import paper
from comet_rec.experiments.jobs import Job, Record
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.paper import METRICS, Cell
from comet_rec.experiments.runner import Runner


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
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    marks: dict[tuple[int, int], str] = field(default_factory=dict)


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
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """Three decimals and no zero before the point, as the paper prints."""
    return f"{value:.3f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.3f}"


def table_1(logs: Sequence[StudyLog]) -> Section:
    """Table I: users, items, interactions and density of each log."""
    columns = ["data set", "users", "items", "interactions", "density", "the paper's", "verdict"]
    table = Table("", columns, [])
    data: dict[str, Any] = {}
    for log in logs:
        theirs = paper.LOGS.get(log.name)
        printed = "" if theirs is None else ", ".join(f"{n:,}" for n in theirs.counts)
        if log.split is None:
            table.rows.append([log.title, "", "", "", "", printed, f"not run: {log.why}"])
            data[log.name] = {"not run": log.why}
            continue
        of = log.split.interactions
        verdict = "" if theirs is None else "equal" if log.is_the_papers else "another log"
        counts = of.n_users, of.n_items, len(of)
        row = [log.title, *(f"{n:,}" for n in counts), f"{of.density:.5f}", printed, verdict]
        table.rows.append(row)
        data[log.name] = {
            "users": of.n_users, "items": of.n_items, "interactions": len(of),
            "density": of.density, "verdict": verdict, "notes": list(of.notes),
            "protocol": log.split.hash,
        }  # fmt: skip
    text = ["Users, items, interactions and density of each log, after its filter."]
    return Section("table1", "Table I: data sets", text, [table], [], data)


def beside_the_paper(
    name: str,
    title: str,
    printed: dict[str, dict[str, paper.Four]],
    logs: Sequence[tuple[StudyLog, list[Job]]],
    runner: Runner,
) -> Section:
    """A table of the paper: four figures of each model on each log, a verdict in each cell."""
    text = "Each cell: the mean over training seeds ± one standard error (over users and seeds)"
    if printed:
        text += (
            "; the paper's figure; the verdict. Reproduced: the two differ by no more than 1.96 "
            "standard errors of their difference, the paper's taken from the binomial"
        )
    section = Section(name, title, [f"{text}."])
    for log, jobs in logs:
        if log.split is None:
            section.tables.append(_not_run(log, printed))
            section.data[log.name] = {"not run": log.why}
            continue
        table, data = _cells(log, jobs, printed, runner)
        section.tables.append(table)
        section.data[log.name] = data
    return section


def _not_run(log: StudyLog, printed: dict[str, dict[str, paper.Four]]) -> Table:
    table = Table(log.title, ["model", *METRICS], [])
    for label, columns in printed.items():
        if log.name in columns:
            cells = [f"paper {number(value)}; not run" for value in columns[log.name]]
            table.rows.append([label, *cells])
            row = len(table.rows) - 1
            table.marks |= {(row, place): "not run" for place in range(1, len(METRICS) + 1)}
    table.title += f" (not run: {log.why})"
    return table


def _cells(
    log: StudyLog, jobs: list[Job], printed: dict[str, dict[str, paper.Four]], runner: Runner
) -> tuple[Table, dict[str, Any]]:
    columns = ["model", *METRICS, "full NDCG@10", "seeds", "epochs", "seconds a seed"]
    table, data = Table(log.title, columns, []), {}
    for job in jobs:
        first = runner.record(job)
        if not isinstance(first, Record):
            table.rows.append([job.label, f"not run: {first}", *[""] * (len(columns) - 2)])
            table.marks[len(table.rows) - 1, 1] = "not run"
            data[job.label] = {"not run": first}
            continue
        records = runner.seeds_of(job)
        theirs = printed.get(job.label, {}).get(log.name) if log.is_the_papers else None
        cells = {
            metric: of_metric(records, metric, theirs[place] if theirs else None)
            for place, metric in enumerate(METRICS)
        }
        table.rows.append(_row(job, records, list(cells.values())))
        for place, found in enumerate(cells.values(), 1):
            if found.verdict:
                table.marks[len(table.rows) - 1, place] = found.verdict
        data[job.label] = _data(records, cells)
    return table, data


def of_metric(records: Sequence[Record], metric: str, theirs: float | None = None) -> Cell:
    """Cell of a sampled figure over the seeds that are there."""
    values = [float(record.values["sampled"][metric]) for record in records]
    errors = [float(record.values["sampled_se"][metric]) for record in records]
    return paper.cell(values, errors, int(records[0].values["n_users"]), theirs)


def _row(job: Job, records: list[Record], cells: list[Cell]) -> list[str]:
    row = [job.label]
    for found in cells:
        text = f"{number(found.ours)} ± {number(found.error)}"
        if found.paper is not None:
            text += f"; paper {number(found.paper)}: {found.verdict}"
        row.append(text)
    values = [record.values for record in records]
    full = [v["full"]["NDCG@10"] for v in values if v["full"] is not None]
    ranked = values[0]["n_users_full"]
    shown = f"{sum(full) / len(full):.4f}" if full else ""
    if full and ranked != values[0]["n_users"]:
        shown += f" ({ranked:,} users)"
    seconds = sum(v["train_seconds"] for v in values) / len(values)
    epochs = ", ".join(str(v["epochs"]) for v in values)
    return [*row, shown, str(len(records)), epochs, f"{seconds:,.0f}"]


def _data(records: list[Record], cells: dict[str, Cell]) -> dict[str, Any]:
    kept = ("seed", "epochs", "train_seconds", "validation", "sampled", "full", "settings")
    return {
        "cells": {m: {**asdict(c), "difference": c.difference} for m, c in cells.items()},
        "runs": [{key: record.values[key] for key in kept} for record in records],
        "versions": records[0].values["versions"],
        "protocol": records[0].values["protocol"]["hash"],
    }


def verdicts(section: Section) -> dict[str, int]:
    """How many cells have which verdict."""
    found: dict[str, int] = {}
    for table in section.tables:
        for mark in table.marks.values():
            found[mark] = found.get(mark, 0) + 1
    return found


def against_first(
    name: str, title: str, text: list[str], logs: Sequence[tuple[StudyLog, list[Job]]],
    runner: Runner,
) -> Section:  # fmt: skip
    """Models beside the first of them: figures, paired differences, bars (Figures 3, 4, …)."""
    section = Section(name, title, list(text))
    section.text.append(
        "± is one standard error over users; in brackets the 95 % interval of the paired "
        "difference over users; p is Wilcoxon's after Holm's correction."
    )
    for log, jobs in logs:
        if log.split is None:
            section.text.append(f"{log.title}: not run: {log.why}.")
            continue
        table, data = differences(log, jobs, runner)
        section.tables.append(table)
        section.data[log.name] = data
        if data:
            caption = f"{title}, {log.title}; bars are ± 1.96 standard errors over users"
            drawn = {"models": data, "metrics": ["HR@10", "NDCG@10"]}
            section.drawings.append(Drawing(f"{name}-{log.name}", "bars", caption, drawn))
    return section


def differences(
    log: StudyLog, jobs: list[Job], runner: Runner
) -> tuple[Table, dict[str, dict[str, Any]]]:
    """Figures of each model and its paired difference from the first."""
    first = runner.record(jobs[0])
    columns = ["model", "HR@10", "NDCG@10", "full NDCG@10", f"NDCG@10 − {jobs[0].label}", "p"]
    table, data = Table(log.title, columns, []), {}
    found = [(job, runner.record(job)) for job in jobs]
    tests = {}
    for job, record in found[1:]:
        if isinstance(record, Record) and isinstance(first, Record):
            tests[job.label] = paired(record.of_users("NDCG@10"), first.of_users("NDCG@10"))
    corrected = dict(zip(tests, holm([t.wilcoxon for t in tests.values()]), strict=True))
    for job, record in found:
        if not isinstance(record, Record):
            table.rows.append([job.label, f"not run: {record}", *[""] * (len(columns) - 2)])
            continue
        values, row = record.values, [job.label]
        for metric in ("HR@10", "NDCG@10"):
            row.append(
                f"{number(values['sampled'][metric])} ± {number(values['sampled_se'][metric])}"
            )
        row.append(f"{values['full']['NDCG@10']:.4f}" if values["full"] else "")
        test = tests.get(job.label)
        if test is None:
            row += ["", ""]
        else:
            p = corrected[job.label]
            row.append(f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]")
            row.append("< 0.001" if p < 0.001 else f"{p:.3f}")
        table.rows.append(row)
        data[job.label] = {
            "sampled": values["sampled"], "sampled_se": values["sampled_se"],
            "full": values["full"], "epochs": values["epochs"],
            "train_seconds": values["train_seconds"],
            "difference": None if test is None else {**asdict(test), "holm": corrected[job.label]},
        }  # fmt: skip
    return table, data

"""Sections of a report on the study: what was run, searches, settings, the audit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comet_rec import renamed
from comet_rec.config import Config
from comet_rec.evaluation.audit import Finding, as_data
from comet_rec.evaluation.ranking import caution
from comet_rec.experiments.jobs import Job, with_seed
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.plans import NON_ITERATIVE
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import records_of, seeds_text, titled
from comet_rec.experiments.tables import (
    NOT_RUN,
    STATUSES,
    Cell,
    Section,
    Table,
    number,
)
from comet_rec.experiments.tuning import Trial, history

VALIDATION = "validation NDCG@10"

SHOWN_SETTINGS: dict[str, str] = {
    "K": "model.embedding_dim",
    "N": "model.history_length",
    "loss": "train.loss",
    "negatives": "train.negatives",
    "of a pool": "train.negative_pool",
    "batch": "train.batch_size",
    "of a user": "train.positives_per_user",
    "rate": "train.learning_rate",
    "decay": "train.weight_decay",
    "own dropout": "model.id_embedding_dropout",
    "left out": "model.history_dropout",
    "averaging": "train.average",
    "most epochs": "train.epochs",
    "refit": "train.refit",
}
"""Column of the settings table → dotted key of the setting.

A cell is empty if a model does not have the setting.
"""


def what_was_run(parts: Sequence[Section], logs: Sequence[StudyLog]) -> Section:
    """Section that counts, by part and log, the rows that were run and their cells by status.

    `parts` are the other sections of the report.
    """
    section = titled("summary")
    for log in logs:
        if log.split is None:
            section.text.append(f"{log.title}: {NOT_RUN}: {log.why}.")
    for log in logs:
        if log.split is not None:
            section.text += [f"{log.title}: {line}." for line in caution(len(log.split.test))]
    table = Table("", ["part", *(log.title for log in logs)], [])
    for part in parts:
        cells = [_rows_run(part, log) for log in logs]
        if any(cells):
            table.rows.append([part.title, *cells])
    section.tables.append(table)
    return section


def _rows_run(part: Section, log: StudyLog) -> str:
    """Text on a part and a log: the number of rows that were run, and of cells by status."""
    rows = [row for table in part.tables if table.log == log.title for row in table.texts]
    done = sum(not any(NOT_RUN in cell for cell in row[1:]) for row in rows)
    statuses = part.statuses_of(log.title)
    counts = [f"{n} {status}" for status in STATUSES if (n := statuses[status])]
    total = len(rows) + part.missing.get(log.title, 0)
    if total:
        return "; ".join([f"{done} of {total} rows", *counts])
    drawn = any(log.title in drawing.panels for drawing in part.drawings)
    return "drawn" if drawn else ""


def searches(journals: Sequence[Path], used: Mapping[str, Sequence[str]]) -> Section:
    """Section on searches for settings.

    It has a table for each journal, and the best value of each search over time.

    Parameters
    ----------
    journals : list of Path
        Files to which `tune` wrote the trials of its searches.
    used : mapping
        Title of a log → its models that take their settings from these journals.

    Raises
    ------
    ConfigError
        If a file is not a journal, or if Optuna is not installed.
    """
    section = titled("searches")
    section.text += [
        f"{title}: in the tables of algorithms {', '.join(models)} have the best settings found."
        for title, models in used.items()
        if models
    ]
    columns = ["model", "trials", "stopped early", "cut", "seconds", VALIDATION, "settings"]
    panels: dict[str, dict[str, list[list[float]]]] = {}
    for journal in journals:
        table = Table(journal.name, columns, [])
        rising: dict[str, list[list[float]]] = {}
        for search in history(journal):
            model, trials, best = search.model, search.trials, search.best
            if best is None:
                table.rows.append([model, "0", "0", "0", "", "", "no trial finished"])
                continue
            settings = renamed.settings({**search.begun.get("fixed", {}), **best.settings})
            full = search.selection_metric == "full"
            stopped, cut = sum(t.stopped_early for t in trials), sum(t.cut for t in trials)
            table.rows.append(
                [
                    model, str(len(trials)), str(stopped), str(cut),
                    f"{sum(trial.seconds for trial in trials):,.0f}",
                    f"{best.value:.4f} (full)" if full else number(best.value),
                    ", ".join(f"{key} = {value}" for key, value in settings.items()),
                ]
            )  # fmt: skip
            rising[f"{model} (full)" if full else model] = _best_so_far(trials)
        section.tables.append(table)
        panels[journal.name] = rising
        stem = re.sub(r"[^\w.-]", "-", journal.stem)
        section.data[f"searches-{len(panels)}-{stem}"] = rising
    section.draw(
        "lines", f"Best {VALIDATION} over the seconds of each search", panels,
        x="seconds of trials", y=VALIDATION, drawstyle="steps-post",
    )  # fmt: skip
    return section


def _best_so_far(trials: Sequence[Trial]) -> list[list[float]]:
    """For each trial, the seconds spent until its end, and the best value until then."""
    spent, best, points = 0.0, 0.0, []
    for trial in trials:
        spent += trial.seconds
        best = max(best, trial.value)
        points.append([round(spent, 1), best])
    return points


def settings(logs: Sequence[StudyLog], runner: Runner) -> Section:
    """Section with a table for each log: settings and seconds of each recorded training."""
    section = titled("settings")
    columns = [
        "model", "preset", *SHOWN_SETTINGS, "else", "epochs", "seeds", "seconds", "machine"
    ]  # fmt: skip
    for log in logs:
        if log.split is None:
            continue
        jobs: dict[str, Job] = {}
        labels: dict[str, dict[str, None]] = {}
        for item in runner.items:
            job = with_seed(item.job, 0)
            record = runner.record(job)
            if job.log == log.name and isinstance(record, Record):
                jobs.setdefault(record.key, job)
                # Two labels may name one training; its row then has both.
                labels.setdefault(record.key, {})[job.label] = None
        table = Table(log.title, columns, [])
        for key, job in jobs.items():
            config = job.estimator().config_for(log.split.interactions)
            table.rows.append([", ".join(labels[key]), *_settings_row(job, config, runner)])
        section.add(table)
    return section


def _settings_row(job: Job, config: Config, runner: Runner) -> list[Cell | str]:
    """Cells of a training in the settings table, except the cell with its labels."""
    records = records_of(job, runner)
    shown = {column: _value(config, key) for column, key in SHOWN_SETTINGS.items()}
    if job.model in NON_ITERATIVE:
        shown = dict.fromkeys(SHOWN_SETTINGS, "")
    elif config.train.loss == "softmax":
        shown["negatives"] = shown["of a pool"] = ""
    epochs = ", ".join(str(record.values["epochs"]) for record in records)
    machines = dict.fromkeys(
        record.values.get("machine", {}).get("cpu", "not recorded") for record in records
    )
    return [
        config.preset, *shown.values(), _other_settings(config), epochs, seeds_text(job, records),
        f"{runner.seconds(job):,.0f}", ", ".join(machines),
    ]  # fmt: skip


def _other_settings(config: Config) -> str:
    """Text of the settings that differ from their defaults and have no column in the table."""
    shown = {"name", "preset", "seed", *SHOWN_SETTINGS.values()}
    rest = [line for line in config.changed() if line.split(" = ")[0] not in shown]
    return ", ".join(line.removeprefix("model.").removeprefix("train.") for line in rest)


def _value(config: Config, key: str) -> str:
    """Text of the setting `key`; empty if the model does not have it."""
    try:
        value: Any = config.get(key)
    except AttributeError:
        return ""
    return "yes" if value is True else "no" if value is False else f"{value}"


def audit(findings: Mapping[str, list[Finding]]) -> Section:
    """Section with the findings of the audit; a key names a log, or a log and a training."""
    section = titled("audit")
    for name, log_findings in findings.items():
        rows: list[list[Cell | str]] = [
            [finding.check, finding.severity, finding.message] for finding in log_findings
        ]
        section.add(Table(name, ["check", "severity", "finding"], rows))
        section.data[name] = as_data(log_findings)
    clean = [name for name, log_findings in findings.items() if not log_findings]
    if clean:
        section.text.append(f"Nothing was found in: {'; '.join(clean)}.")
    return section

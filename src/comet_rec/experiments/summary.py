"""What a report opens and ends with: what was run of the paper, and each training's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comet_rec.config import Config
from comet_rec.evaluation.ranking import caution
from comet_rec.experiments import paper
from comet_rec.experiments.budgets import CLOSED
from comet_rec.experiments.cells import seeds_told, trainings_of
from comet_rec.experiments.differences import HOW
from comet_rec.experiments.jobs import Job, Record, with_seed
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import OTHER, SMALLER, Section, Table

VERDICTS = ("reproduced", "better", "lower", OTHER, SMALLER, "not run")
"""Order in which cells are counted."""

COLUMNS: dict[str, str] = {
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
"""Settings that are shown of each training, as far as its model has them."""


def what_was_run(parts: Sequence[Section], logs: Sequence[StudyLog]) -> Section:
    """For each part and log: rows with figures, and the paper's cells by verdict."""
    section = Section("summary", "What was run")
    section.text = [
        "Reproduced means: not told apart from the paper's figure, |ours − paper's| ≤ 1.96 "
        "standard errors of their difference, as if the two had other users. On MovieLens-1M that "
        "is some .016, half of what lies between the paper's best and worst algorithm: a figure "
        "that is reproduced here would often be reproduced by the row of another model.",
        HOW,
        *(f"{log.title}: not run: {log.why}." for log in logs if log.split is None),
        *(
            f"{log.title}: {line}."
            for log in logs
            if log.split
            for line in caution(len(log.split.test))
        ),
    ]
    table = Table("", ["part", *(log.title for log in logs)], [])
    for part in parts:
        cells = [_rows_of(part, log) for log in logs]
        if any(cells):
            table.rows.append([part.title, *cells])
    section.tables.append(table)
    return section


def _rows_of(part: Section, log: StudyLog) -> str:
    own = [table for table in part.tables if table.log == log.title]
    rows = [row for table in own for row in table.rows]
    done = sum(not any("not run" in cell for cell in row[1:]) for row in rows)
    marks = [mark for table in own for mark in table.marks.values()]
    told = [f"{n} {verdict}" for verdict in VERDICTS if (n := marks.count(verdict))]
    every = len(rows) + part.missing.get(log.title, 0)
    if every:
        return "; ".join([f"{done} of {every} rows", *told])
    drawn = any(drawing.name == f"{part.name}-{log.name}" for drawing in part.drawings)
    return "drawn" if drawn else ""


def table_1(logs: Sequence[StudyLog]) -> Section:
    """Table I: users, items, interactions and density of each log."""
    columns = ["data set", "users", "items", "interactions", "density", "the paper's", "verdict"]
    table = Table("", columns, [])
    data: dict[str, Any] = {}
    for log in logs:
        theirs = paper.LOGS.get(log.name)
        printed = "" if theirs is None else ", ".join(f"{n:,}" for n in theirs.counts)
        if log.split is None:
            table.rows.append([log.title, "", "", "", "", printed, "not run"])
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


def settings(logs: Sequence[StudyLog], runner: Runner) -> Section:
    """Settings of each training that is there, and what it took."""
    section = Section("settings", "Settings of each training")
    section.text.append(
        "The paper has four negatives, no dropout of own embeddings, no rows left out, no "
        "averaging of parameters, and no word on batches. Of a pool: from how many random items a "
        "batch draws its negatives, 0 for all. Of a user: how many positives come together. Left "
        "out: the largest share of a history's other rows that a training step hides, so that a "
        "missing target does not stand out. Else: what is not at its default and has no column "
        "(docs/settings). Seconds are of one seed, with what it starts from, on a machine that "
        "other work shared."
    )
    columns = ["model", "preset", *COLUMNS, "else", "epochs", "seeds", "seconds", "machine"]
    for log in logs:
        found: dict[str, tuple[Job, list[str]]] = {}
        for item in runner.items:
            job = with_seed(item.job, 0)
            record = runner.record(job)
            if log.split is not None and job.log == log.name and isinstance(record, Record):
                labels = found.setdefault(record.folder.name, (job, []))[1]
                labels += [job.label] if job.label not in labels else []
        table = Table(log.title, columns, [])
        for job, labels in found.values():
            assert log.split is not None
            config = job.estimator().config_for(log.split.interactions)
            table.rows.append([", ".join(labels), *_row(job, config, runner)])
        if table.rows:
            section.tables.append(table)
    return section


def _row(job: Job, config: Config, runner: Runner) -> list[str]:
    records = trainings_of(job, runner)
    if job.model in CLOSED:
        shown = [""] * len(COLUMNS)
    else:
        shown = [_plain(config, key) for key in COLUMNS.values()]
        if config.train.loss == "softmax":
            for column in ("negatives", "of a pool"):
                shown[list(COLUMNS).index(column)] = ""
    epochs = ", ".join(str(record.values["epochs"]) for record in records)
    machines = dict.fromkeys(
        record.values.get("machine", {}).get("cpu", "not recorded") for record in records
    )
    seconds = f"{runner.seconds(job):,.0f}"
    return [
        config.preset, *shown, _else(config), epochs, seeds_told(job, records), seconds,
        ", ".join(machines),
    ]  # fmt: skip


def _else(config: Config) -> str:
    """Settings that are not at their defaults and have no column of their own."""
    told = {"name", "preset", "seed", *COLUMNS.values()}
    rest = [line for line in config.changed() if line.split(" = ")[0] not in told]
    return ", ".join(line.removeprefix("model.").removeprefix("train.") for line in rest)


def _plain(config: Config, key: str) -> str:
    try:
        value: Any = config.get(key)
    except AttributeError:  # a model without it
        return ""
    return "yes" if value is True else "no" if value is False else f"{value}"

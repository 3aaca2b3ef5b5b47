"""Sections that hold models against the first of them, user by user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from comet_rec.evaluation.paired import holm, paired
from comet_rec.experiments.jobs import Job, Record
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import Drawing, Section, Table, number


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

"""What the audit says of a study's splits, and of what its trainings are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comet_rec.data.split import Split
from comet_rec.errors import DataError
from comet_rec.evaluation.audit import audit, audit_shown, shown_by
from comet_rec.evaluation.audit.findings import Finding, as_data
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.sections import Section, Table

Findings = Mapping[str, list[Finding]]
"""By the log, or the log and the training."""


def of_splits(splits: Mapping[str, Split]) -> dict[str, list[Finding]]:
    """Findings about each log and split.

    Raises
    ------
    DataError
        When one has a fault that would make its figures worthless.
    """
    found = {name: audit(split) for name, split in splits.items()}
    _refuse_faults(found)
    return found


def of_trainings(jobs: Iterable[Job], splits: Mapping[str, Split]) -> dict[str, list[Finding]]:
    """Findings about the training batches of each kind that the jobs draw.

    A target that a setting keeps in the history on purpose is a finding as any other; the report
    shows it.

    Raises
    ------
    DataError
        When a training would be shown its answer though its settings leave it out.
    """
    kinds: dict[tuple[str, Any], Job] = {}
    for job in jobs:
        config = job.estimator().config_for(splits[job.log].interactions)
        if (kind := shown_by(config)) is not None:
            kinds.setdefault((job.log, kind), job)
    found: dict[str, list[Finding]] = {}
    undeclared: dict[str, list[Finding]] = {}
    for (log, (settings, *_)), job in kinds.items():
        config = job.estimator().config_for(splits[log].interactions)
        name = f"{log}, training batches of {job.label}"
        found[name] = audit_shown(splits[log], config)
        if settings.exclude_target:
            undeclared[name] = found[name]
    _refuse_faults(undeclared)
    return found


def _refuse_faults(findings: Findings) -> None:
    for name, found in findings.items():
        faults = [one for one in found if one.severity == "error"]
        if faults:
            raise DataError(f"{name}: {faults[0].check}: {faults[0].message}")


def section(findings: Findings) -> Section:
    """The page of a report."""
    made = Section("audit", "Audit of the logs, the splits and the training batches")
    made.text.append(
        "What `comet-rec audit` says of each; errors would have ended the run, but where a study "
        "keeps the target in the history on purpose."
    )
    for name, found in findings.items():
        rows = [[one.check, one.severity, one.message] for one in found]
        if rows:
            made.tables.append(Table(name, ["check", "severity", "finding"], rows))
        made.data[name] = as_data(found)
    clean = [name for name, found in findings.items() if not found]
    if clean:
        made.text.append(f"Nothing was found in: {'; '.join(clean)}.")
    return made

"""Study that repeats the paper's tables and figures, and shows our metrics beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from comet_rec.artefact.provenance import machine, versions
from comet_rec.data.split import Split, leave_one_out
from comet_rec.errors import DataError
from comet_rec.evaluation.audit import Finding, audit, audit_shown, shown_by
from comet_rec.experiments import paper, reliability, sections, summary
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.logs import TIE_ORDERS, StudyLog, has_ties, reordered, tied_share
from comet_rec.experiments.plans import ONE_SEED, SEVERAL_SEEDS, Budget, JobsOf, Planner
from comet_rec.experiments.records import Record
from comet_rec.experiments.report import Report, write
from comet_rec.experiments.runner import Item, Runner, plain
from comet_rec.experiments.tables import Section
from comet_rec.experiments.tuning import searched_on

SAME = {"table3": "table2", "table5": "table4"}
"""Part of a report → the other part whose section contains it."""


@dataclass
class Study:
    """A study: the parts, logs and settings of its report, and the queue of its trainings.

    Parameters
    ----------
    parts : list of str
        Names of the parts of the report, from `plans.PARTS`.
    logs : list of StudyLog
    budget : Budget
    seeds : int
        Number of training seeds for tables and falsifications.
    folder : Path
        Folder of the report, with trainings in `runs` and their metrics in `records`.
    tell : callable
        Called after each training, with its `Item` and all items of the queue.
    stop : callable
        Returns True to stop after the current step.
    journals : list of Path
        Journals, that is, files of searches for settings. The report shows each search. A search on
        a log of the study also gives settings.
    only : list of str
        Labels of the models to train; empty for all. The report shows existing records of the other
        models.
    device : str
        Device of the trainings. A record counts for every device.
    recorded : bool
        Train nothing, and report existing records.
    """

    parts: Sequence[str]
    logs: Sequence[StudyLog]
    budget: Budget
    seeds: int
    folder: Path
    tell: Callable[[Item, Sequence[Item]], None] = lambda item, items: None
    stop: Callable[[], bool] = lambda: False
    journals: Sequence[Path] = ()
    only: Sequence[str] = ()
    device: str = "cpu"
    recorded: bool = False
    findings: dict[str, list[Finding]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.splits = {log.name: log.split for log in self.logs if log.split is not None}
        self.searched = {
            name: [searched_on(self.journals, split, "paper", by) for by in ("sampled", "full")]
            for name, split in self.splits.items()
        }
        self.orders = {log.name: self._orders(log) for log in self.logs if "ties" in self.parts}
        self.runner = Runner(
            self.splits, self.folder, self.seeds, self.tell, stop=self.stop, only=self.only,
            device=self.device, recorded=self.recorded,
        )  # fmt: skip

    def _orders(self, log: StudyLog) -> dict[str, str]:
        """Copies of a log that order rows with equal times differently: order → name of the copy.

        The splits of the copies are added to `splits`. The result is empty if no times are equal.
        """
        if log.split is None or not has_ties(log.split.interactions):
            return {}
        names = {"file": log.name}
        for order in TIE_ORDERS:
            names[order] = f"{log.name}-{order}-ties"
            self.splits[names[order]] = leave_one_out(reordered(log.split.interactions, order))
        return names

    def planner(self, name: str) -> Planner:
        """Planner that makes the jobs of each part on the log `name`."""
        log, searched = self.splits[name].interactions, self.searched.get(name, [])
        return Planner(name, log, self.budget, *searched)

    def each(self, jobs_of: JobsOf) -> list[tuple[StudyLog, list[Job]]]:
        """Each log, with the jobs that `jobs_of` makes for it.

        A log that could not be read has no jobs.
        """
        return [(log, jobs_of(self.planner(log.name)) if log.split else []) for log in self.logs]

    def check(self) -> None:
        """Audit the splits and the training batches of all queued jobs. Call it before training.

        Raises
        ------
        DataError
            If the audit finds a fault that would make metrics worthless.
        """
        jobs = [item.job for item in self.runner.items]
        self.findings = audit_splits(self.splits) | audit_trainings(jobs, self.splits)

    def queue(self) -> None:
        """Add the jobs of all parts to the queue, first those with several seeds."""
        for several, group in ((True, SEVERAL_SEEDS), (False, ONE_SEED)):
            asked = (jobs_of for name, jobs_of in group.items() if name in self.parts)
            for jobs_of in dict.fromkeys(asked):
                for _, jobs in self.each(jobs_of):
                    self.runner.add(jobs, seeded=several)
        for orders in self.orders.values():
            for name in orders.values():
                self.runner.add(self.planner(name).ties())

    def report(self, command: str) -> Report:
        """Report of all jobs that are finished so far, made by `command`."""
        names = dict.fromkeys(SAME.get(name, name) for name in self.parts)
        parts = [self._section(name) for name in names]
        everything = [summary.what_was_run(parts, self.logs), *parts]
        if self.journals:
            used = {log.title: self.planner(log.name).taken() for log in self.logs if log.split}
            everything.append(summary.searches(self.journals, used))
        everything += [summary.settings(self.logs, self.runner), summary.audit(self.findings)]
        return Report(
            title="COMET (arXiv 2007.14129v1), reproduced",
            note=sections.paragraphs(f"budget-{self.budget.name}"),
            command=command,
            sections=everything,
            warning=self.budget.warning,
            queue=[plain(item) for item in self.runner.items],
            about={
                "budget": self.budget.name,
                "seeds": self.seeds,
                "versions": versions(),
                "machine": machine(),
            },
        )

    def _section(self, name: str) -> Section:
        """Section of the report for the part `name`."""
        runner = self.runner
        if name == "table1":
            return sections.table_1(self.logs)
        if name in ("table2", "table4", "beyond", "ablation"):
            jobs = self.each(self._steps if name == "ablation" else SEVERAL_SEEDS[name])
            printed = {"table2": paper.ALGORITHMS, "table4": paper.FILTERS}.get(name, {})
            section = sections.algorithms_table(name, printed, jobs, runner)
            if name != "table4":
                # The paper's COMET comes first, as the reference of the differences.
                for _, of_log in jobs:
                    of_log.sort(key=lambda job: job.label != "COMET")
                sections.add_differences(section, jobs, runner, stepwise=name == "ablation")
            return section
        if name == "figure5":
            return sections.figure_5(self.each(Planner.figure_5), runner)
        if name == "figure6":
            grids = [
                (log, self.planner(log.name).figure_6() if log.split else {}) for log in self.logs
            ]
            return sections.figure_6(grids, runner)
        if name == "reliability":
            return reliability.reliability(self.each(Planner.algorithms), runner)
        if name == "ties":
            return self._ties()
        jobs_of = SEVERAL_SEEDS.get(name) or ONE_SEED[name]
        return sections.compared(name, self.each(jobs_of), runner)

    def _steps(self, planner: Planner) -> list[Job]:
        """Jobs of the ablation.

        If the row above a job was not run, the job's label says that it includes the steps of that
        row.
        """
        jobs = planner.ablation()
        there = [isinstance(self.runner.record(job), Record) for job in jobs]
        return [
            replace(job, label=f"{job.label}, and the steps not run above it")
            if here and not above
            else job
            for job, here, above in zip(jobs, there, [True, *there], strict=False)
        ]

    def _ties(self) -> Section:
        """Section that compares models under several orders of equal times."""
        tied_logs = []
        for log in self.logs:
            orders = self.orders.get(log.name, {})
            if log.split is not None and orders:
                jobs = {order: self.planner(name).ties() for order, name in orders.items()}
                tied_logs.append((log, tied_share(log.split.interactions), jobs))
        return reliability.ties(tied_logs, self.runner)


def audit_splits(splits: Mapping[str, Split]) -> dict[str, list[Finding]]:
    """Audit each split; the keys are names of logs.

    Raises
    ------
    DataError
        If the audit finds a fault that would make metrics worthless.
    """
    findings = {name: audit(split) for name, split in splits.items()}
    _refuse_errors(findings)
    return findings


def audit_trainings(jobs: Iterable[Job], splits: Mapping[str, Split]) -> dict[str, list[Finding]]:
    """Audit the training batches of the jobs.

    Jobs on one log with equal settings of the batches are audited once. If the settings keep the
    target in the history on purpose, the report has a finding, but there is no error.

    Raises
    ------
    DataError
        If a history contains the target although the settings exclude the target.
    """
    kinds: dict[tuple[str, Any], Job] = {}
    for job in jobs:
        config = job.estimator().config_for(splits[job.log].interactions)
        if (kind := shown_by(config)) is not None:
            kinds.setdefault((job.log, kind), job)
    findings: dict[str, list[Finding]] = {}
    unintended: dict[str, list[Finding]] = {}
    for (log, (settings, *_)), job in kinds.items():
        config = job.estimator().config_for(splits[log].interactions)
        name = f"{log}, training batches of {job.label}"
        findings[name] = audit_shown(splits[log], config)
        if settings.exclude_target:
            unintended[name] = findings[name]
    _refuse_errors(unintended)
    return findings


def _refuse_errors(findings: Mapping[str, list[Finding]]) -> None:
    """Raise a DataError for the first finding of severity "error"."""
    for name, named_findings in findings.items():
        for finding in named_findings:
            if finding.severity == "error":
                raise DataError(f"{name}: {finding.check}: {finding.message}")


def reproduce(study: Study, command: str, *, figures: bool = True) -> Report:
    """Run the jobs of a study that have no record, and write the report.

    A further call continues a stopped study.

    Parameters
    ----------
    study : Study
    command : str
        Command that the report names as its source.
    figures : bool
        Draw the figures (needs matplotlib).

    Raises
    ------
    DataError
        If the audit finds an error in a split or in training batches.
    ConfigError
        If a label in `only` belongs to no job of the parts.
    TrainingInterrupted
        When `stop` returns True; the report then shows the finished jobs.
    """
    study.queue()
    study.runner.check()
    study.check()
    try:
        study.runner.run()
    finally:
        report = study.report(command)
        write(report, study.folder, figures=figures)
    return report

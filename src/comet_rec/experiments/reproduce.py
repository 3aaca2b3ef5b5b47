"""The paper's tables and figures, side by side with ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from comet_rec.artefact.provenance import machine, versions
from comet_rec.data.split import leave_one_out
from comet_rec.evaluation.audit.findings import Finding
from comet_rec.experiments import audits, differences, paper, sections, summary, trust
from comet_rec.experiments.budgets import Budget
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.journal import searched_on
from comet_rec.experiments.logs import TIE_ORDERS, StudyLog, has_ties, reordered, tied_share
from comet_rec.experiments.parts import ALONE, SEEDED, Of
from comet_rec.experiments.queue import plain
from comet_rec.experiments.records import Record
from comet_rec.experiments.report import Report, write
from comet_rec.experiments.runner import Board, Runner
from comet_rec.experiments.searches import searches
from comet_rec.experiments.sections import Section
from comet_rec.experiments.studies import Planner
from comet_rec.experiments.texts import TEXTS, paragraphs

LogsJobs = list[tuple[StudyLog, list[Job]]]
Printed = dict[str, dict[str, paper.Four]]


@dataclass
class Study:
    """A report in the making.

    Parameters
    ----------
    parts : list of str
    logs : list of StudyLog
    budget : Budget
    seeds : int
        Training seeds of the tables' models and of falsifications.
    folder : Path
        Of the report; trainings go to `runs` in it, their figures to `records`.
    board : Board
    stop : callable
        True asks for a stop after the present step.
    journals : list of Path
        Of searches: shown, and where one was on a log of the study, its settings are taken.
    only : list of str
        Labels of the models to train; the report shows what is there of the others.
    device : str
        Where trainings compute; no part of what a training is known by.
    recorded : bool
        Train nothing: a report of what is there.
    """

    parts: Sequence[str]
    logs: Sequence[StudyLog]
    budget: Budget
    seeds: int
    folder: Path
    board: Board
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
            self.splits, self.folder, self.seeds, self.board, stop=self.stop, only=self.only,
            device=self.device, recorded=self.recorded,
        )  # fmt: skip

    def _orders(self, log: StudyLog) -> dict[str, str]:
        """Order of ties → name of the log that has it; adds those logs."""
        if log.split is None or not has_ties(log.split.interactions):
            return {}
        found = {"file": log.name}
        for order in TIE_ORDERS:
            found[order] = f"{log.name}-{order}-ties"
            self.splits[found[order]] = leave_one_out(reordered(log.split.interactions, order))
        return found

    def planner(self, name: str) -> Planner:
        """Jobs on one of the logs."""
        log, searched = self.splits[name].interactions, self.searched.get(name, [])
        return Planner(name, log, self.budget, *searched)

    def each(self, of: Of) -> LogsJobs:
        """Jobs of a part on every log; none where the log could not be had."""
        return [(log, of(self.planner(log.name)) if log.split else []) for log in self.logs]

    def wants(self, name: str) -> bool:
        """Whether this part was asked for."""
        return name in self.parts

    def check(self) -> None:
        """Audit the splits and what the queued trainings are shown, before any of them.

        Raises
        ------
        DataError
            When one has a fault that would make its figures worthless.
        """
        self.findings = audits.of_splits(self.splits)
        jobs = [item.job for item in self.runner.items]
        self.findings |= audits.of_trainings(jobs, self.splits)

    def queue(self) -> None:
        """Queue the jobs of all parts, the tables first."""
        for several, group in ((True, SEEDED), (False, ALONE)):
            wanted = (of for name, of in group.items() if self.wants(name))
            for of in dict.fromkeys(wanted):
                for _, jobs in self.each(of):
                    self.runner.add(jobs, seeded=several)
        for orders in self.orders.values():
            for name in orders.values():
                self.runner.add(self.planner(name).ties())

    def report(self, command: str) -> Report:
        """The report of what is finished so far."""
        build: dict[str, Callable[[], Section]] = {
            "table1": lambda: summary.table_1(self.logs),
            "table2": self._algorithms,
            "table4": lambda: self._seeded("table4", Planner.filters, paper.FILTERS),
            "figure3": lambda: self._against("figure3", Planner.figure_3),
            "figure4": lambda: self._against("figure4", Planner.figure_4),
            "figure5": lambda: trust.figure_5(self.each(Planner.figure_5), self.runner),
            "figure6": self._figure_6,
            "falsification": lambda: self._against("falsification", Planner.falsifications),
            "reliability": lambda: trust.reliability(self.each(Planner.algorithms), self.runner),
            "ties": self._ties,
            "beyond": lambda: self._seeded("beyond", Planner.beyond),
            "ablation": lambda: self._seeded("ablation", self._steps, stepwise=True),
            "falsification-best": lambda: self._against(
                "falsification-best", Planner.falsifications_of_best
            ),
        }
        same = {"table3": "table2", "table5": "table4"}
        parts = [
            build[name]() for name in dict.fromkeys(same.get(name, name) for name in self.parts)
        ]
        return Report(
            "COMET (arXiv 2007.14129v1), reproduced",
            self.budget.note,
            command,
            [
                summary.what_was_run(parts, self.logs),
                *parts,
                *self._searches(),
                summary.settings(self.logs, self.runner),
                audits.section(self.findings),
            ],
            self.budget.warning,
            [plain(item) for item in self.runner.items],
            {
                "budget": self.budget.name,
                "seeds": self.seeds,
                "versions": versions(),
                "machine": machine(),
            },
        )

    def _searches(self) -> list[Section]:
        used = {log.title: self.planner(log.name).taken() for log in self.logs if log.split}
        return [searches(self.journals, used)] if self.journals else []

    def _algorithms(self) -> Section:
        """Of the paper's table, with COMET as what the others are held against."""
        section = self._seeded("table2", Planner.algorithms, paper.ALGORITHMS)
        return self._with_differences(
            section, lambda planner: sorted(planner.algorithms(), key=lambda j: j.label != "COMET")
        )

    def _seeded(
        self, name: str, of: Of, printed: Printed | None = None, *, stepwise: bool = False,
    ) -> Section:  # fmt: skip
        """Figures over seeds; where the paper printed none, beside the first or the row above."""
        title, text = TEXTS[name]
        section = sections.beside_the_paper(name, title, printed or {}, self.each(of), self.runner)
        section.text = [*paragraphs(text), *section.text]
        return section if printed else self._with_differences(section, of, stepwise=stepwise)

    def _steps(self, planner: Planner) -> list[Job]:
        """The ablation; a row below some that were not run says that it has their steps too."""
        jobs = planner.ablation()
        there = [isinstance(self.runner.record(job), Record) for job in jobs]
        labels = [
            f"{job.label}, and the steps not run above it" if own and not above else job.label
            for job, own, above in zip(jobs, there, [True, *there], strict=False)
        ]
        return [replace(job, label=label) for job, label in zip(jobs, labels, strict=True)]

    def _with_differences(self, section: Section, of: Of, *, stepwise: bool = False) -> Section:
        """The section with each model's paired differences, over the same users."""
        against = differences.compared(
            section.name, section.title, [], self.each(of), self.runner, stepwise=stepwise
        )
        some = {  # without the model that the others are held against there is none
            log.title
            for log, _ in self.each(of)
            if any(
                any(row["differences"].values()) for row in against.data.get(log.name, {}).values()
            )
        }
        section.tables += [
            replace(table, title=f"{table.title}, differences", log="")
            for table in against.tables
            if table.title in some
        ]
        for name, data in against.data.items():
            section.data[name]["differences"] = {
                label: of["differences"] for label, of in data.items()
            }
        return section

    def _against(self, name: str, of: Of) -> Section:
        title, text = TEXTS[name]
        return differences.compared(name, title, paragraphs(text), self.each(of), self.runner)

    def _figure_6(self) -> Section:
        grids = [(log, self.planner(log.name).figure_6() if log.split else {}) for log in self.logs]
        return trust.figure_6(grids, self.runner)

    def _ties(self) -> Section:
        found = []
        for log in self.logs:
            orders = self.orders.get(log.name, {})
            if log.split is not None and orders:
                jobs = {order: self.planner(name).ties() for order, name in orders.items()}
                found.append((log, tied_share(log.split.interactions), jobs))
        return trust.ties(found, self.runner)


def reproduce(study: Study, command: str, *, figures: bool = True) -> Report:
    """Train what is not trained yet, and write the report; a stopped study is gone on with.

    Parameters
    ----------
    study : Study
    command : str
        What the report says made it.
    figures : bool
        Draw the figures (needs matplotlib).

    Raises
    ------
    DataError
        When the audit finds an error in a split, or in what a training is shown.
    ConfigError
        For a label in `only` that the parts do not have.
    TrainingInterrupted
        When a stop was asked for; the report holds what is finished.
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

"""Queue of a study: carries out its jobs one after the other, none of them twice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from comet_rec.config import unknown
from comet_rec.data.split import Split
from comet_rec.errors import CometError, ConfigError, TrainingInterrupted
from comet_rec.experiments.jobs import Job, carry_out, finished, trained, with_seed
from comet_rec.experiments.plans import NON_ITERATIVE
from comet_rec.experiments.records import Record

State = Literal["waiting", "running", "done", "failed", "left out"]
DEAR = 1_200.0
"""Seconds of one training, with the models it starts from, above which it gets one seed only."""


@dataclass
class Item:
    """A job's place in the queue.

    Parameters
    ----------
    job : Job
    state : str
    note : str
        Its figure, or why it was not run.
    seconds : float
        Seconds of training; 0 until it is done.
    rows : list of Job
        Rows that need its training: itself, where it is a row of a table, and what starts from it.
    """

    job: Job
    state: State = "waiting"
    note: str = ""
    seconds: float = 0.0
    rows: list[Job] = field(default_factory=list)


@dataclass
class Runner:
    """The queue of a study.

    Parameters
    ----------
    splits : mapping of str to Split
        By the name of the log.
    home : Path
        Folder of the study, with the records of finished jobs.
    seeds : int
        Training seeds of the jobs that are to have several.
    tell : callable
        Called with each item that has ended, and with the whole queue.
    stop : callable
        True asks for a stop after the present step.
    only : collection of str
        Labels of the jobs to carry out, with the models they start from and in every seed, however
        long they take; empty: all.
    device : str
        Where trainings compute.
    recorded : bool
        Train nothing: jobs without a record are left out.
    """

    splits: Mapping[str, Split]
    home: Path
    seeds: int
    tell: Callable[[Item, Sequence[Item]], None] = lambda item, items: None
    stop: Callable[[], bool] = lambda: False
    only: Collection[str] = ()
    device: str = "cpu"
    recorded: bool = False
    queue: dict[str, Item] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    def add(self, jobs: Sequence[Job], *, seeded: bool = False) -> None:
        """Queue jobs and the models they start from; a queued job keeps its place."""
        for seed in range(self.seeds if seeded else 1):
            # A model that draws nothing is trained once.
            for job in (job for job in jobs if seed == 0 or job.model not in NON_ITERATIVE):
                row = with_seed(job, seed)
                for each in (*row.starts, row):
                    self.queue.setdefault(self._key(each), Item(each)).rows.append(row)

    @property
    def items(self) -> list[Item]:
        """The queue: a first figure of everything, then further seeds."""
        return sorted(self.queue.values(), key=lambda item: item.job.seed)

    def _key(self, job: Job) -> str:
        return job.key(self.splits[job.log])

    def check(self) -> None:
        """Check `only` against the queue, before anything is trained or written.

        Raises
        ------
        ConfigError
            For a label that no job has; the nearest one is named.
        """
        labels = {job.label for item in self.items for job in (item.job, *item.rows)}
        for label in self.only:
            if label not in labels:
                raise ConfigError(unknown("model", label, sorted(labels)))

    def run(self) -> None:
        """Carry out all jobs that wait.

        Raises
        ------
        TrainingInterrupted
            When `stop` asked for it; what is finished stays finished.
        """
        for item in self.items:
            record = finished(item.job, self.splits[item.job.log], self.home)
            if record is not None:
                self._done(item, record)
        self._leave_out_unasked()
        for item in self.items:
            if item.state == "waiting" and not self._left_out(item):
                self._recall_weights(item.job.starts)
        for item in self.items:
            if item.state == "waiting" and not self._left_out(item):
                self._carry_out(item)
            self.tell(item, self.items)

    @property
    def failed(self) -> list[Item]:
        """Trainings that ended in an error; their notes say which."""
        return [item for item in self.items if item.state == "failed"]

    def record(self, job: Job) -> Record | str:
        """Record of a job, or the reason why there is none."""
        key = self._key(job)
        if key not in self.queue:
            return "not asked for"
        return self.records.get(key) or self.queue[key].note or "not run yet"

    def why_none(self, jobs: Sequence[Job]) -> str:
        """Why none of the jobs was carried out, where all were left out; else nothing."""
        queued = [self.queue.get(self._key(job)) for job in jobs]
        left_out = [item.note for item in queued if item and item.state == "left out"]
        return left_out[0] if left_out and len(left_out) == len(jobs) else ""

    def seeds_of(self, job: Job) -> list[Record]:
        """Records of all seeds of a job that are there."""
        records = [self.record(with_seed(job, seed)) for seed in range(self.seeds)]
        return [record for record in records if isinstance(record, Record)]

    def seconds(self, job: Job) -> float:
        """Mean seconds of a job's trainings that are there, with what they start from."""
        seeded = [with_seed(job, seed) for seed in range(self.seeds)]
        spent = [self._spent(one) for one in seeded if isinstance(self.record(one), Record)]
        return sum(spent) / max(len(spent), 1)

    def _spent(self, job: Job) -> float:
        """Seconds of a job and of what it starts from, as far as they are recorded."""
        records = [self.record(each) for each in (*job.starts, job)]
        return sum(float(r.values["train_seconds"]) for r in records if isinstance(r, Record))

    def _recall_weights(self, starts: Sequence[Job]) -> None:
        """Queue starts again that have a record but no weights: a waiting job needs the weights."""
        for start in starts:
            item = self.queue[self._key(start)]
            place = trained(start, self.splits[start.log], self.home)
            if item.state == "done" and not (place / "manifest.json").is_file():
                item.state, item.note, item.seconds = "waiting", "", 0.0

    def _done(self, item: Item, record: Record) -> None:
        self.records[self._key(item.job)] = record
        item.state, item.seconds = "done", float(record.values["train_seconds"])
        item.note = f"HR@10 {record.values['sampled']['HR@10']:.4f}"

    def _carry_out(self, item: Item) -> None:
        job = item.job
        for start in job.starts:
            if not isinstance(reason := self.record(start), Record):
                item.state, item.note = "failed", f"{start.label}: {reason}"
                return
        item.state, item.note = "running", ""
        try:
            record = carry_out(job, self.splits[job.log], self.home, self.stop, self.device)
        except TrainingInterrupted:
            raise
        except CometError as error:
            item.state, item.note = "failed", str(error)
            return
        self._done(item, record)
        if self.stop():
            raise TrainingInterrupted("stopped between two trainings")

    def _leave_out_unasked(self) -> None:
        for item in self.queue.values():
            if item.state != "waiting":
                continue
            if self.recorded:
                item.state, item.note = "left out", "not recorded yet"
            elif self.only and not self._asked(item):
                item.state, item.note = "left out", "not among those asked for"

    def _asked(self, item: Item) -> bool:
        return any(job.label in self.only for job in (item.job, *item.rows))

    def _left_out(self, item: Item) -> bool:
        """Whether the first seed of all rows that need a job took too long for a further one.

        The item then says so. A row that `only` names gets all seeds.
        """
        if item.job.seed == 0 or self._asked(item):
            return False
        if any(self._spent(with_seed(row, 0)) <= DEAR for row in item.rows):
            return False
        item.state = "left out"
        item.note = f"one seed: a training takes over {DEAR / 60:.0f} minutes"
        return True


def seconds_left(items: Sequence[Item]) -> float:
    """Seconds until the queue is empty.

    A training takes what the same model took on the same log before, else the mean of all.
    """
    spent: dict[tuple[str, str], list[float]] = {}
    for item in items:
        if item.state == "done":
            spent.setdefault((item.job.log, item.job.model), []).append(item.seconds)
    usual = [seconds for of_kind in spent.values() for seconds in of_kind] or [0.0]
    waiting = [item.job for item in items if item.state == "waiting"]
    return sum(mean(spent.get((job.log, job.model), usual)) for job in waiting)


def plain(item: Item) -> dict[str, Any]:
    """An item for a report."""
    return {
        "log": item.job.log,
        "label": item.job.label,
        "seed": item.job.seed,
        "state": item.state,
        "note": item.note,
        "seconds": round(item.seconds, 1),
    }

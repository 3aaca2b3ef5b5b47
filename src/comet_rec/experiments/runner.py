"""Queue of a study: runs its jobs one after the other, each of them once."""

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
"""A job that trains for more seconds than this, pre-training included, gets only one seed."""


@dataclass
class Item:
    """A job in the queue, and its state.

    Parameters
    ----------
    job : Job
    state : str
    note : str
        HR@10 of a finished job, or the reason why the job was not run.
    seconds : float
        Seconds of training; 0 until it is done.
    rows : list of Job
        Jobs in rows of tables that need this training: `job` itself, or jobs that it initialises.
    """

    job: Job
    state: State = "waiting"
    note: str = ""
    seconds: float = 0.0
    rows: list[Job] = field(default_factory=list)


@dataclass
class Runner:
    """The queue of a study. It runs jobs, that is trainings, one after the other.

    Parameters
    ----------
    splits : mapping of str to Split
        Name of a log → its split.
    home : Path
        Folder of the study, with the records of finished jobs.
    seeds : int
        Number of training seeds for jobs that get several.
    tell : callable
        Called after each job, with its `Item` and all items of the queue.
    stop : callable
        Returns True to stop after the current step.
    only : collection of str
        Labels of the jobs to run; empty for all jobs. These jobs, and the jobs that initialise
        them, run with every seed, however long they take.
    device : str
        Device of the trainings.
    recorded : bool
        Train nothing, and leave out jobs without a record.
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
        """Add jobs, and the jobs that initialise them, to the queue.

        With `seeded`, each job is added with every seed. A job that is in the queue keeps its
        position.
        """
        for seed in range(self.seeds if seeded else 1):
            # A non-iterative model draws nothing, so it is trained once.
            for job in (job for job in jobs if seed == 0 or job.model not in NON_ITERATIVE):
                row = with_seed(job, seed)
                for each in (*row.starts, row):
                    self.queue.setdefault(self._key(each), Item(each)).rows.append(row)

    @property
    def items(self) -> list[Item]:
        """Items in the order of running: all jobs with the first seed, then with further seeds."""
        return sorted(self.queue.values(), key=lambda item: item.job.seed)

    def _key(self, job: Job) -> str:
        return job.key(self.splits[job.log])

    def check(self) -> None:
        """Check that each label in `only` is that of a job in the queue. Call it before training.

        Raises
        ------
        ConfigError
            If a label belongs to no job; the message names the most similar label.
        """
        labels = {job.label for item in self.items for job in (item.job, *item.rows)}
        for label in self.only:
            if label not in labels:
                raise ConfigError(unknown("model", label, sorted(labels)))

    def run(self) -> None:
        """Run all jobs that have no record yet, and that are not left out.

        Raises
        ------
        TrainingInterrupted
            When `stop` returns True; finished jobs stay finished.
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
        """Items whose training ended in an error; `note` of an item holds the error."""
        return [item for item in self.items if item.state == "failed"]

    def record(self, job: Job) -> Record | str:
        """Record of a job, or the reason why the job has no record."""
        key = self._key(job)
        if key not in self.queue:
            return "not requested"
        return self.records.get(key) or self.queue[key].note or "not run yet"

    def why_none(self, jobs: Sequence[Job]) -> str:
        """Reason why all of these jobs were left out; empty if some were not left out."""
        queued = [self.queue.get(self._key(job)) for job in jobs]
        left_out = [item.note for item in queued if item and item.state == "left out"]
        return left_out[0] if left_out and len(left_out) == len(jobs) else ""

    def seeds_of(self, job: Job) -> list[Record]:
        """Records of a job for the seeds that are finished."""
        records = [self.record(with_seed(job, seed)) for seed in range(self.seeds)]
        return [record for record in records if isinstance(record, Record)]

    def seconds(self, job: Job) -> float:
        """Mean training seconds of a job over its finished seeds, pre-training included."""
        seeded = [with_seed(job, seed) for seed in range(self.seeds)]
        spent = [self._spent(one) for one in seeded if isinstance(self.record(one), Record)]
        return sum(spent) / max(len(spent), 1)

    def _spent(self, job: Job) -> float:
        """Training seconds of a job and of the jobs that initialise it, from their records."""
        records = [self.record(each) for each in (*job.starts, job)]
        return sum(float(r.values["train_seconds"]) for r in records if isinstance(r, Record))

    def _recall_weights(self, starts: Sequence[Job]) -> None:
        """Set finished jobs back to waiting if their weights are not on disk.

        `starts` are jobs that must initialise another job.
        """
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
        """Train an item's job. An error is noted in the item and does not stop the queue."""
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
            raise TrainingInterrupted("stopped after one training and before the next")

    def _leave_out_unasked(self) -> None:
        """Mark waiting items that the settings `only` or `recorded` exclude as left out."""
        for item in self.queue.values():
            if item.state != "waiting":
                continue
            if self.recorded:
                item.state, item.note = "left out", "not recorded yet"
            elif self.only and not self._asked(item):
                item.state, item.note = "left out", "not among the requested models"

    def _asked(self, item: Item) -> bool:
        return any(job.label in self.only for job in (item.job, *item.rows))

    def _left_out(self, item: Item) -> bool:
        """Whether a job with a further seed is left out because its first seed took too long.

        If several jobs need the item, the first seed of each must have taken too long. The state
        and note of an item that is left out are set. A job that `only` names gets all seeds.
        """
        if item.job.seed == 0 or self._asked(item):
            return False
        if any(self._spent(with_seed(row, 0)) <= DEAR for row in item.rows):
            return False
        item.state = "left out"
        item.note = f"one seed: a training takes over {DEAR / 60:.0f} minutes"
        return True


def seconds_left(items: Sequence[Item]) -> float:
    """Estimated seconds until the queue is empty.

    A training is estimated by the mean time of the same model on the same log. If there is none,
    the mean of all trainings is used.
    """
    spent: dict[tuple[str, str], list[float]] = {}
    for item in items:
        if item.state == "done":
            spent.setdefault((item.job.log, item.job.model), []).append(item.seconds)
    usual = [seconds for of_kind in spent.values() for seconds in of_kind] or [0.0]
    waiting = [item.job for item in items if item.state == "waiting"]
    return sum(mean(spent.get((job.log, job.model), usual)) for job in waiting)


def plain(item: Item) -> dict[str, Any]:
    """Data of an item for ``report.json``."""
    return {
        "log": item.job.log,
        "label": item.job.label,
        "seed": item.job.seed,
        "state": item.state,
        "note": item.note,
        "seconds": round(item.seconds, 1),
    }

"""A job's place in the queue of a study, and the time that the queue may still take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import Any, Literal

from comet_rec.experiments.jobs import Job
from comet_rec.training.trainer import Progress

State = Literal["waiting", "running", "done", "failed", "left out"]


@dataclass
class Item:
    """A job's place in the queue.

    Parameters
    ----------
    job : Job
    state : str
    note : str
        Where it stands, or why it was not run.
    seconds : float
        Spent on it, or expected while it waits.
    rows : list of Job
        What it is trained for: itself, where it is a row of a table, and what starts from it.
    """

    job: Job
    state: State = "waiting"
    note: str = ""
    seconds: float = 0.0
    rows: list[Job] = field(default_factory=list)


def seconds_left(items: Sequence[Item], running: Item, progress: Progress | None = None) -> float:
    """Seconds until the queue is empty.

    A training takes what the same model took on the same log before. Where none did, the running
    one is prolonged from its epochs, and one that waits takes the mean of all.

    Parameters
    ----------
    items : sequence of Item
        The queue.
    running : Item
    progress : Progress, optional
        Of the running one.
    """
    spent: dict[tuple[str, str], list[float]] = {}
    for item in items:
        if item.state == "done":
            spent.setdefault(_kind(item), []).append(item.seconds)
    usual = [seconds for of in spent.values() for seconds in of]
    whole = _prolonged(running.seconds, progress)
    of_running = mean(spent.get(_kind(running), [whole or mean(usual or [0.0])]))
    spent.setdefault(_kind(running), [of_running])
    others = mean(usual or [of_running])
    waiting = [mean(spent.get(_kind(i), [others])) for i in items if i.state == "waiting"]
    return max(of_running, whole, running.seconds) - running.seconds + sum(waiting)


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


def _kind(item: Item) -> tuple[str, str]:
    return item.job.log, item.job.model


def _prolonged(seconds: float, progress: Progress | None) -> float:
    """Seconds of the running stage at its end, 0 while nothing can be said."""
    if progress is None or not progress.epochs or not progress.done:
        return 0.0
    return seconds * progress.epochs / progress.done

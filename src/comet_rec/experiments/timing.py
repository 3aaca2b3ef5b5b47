"""The time that a queue may still take, from what like trainings took."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from comet_rec.training.trainer import Progress

if TYPE_CHECKING:
    from comet_rec.experiments.runner import Item


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


def _kind(item: Item) -> tuple[str, str]:
    return item.job.log, item.job.model


def _prolonged(seconds: float, progress: Progress | None) -> float:
    """Seconds of the running stage at its end, 0 while nothing can be said."""
    if progress is None or not progress.epochs or not progress.batches:
        return 0.0
    share = (progress.epoch + progress.batch / progress.batches) / progress.epochs
    return seconds / share if share > 0 else 0.0

"""The logs of a study: reading, splitting, and comparing with Table I."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split, leave_one_out
from comet_rec.datasets import catalog
from comet_rec.errors import DataError, InputError, argument
from comet_rec.experiments.paper import LOGS
from comet_rec.random import generator
from comet_rec.reading import readers

TieOrder = Literal["random", "item"]
TIE_ORDERS: tuple[TieOrder, ...] = ("random", "item")
"""Orders of a user's rows with equal times, besides the order of the file."""
NAME = r"[A-Za-z0-9][A-Za-z0-9-]*"
"""Pattern of a log's name, which becomes part of file names."""


@dataclass(frozen=True)
class StudyLog:
    """A log of a study, or the reason why it could not be read.

    Parameters
    ----------
    name : str
        Name of the log in names of files. A named data set keeps its name there.
    title : str
        Name of the log in tables.
    split : Split or None
        None if the log could not be read.
    why : str
        Reason why the log could not be read; empty if it was read.
    """

    name: str
    title: str
    split: Split | None
    why: str = ""

    @property
    def is_the_papers(self) -> bool:
        """Whether the log's counts equal those of Table I, so that metrics can be compared."""
        if self.name not in LOGS or self.split is None:
            return False
        log = self.split.interactions
        return (log.n_users, log.n_items, len(log)) == LOGS[self.name].counts


def read_logs(
    sources: Sequence[str], reading: dict[str, Any], say: Callable[[str], None]
) -> list[StudyLog]:
    """Read each log of a study, and split it by leave-one-out.

    Parameters
    ----------
    sources : sequence of str
        Names of data sets, files, or NAME=FILE for a file instead of the data set NAME.
    reading : dict
        Other keyword arguments of `read`.
    say : callable
        Called with a line for each log.

    Raises
    ------
    DataError
        If a file cannot be read. A named data set that cannot be downloaded is no error; the
        report says so.
    InputError
        If a log is named twice, or if its name does not fit `NAME`.
    """
    logs: list[StudyLog] = []
    for source in sources:
        log = _read(source, reading)
        if any(log.name == other.name for other in logs):
            raise InputError(f"{argument('data', source)}: {log.name} is named twice; name it once")
        rows = "" if log.split is None else f"{len(log.split.interactions):,} interactions"
        say(f"{log.title}: {log.why or rows}")
        logs.append(log)
    return logs


def _read(source: str, reading: dict[str, Any]) -> StudyLog:
    """Read and split the log that `source` names, as in `read_logs`."""
    name, equals, file = source.partition("=")
    if equals and not Path(source).exists():
        if not re.fullmatch(NAME, name):
            raise InputError(
                f"{argument('data', source)}: {name!r} is not a valid name; use letters, "
                "digits and hyphens before ="
            )
        return _study_log(name, readers.read(_existing(file), **reading))
    if not catalog.is_name(source):
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(source).name).strip("-").lower()
        return _study_log(stem, readers.read(_existing(source), **reading))
    try:
        return _study_log(source, catalog.load(source, **reading))
    except DataError as error:
        why, _, _ = str(error).partition(";")  # the advice after it names a local folder
        return StudyLog(source, _title(source), None, f"not available here: {why}")


def _existing(file: str) -> str:
    if not Path(file).exists():
        names = ", ".join(catalog.entries())
        raise DataError(f"{file}: no such file; give a log file or one of {names}")
    return file


def _study_log(name: str, rows: Interactions) -> StudyLog:
    """Split a log by leave-one-out.

    If the log has the name of one of the paper's logs but other counts, its title says so.
    """
    log = StudyLog(name, _title(name), leave_one_out(rows))
    if name in LOGS and not log.is_the_papers:
        return replace(log, title=f"{name} (not {log.title})")
    return log


def _title(name: str) -> str:
    if name in LOGS:
        return LOGS[name].title
    return catalog.entries()[name].title.split(":")[0] if catalog.is_name(name) else name


def has_ties(log: Interactions) -> bool:
    """Whether some user has rows with equal times, so that another order is possible."""
    if log.times is None or log.time_scope != "global":
        return False
    same = (log.users[1:] == log.users[:-1]) & (log.times[1:] == log.times[:-1])
    return bool(same.any())


def tied_share(log: Interactions) -> float:
    """Share of rows with the same time as the user's previous row, among rows that have one."""
    assert log.times is not None
    step = log.users[1:] == log.users[:-1]
    return float((step & (log.times[1:] == log.times[:-1])).sum() / max(int(step.sum()), 1))


def reordered(log: Interactions, order: TieOrder) -> Interactions:
    """Copy of a log in which a user's rows with equal times have another order.

    `order` is "random", or "item" for the order of item indices.
    """
    assert log.times is not None
    keys = log.items if order == "item" else generator(0, "tie order").random(len(log))
    rows = np.lexsort((keys, log.times, log.users))
    # Only items change places, since rows are sorted by user and time already.
    return replace(log, items=log.items[rows])

"""Saves that are killed before each of their calls to the file system, in a process of their own.

`python -m tests.artefact.killed WHAT HOW HOME RUNS` replaces what stands in HOME by something new,
over and over, each time killed one call later, and checks after each kill that the old or the new
one stands whole. WHAT is "run" or "checkpoint", HOW is "exchange" or "renames"; the folder RUNS
holds the runs "comet" and "itemknn". The number of kills is printed.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from comet_rec.artefact import folder as writing
from comet_rec.artefact.checkpoint import load_checkpoint, save_checkpoint
from comet_rec.artefact.run import load_run, save_run
from comet_rec.data.arrays import Array

CALLS = ("open", "os.", "fcntl.flock", "shutil.", "tempfile.")


def refused(*_: Any) -> None:
    """A system that cannot exchange two names."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def kill_at(number: int) -> None:
    """Kill this process before the call of this number, counted from now."""
    calls = 0

    def count(event: str, _: Any = None) -> None:
        nonlocal calls
        if event.startswith(CALLS) and event != "os.kill":
            calls += 1
            if calls > number:
                os.kill(os.getpid(), signal.SIGKILL)

    for room, name in ((os, "fsync"), (writing, "exchange")):  # neither is audited
        real: Any = getattr(room, name)

        def counted(*given: Any, real: Any = real) -> Any:
            count("os.")
            return real(*given)

        setattr(room, name, counted)
    sys.addaudithook(count)


def in_child(act: Callable[[], None]) -> int:
    """Exit status of a forked child; the negative number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills_of(replace: Callable[[], None], check: Callable[[], None]) -> int:
    """Kill `replace` before each of its calls; how often that was."""
    for number in range(10_000):

        def act(number: int = number) -> None:
            kill_at(number)
            replace()

        status = in_child(act)
        check()
        if status == 0:
            return number
        assert status == -signal.SIGKILL, status
    raise AssertionError("it does not end")


def kill_runs(home: Path, runs: Path) -> int:
    """Kill saves of a run over another one."""
    target = home / "run"
    old, new = load_run(runs / "itemknn"), load_run(runs / "comet")
    save_run(old, target)

    def check() -> None:
        assert load_run(target).config.name in ("comet", "itemknn")
        save_run(old, target)  # the next save sweeps
        assert [path.name for path in home.iterdir()] == ["run"], list(home.iterdir())

    return kills_of(lambda: save_run(new, target), check)


def kill_checkpoints(home: Path) -> int:
    """Kill checkpoints over another one of the same step, the hardest case."""
    about = {"stage": "validation", "step": 7}
    save_checkpoint(home, {"w": torch.zeros(3)}, about)

    def check() -> None:
        found = load_checkpoint(home, lambda _: {"w": Array(shape=(3,))})
        assert found is not None
        assert found[0]["w"].tolist() in ([0.0] * 3, [1.0] * 3)
        save_checkpoint(home, {"w": torch.zeros(3)}, about)
        assert len(list(home.iterdir())) == 2, list(home.iterdir())

    return kills_of(lambda: save_checkpoint(home, {"w": torch.ones(3)}, about), check)


if __name__ == "__main__":
    what, how, place, runs = sys.argv[1:]
    if how == "renames":
        writing.exchange = refused  # type: ignore[assignment]
    torch.set_num_threads(1)
    home = Path(place)
    home.mkdir()
    count = kill_runs(home, Path(runs)) if what == "run" else kill_checkpoints(home)
    shutil.rmtree(place)
    print(count)  # noqa: T201

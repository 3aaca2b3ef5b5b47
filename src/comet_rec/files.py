"""Files that a caller names: read only where they are files, written whole or not at all."""

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
"""Size of the largest file of ids that is read."""

READER_SECONDS = 1.0
"""How long a pipe that is written to may be without a reader."""
_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def refuse_other_than_file(path: Path, said: str) -> None:
    """Refuse a place that is no file: a pipe may never end, and a device has no end.

    Parameters
    ----------
    path : Path
    said : str
        Beginning of messages, e.g. the option and its value.

    Raises
    ------
    InputError
    """
    with _opened(path, said):
        pass


def read_lines(path: Path, said: str) -> list[str]:
    """Lines of a text file in UTF-8, without their ends and without empty ones.

    Raises
    ------
    InputError
        When it is no file, too large, cannot be read, or is not UTF-8.
    """
    with _opened(path, said) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputError(f"{said}: is larger than {MOST_BYTES:,} bytes; give a shorter list")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{said}: line {line} is not UTF-8; write the file in UTF-8") from None
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [line for line in lines if line]


@contextlib.contextmanager
def _opened(path: Path, said: str) -> Iterator[IO[bytes]]:
    """A file, opened for reading only where it is one."""
    try:
        mode = path.stat().st_mode  # before it is opened: that alone may wait, or rewind a tape
        for is_kind, kind in _KINDS:
            if is_kind(mode):
                raise InputError(f"{said}: is {kind}; give a file")
        # Not to wait, should a pipe have taken the place of the file just now.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb", buffering=0) as raw:
            # Some files of the system look like others and have nothing to give yet.
            if raw.read(1) is None:
                raise InputError(f"{said}: cannot be read without waiting; give a file")
            raw.seek(0)
            with io.BufferedReader(raw) as file:
                yield file
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{said}: cannot be read: {_reason(error)}") from None


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Path to write a file to that then takes the place of `target`, or is never seen.

    A link stays one. A target that is no regular file, such as a pipe, is written into.

    Raises
    ------
    InputError
        When the place cannot be written.
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
    """Whether a path names what stdout goes to; opened anew it would begin at its start."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except (OSError, ValueError):
        return False


def write_text_whole(target: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises
    ------
    InputError
        When the place cannot be written.
    """
    with written_whole(target) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="")


def _into(target: Path) -> IO[bytes]:
    """Open a pipe or a device for writing; a pipe without a reader is refused."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(target, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno != errno.ENXIO or not target.is_fifo():
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "nobody reads from this pipe") from None
            time.sleep(0.05)
        else:
            os.set_blocking(descriptor, True)
            return open(descriptor, "wb")


def _beside(path: Path) -> Path:
    """An empty file beside another, as open to others as that one is."""
    # The end of the name stays: DuckDB compresses by it.
    fresh = path.with_name(f".comet-rec-{os.urandom(6).hex()}{path.suffix[:16]}")
    fresh.open("xb").close()
    if path.exists():
        with contextlib.suppress(OSError):
            fresh.chmod(stat.S_IMODE(path.stat().st_mode))
    return fresh


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)

"""Limit of the memory for large arrays of a log, which are moved to files beyond it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from comet_rec.errors import InputError

LEAST = 500_000_000
"""Smallest limit in bytes: the libraries alone take half of it."""

FILE_SHARE = 0.05
"""Arrays that would take a larger share of the limit are in files."""

T = TypeVar("T", bound=np.generic)
noted: set[str] = set()
"""Measures that were taken to keep to the limit, as notes for the user."""
_limit: int | None = None


def share(part: float, default: int) -> int:
    """Bytes that one use may take: a part of the limit, but not more than `default`."""
    return default if _limit is None else min(default, int(part * _limit))


def empty(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Array of `count` values, in a temporary file if it takes much of the limit.

    The system keeps the part of the file in memory that is in use, and may write it back and drop
    it at any time. The file has no name, so it goes with the array.
    """
    size = count * np.dtype(dtype).itemsize
    if _limit is None or size < FILE_SHARE * _limit:
        return np.empty(count, dtype)
    with tempfile.TemporaryFile(prefix="comet-rec-") as file:
        reserve(file.fileno(), size)
        array = np.memmap(file, dtype, "w+", shape=(count,))
    noted.add(f"large arrays of the log are in files of {tempfile.gettempdir()}")
    return array


def reserve(file: int, size: int) -> None:
    """Take the room on the disk for a temporary file of `size` bytes, given by its descriptor.

    A full disk would kill the process later, when the mapped file is written.

    Raises
    ------
    InputError
        When the disk is full.
    """
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise InputError(
            f"{tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a disk with more room"
        ) from None


def kept(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The array, moved to a temporary file if it takes much of the limit."""
    if _limit is None or array.nbytes < FILE_SHARE * _limit or is_mapped(array):
        return array
    copy = empty(len(array), array.dtype)
    copy[:] = array
    return copy


def is_mapped(array: npt.NDArray[Any]) -> bool:
    """Whether an array is in a file.

    The result of a computation with such an array has its class, but is in memory.
    """
    return isinstance(array, np.memmap) and array._mmap is not None  # type: ignore[attr-defined]


def set_limit(to: int | None) -> None:
    """Set the limit of this process in bytes; None lifts it."""
    global _limit
    _limit = to
    noted.clear()


@contextlib.contextmanager
def limited(to: int | None) -> Iterator[None]:
    """Keep to a limit of `to` bytes inside the ``with`` block; None sets no limit."""
    before = _limit
    set_limit(to)
    try:
        yield
    finally:
        set_limit(before)


def parsed(text: str) -> int:
    """Bytes of a size such as 4GB, 500M or 2GiB.

    Raises
    ------
    InputError
        When the text is no size, or the size is below `LEAST`.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT]?)(i?)B?", text.strip(), re.I)
    if match is None:
        raise InputError(f"--memory {text[:40]!r}: is no size; write it as 4GB or 500MB")
    base = 1024 if match[3] else 1000
    size = float(match[1]) * base ** (" KMGT".index(match[2].upper() or " "))
    if size < LEAST:
        raise InputError(f"--memory {text[:40]}: is below 500MB, which the libraries need alone")
    return int(size)

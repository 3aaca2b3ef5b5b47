"""Which files a log consists of: one, a list, a folder, a pattern, or hive partitions."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote

from comet_rec.errors import DataError

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PARTITION = re.compile(r"([^=/\\]+)=(.*)")
_PATTERN = re.compile(r"[*?\[]")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Parameters
    ----------
    path : Path
    name : str
        What messages call it.
    partition : mapping of str to str
        Columns that the folders around it stand for, as hive writes them (`day=2024-05-01/`).
    """

    path: Path
    name: str
    partition: Mapping[str, str] = field(default_factory=dict)


def is_path(source: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a source is one path."""
    return isinstance(source, (str, os.PathLike))


def is_path_list(source: Any) -> TypeGuard[Sequence[str | os.PathLike[str]]]:
    """Whether a source is a list of paths, and not one of rows."""
    return isinstance(source, (list, tuple, set, frozenset)) and any(map(is_path, source))


def shown(path: str | os.PathLike[str]) -> str:
    """Name of a path in messages."""
    return os.path.expanduser(os.fsdecode(path))


def log_files(source: Any) -> list[LogFile]:
    """The files of a log, sorted by path, whatever order they are given in.

    Parameters
    ----------
    source : path or list of paths
        A file, a folder, a pattern with `*`, `?` or `[…]` (`**` goes through folders), or a list
        of them. In a folder, names that begin with "." or "_" and empty files are left out.

    Raises
    ------
    DataError
        When a path does not exist, is remote or no regular file, or a file is named twice.
    """
    paths = [source] if is_path(source) else list(source)
    found: list[LogFile] = []
    for path in paths:
        if not is_path(path):
            raise DataError(f"a list of files holds a {type(path).__name__}; give paths alone")
        found += _files_of(shown(path))
    found.sort(key=lambda file: file.name)
    seen: dict[str, str] = {}
    for file in found:
        other = seen.setdefault(os.path.realpath(file.path), file.name)
        if other is not file.name:
            raise DataError(f"{file.name}: is given twice; name each file once")
    keys = {tuple(sorted(file.partition)) for file in found}
    if len(keys) > 1:
        raise DataError(f"{found[0].name}: its files lie in folders of different partitions")
    return found


def _files_of(name: str) -> list[LogFile]:
    if _REMOTE.match(name):
        raise DataError(f"{name}: remote paths are not supported; download the file first")
    try:
        if os.path.isdir(name):
            return _files_in(name)
        if not os.path.exists(name) and _PATTERN.search(name):
            return _files_like(name)
        return [regular_file(name)]
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name!r}: cannot be opened: {error}") from error


def regular_file(name: str) -> LogFile:
    """One file on disk.

    Raises
    ------
    DataError
        When there is none of that name, or it is a device, a pipe or a folder.
    """
    path = Path(name)
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise DataError(f"{name!r}: the name is not UTF-8; rename the file")
    if path.is_dir():
        raise DataError(f"{name}: is a directory; give a file")
    if not path.exists():
        raise DataError(f"{name}: no such file")
    if not path.is_file():
        raise DataError(f"{name}: is not a regular file; give a file on disk")
    if not os.access(path, os.R_OK):
        raise DataError(f"{name}: cannot be opened: permission denied")
    return LogFile(path, name)


def _files_in(folder: str) -> list[LogFile]:
    """All files below a folder, but for hidden ones and empty ones (Spark writes both)."""
    if os.path.isfile(os.path.join(folder, "manifest.json")):
        raise DataError(f"{folder}: is a run of a trained model; give the log")
    found = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(files):
            path = os.path.join(place, name)
            if name[0] not in "._" and not _is_empty(path):
                file = regular_file(path)
                found.append(LogFile(file.path, path, _partition(path, folder)))
    if not found:
        raise DataError(f"{folder}: has no files with data")
    return found


def _is_empty(path: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == 0


def _files_like(pattern: str) -> list[LogFile]:
    matches = {
        os.path.realpath(name): name
        for name in sorted(glob.glob(pattern, recursive=True), reverse=True)
        if not os.path.isdir(name) and os.path.basename(name)[0] not in "._" and not _is_empty(name)
    }
    if not matches:
        raise DataError(f"{pattern}: no file with data has such a name")
    # Folders in front of the first pattern are the place of the log, not a part of it.
    fixed = os.path.dirname(pattern[: _PATTERN.search(pattern).start()])  # type: ignore[union-attr]
    return [
        LogFile(file.path, file.name, _partition(file.name, fixed))
        for file in map(regular_file, sorted(matches.values()))
    ]


def _partition(path: str, folder: str) -> dict[str, str]:
    """Columns that the folders between `folder` and a file stand for."""
    between = os.path.relpath(os.path.dirname(path) or ".", folder or ".").split(os.sep)
    columns: dict[str, str] = {}
    for part in between:
        if match := _PARTITION.fullmatch(part):
            value = unquote(match[2])
            columns[match[1]] = "" if value == _NO_VALUE else value
    return columns

"""Safe reading of files from untrusted sources: opened once, hashed, parsed within limits.

Another process may replace a run while it is read. So the folder is opened once, and all files are
opened through its descriptor before any is read. All files then belong to the same run.

Files are read into private memory and not memory-mapped. Mapped bytes could change after the
digest was computed, and truncating a mapped file would kill the process by a signal. The
safetensors library is not used for reading, because it opens a file by name a second time: by then
the name could point to another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from comet_rec import renamed
from comet_rec.data.arrays import Array, Form, check_forms, check_values
from comet_rec.errors import ArtefactError, DamagedError

CHUNK = 1 << 20
"""Number of bytes that are read and hashed at a time; they fit into the CPU cache."""
HOLLOW_BYTES, HOLLOW_TIMES = 1 << 28, 100
"""A file above HOLLOW_BYTES must occupy at least 1/HOLLOW_TIMES of its size on disk.

The limits refuse sparse files, which are small on disk but large in memory.
"""
MOST_JSON = 1 << 26
"""Largest JSON text that is parsed, in bytes (64 MiB)."""
MOST_CONTAINERS, MOST_VALUES = 250_000, 5_000_000
"""Limits on lists and objects, and on all values, in a JSON text.

They bound memory: Python takes up to 240 bytes for a container, and 60 or more for a string.
"""
MOST_DIGITS = 77
"""Largest number of digits of an integer in JSON (about 256 bits)."""
DTYPES = {"F32": "float32", "I64": "int64", "I32": "int32", "U8": "uint8"}
"""Types of stored arrays: name in the safetensors format → numpy name."""
MOST_HEADER = 1 << 22
"""Largest header of a safetensors file, in bytes."""
MOST_SKIMMED = 1 << 28
"""Largest number of bytes that are still read and hashed after array shapes proved wrong.

The hash tells whether the file is damaged, or was written by another version of this library.
"""
MOST_DIMENSIONS = 8
"""Largest number of dimensions of a stored array."""
ALIGNMENT = 64
"""Alignment of array memory in bytes, as in PyTorch."""
_ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}
"""Form of the entry of one array in the header of a safetensors file; see `check_form`."""


class Members:
    """An open folder; its files are opened through its descriptor, even if its path is replaced.

    Parameters
    ----------
    path : Path
        The folder, or a symbolic link to it.
    remedy : str
        Advice at the end of an error about a damaged file.

    Raises
    ------
    OSError
        When the folder does not exist or cannot be opened.
    """

    def __init__(self, path: Path, remedy: str = "copy the run again") -> None:
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

    def open(self, digests: Mapping[str, str | None]) -> None:
        """Open files by name, without reading them.

        Parameters
        ----------
        digests : mapping of str
            File name → SHA-256 that the file must have, or None to skip that check.

        Raises
        ------
        FileNotFoundError
            When the folder has no file of that name.
        DamagedError
            When a name is not a plain file name, or belongs to a link, pipe, device or folder.
            These are never opened.
        """
        # O_NONBLOCK: do not wait for a pipe's writer. O_NOFOLLOW: do not follow a link.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        for name, digest in digests.items():
            if Path(name).name != name or not name.isprintable():
                raise DamagedError(f"{self.path}: {one_line(name, 100)!r} is not a file name")
            path = self.path / name
            _check_plain(path, os.stat(name, dir_fd=self._handle, follow_symlinks=False))
            handle = os.open(name, flags, dir_fd=self._handle)
            self._open[name] = Member(path, handle, digest, self.remedy)
            _check_plain(path, os.fstat(handle))  # the file may have been replaced since

    def is_current(self) -> bool:
        """Whether `path` still names the folder that this object holds open."""
        try:
            with Members(self.path) as now:
                return os.path.samestat(os.fstat(now._handle), os.fstat(self._handle))
        except OSError:
            return False


class Member:
    """An open file; the bytes that are read are also hashed, to check the SHA-256 of the file.

    Parameters
    ----------
    path : Path
        Path shown in errors.
    handle : int
        File descriptor of a plain file.
    digest : str or None
        SHA-256 that the file must have; None to skip that check.
    remedy : str
        Advice at the end of an error about a damaged file.

    Attributes
    ----------
    left : int
        Number of bytes not read yet.
    """

    def __init__(self, path: Path, handle: int, digest: str | None, remedy: str) -> None:
        self.path = path
        self.handle = handle
        self.digest = digest
        self.remedy = remedy
        self.size = os.fstat(handle).st_size
        self._state = hashlib.sha256()
        self.left = self.size

    def text(self, most_bytes: int = MOST_JSON) -> bytes:
        """Read all bytes of the file.

        Raises
        ------
        DamagedError
            When the file is longer than `most_bytes`, or its SHA-256 differs.
        """
        if self.size > most_bytes:
            raise DamagedError(f"{self.path}: longer than {most_bytes:,} bytes; {self.remedy}")
        data = self._read(self.size)
        self._check()
        return data

    def arrays(
        self, declared: Mapping[str, Array], sizes: dict[str, int], remedy: str | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Read this safetensors file, and check that its arrays are as `declared`.

        Parameters
        ----------
        declared : mapping of Array
            Array name → required type, shape and range of values.
        sizes : dict of int
            Declared shapes may contain names of sizes. This dict maps known names to sizes. Sizes
            of unknown names are taken from the file and added to the dict.
        remedy : str, optional
            Advice at the end of an error about an array that is not as declared.

        Raises
        ------
        DamagedError
            When the SHA-256 differs, or the file is not a safetensors file.
        ArtefactError
            When an array is not as declared. Shapes are checked before memory is allocated.
        """
        remedy = remedy or self.remedy
        try:
            forms = self._header()
        except (ValueError, RecursionError) as error:
            raise DamagedError(
                f"{self.path}: damaged, its header does not match its data "
                f"({one_line(str(error), 100)}); {self.remedy}"
            ) from None
        try:
            check_forms(forms, declared, sizes)
        except ValueError as error:
            if self.left <= MOST_SKIMMED:  # a damaged file must raise DamagedError
                while self.left:
                    self._read(min(self.left, CHUNK))
                self._check()
            raise ArtefactError(f"{self.path}: {one_line(str(error))}; {remedy}") from None
        arrays = {name: _allocated(form) for name, form in forms.items()}
        for array in arrays.values():
            self._fill(array.reshape(-1).view(np.uint8).data)
        self._check()
        try:
            check_values(arrays, declared, sizes)
        except ValueError as error:
            raise ArtefactError(f"{self.path}: {one_line(str(error))}; {remedy}") from None
        return arrays

    def _header(self) -> dict[str, Form]:
        """Read the header of this safetensors file: array name → type and shape, in file order.

        Raises
        ------
        ValueError
            When the header is invalid, or its arrays do not fill the rest of the file.
        """
        if self.size < 8:
            raise ValueError("the file is too short")
        size = int.from_bytes(self._read(8), "little")
        if size > min(self.left, MOST_HEADER):
            raise ValueError("the length of the header is impossible")
        entries = parsed(self._read(size))
        check_form(entries, {str: object}, "header")
        entries.pop("__metadata__", None)
        check_form(entries, {str: _ENTRY}, "header")
        place, forms = 0, {}
        for name, entry in sorted(entries.items(), key=lambda pair: pair[1]["data_offsets"]):
            if entry["dtype"] not in DTYPES or len(entry["shape"]) > MOST_DIMENSIONS:
                raise ValueError(f"{name} has a type or shape that no array of a run has")
            form = Form(DTYPES[entry["dtype"]], tuple(entry["shape"]))
            end = place + _bytes(form)
            if entry["data_offsets"] != [place, end]:
                raise ValueError(f"{name} does not stand where the header says")
            name = renamed.tensor(name)
            if name in forms:
                raise ValueError(f"{name} is stored twice, once under an old name")
            place, forms[name] = end, form
        if place != self.left:
            raise ValueError("the file is too short or too long")
        return forms

    def _read(self, count: int) -> bytes:
        """Read the next `count` bytes of the file, and add them to its SHA-256."""
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, buffer: memoryview) -> None:
        """Fill `buffer` with the next bytes of the file, and add them to its SHA-256.

        Raises
        ------
        DamagedError
            When the file ends before the buffer is full.
        """
        for first in range(0, len(buffer), CHUNK):
            part = buffer[first : first + CHUNK]
            done = 0
            while done < len(part):
                count = os.readv(self.handle, [part[done:]])
                if count == 0:
                    raise DamagedError(
                        f"{self.path}: became shorter while it was read; {self.remedy}"
                    )
                done += count
            self._state.update(part)
        self.left -= len(buffer)

    def _check(self) -> None:
        """Compare the SHA-256 of all bytes read with the expected one, if there is one.

        Raises
        ------
        DamagedError
            When the SHA-256 differs.
        """
        if self.digest is not None and self._state.hexdigest() != self.digest:
            raise DamagedError(f"{self.path}: damaged, its SHA-256 differs; {self.remedy}")


def _check_plain(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a plain file"
        raise DamagedError(f"{path}: is {kind}; a run has plain files only; copy the run again")
    # A sparse file is small on disk but large in memory. Some systems report 0 blocks for any file.
    bytes_on_disk = 512 * status.st_blocks
    if status.st_size > HOLLOW_BYTES and 0 < HOLLOW_TIMES * bytes_on_disk < status.st_size:
        raise DamagedError(f"{path}: is a sparse file, which no run has; copy the run again")


def _open_folder(folder: Path) -> int:
    """Open a folder, even while another process is replacing it; returns its descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(folder, flags)
    except FileNotFoundError:
        # A writer is replacing the folder by two renames, or was killed between them. The old
        # folder is then inside the writer's temporary folder.
        for staging in staging_of(folder):
            with contextlib.suppress(FileNotFoundError):
                return os.open(staging / "replaced", flags)
        return os.open(folder, flags)  # the second rename may have finished by now


def staging_of(folder: Path) -> list[Path]:
    """Temporary folders that running or killed saves to `folder` have made beside it."""
    place = Path(os.path.realpath(folder))
    name = re.compile(rf"\.{re.escape(place.name)}\.saving-[a-z0-9_]{{8}}")
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        return [Path(e.path) for e in entries if name.fullmatch(e.name) and e.is_dir()]
    return []


def _bytes(form: Form) -> int:
    return np.dtype(form.dtype).itemsize * math.prod(form.shape)


def _allocated(form: Form) -> npt.NDArray[Any]:
    """Uninitialised array, aligned in memory as PyTorch aligns arrays.

    The last bits of matrix products depend on the alignment.
    """
    raw = np.empty(_bytes(form) + ALIGNMENT, dtype=np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + _bytes(form)].view(form.dtype).reshape(form.shape)


def parsed(data: bytes) -> Any:
    """Parse JSON text; refuse text that would take too much memory or time.

    Raises
    ------
    ValueError
        When the text is not JSON, is too large, or holds NaN or infinity.
    RecursionError
        When the text is nested too deeply.
    """
    if len(data) > MOST_JSON:
        raise ValueError(f"longer than {MOST_JSON:,} bytes")
    # Every value but the first follows one of these characters, so the counts are upper bounds.
    containers = data.count(b"{") + data.count(b"[")
    if containers > MOST_CONTAINERS or data.count(b",") + data.count(b":") > MOST_VALUES:
        raise ValueError("more values than any run has")
    return json.loads(data.decode("utf-8"), parse_constant=_refused, parse_int=_whole)


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer has {len(digits):,} digits; the most is {MOST_DIGITS}")
    return int(digits)


def check_form(value: Any, form: Any, where: str = "it") -> None:
    """Check that parsed JSON has the structure that `form` describes.

    Parameters
    ----------
    value
        Parsed JSON.
    form
        Description of the structure, one of:

        - a type: `int` (at least 0), `float` (finite), `str`, `bool`, or `object` for anything;
        - ``(form, None)``: the form, or None;
        - ``[form]``: a list whose elements have the form;
        - ``{"key": form, "key?": form}``: a dict with these keys, where ``?`` marks an optional
          key and further keys are allowed;
        - ``{str: form}``: a dict whose values all have the form.
    where : str
        Name of the value in errors.

    Raises
    ------
    ValueError
        When the value does not have the form.
    """
    if isinstance(form, tuple):
        if value is not None:
            check_form(value, form[0], where)
    elif isinstance(form, list):
        _check_type(value, list, where)
        for place, element in enumerate(value):
            check_form(element, form[0], f"{where}[{place}]")
    elif isinstance(form, dict):
        _check_type(value, dict, where)
        if str in form:
            for key, element in value.items():
                check_form(element, form[str], f"{where}.{key}")
            return
        for key, inner in form.items():
            name = key.removesuffix("?")
            if name in value:
                check_form(value[name], inner, f"{where}.{name}")
            elif name == key:
                raise ValueError(f"{where} has no {name}")
    else:
        _check_type(value, form, where)


def _check_type(value: Any, kind: type, where: str) -> None:
    if kind is object:
        return
    fits = isinstance(value, (int, float) if kind is float else kind)
    if fits and kind in (int, float):
        fits = (
            not isinstance(value, bool) and math.isfinite(value) and (kind is float or value >= 0)
        )
    if not fits:
        raise ValueError(f"{where} is not a valid {kind.__name__} (type {type(value).__name__})")


def one_line(text: str, most: int = 300) -> str:
    """First line of `text`, cut to `most` characters, with unprintable characters escaped."""
    line = next(iter(text.splitlines()), "")[:most]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)

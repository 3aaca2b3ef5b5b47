"""Files that a stranger may have written: opened once, digested, and parsed within bounds.

A run may be replaced while it is read. The folder is opened once, and its files by that
descriptor, before any is read: all are of the old run or all of the new one.

Files are read into memory of the process's own and not mapped. Mapped bytes could change after
they were digested, and a file that somebody cuts short would end the process by a signal. For the
same reason arrays are not read by the safetensors library, which opens a file by its name: it could
meet another file than the one that was digested.
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
"""Bytes that are read at a time, and digested while they are in the cache."""
HOLLOW_BYTES, HOLLOW_TIMES = 1 << 28, 100
"""Files from this size on must take a hundredth of it on the disk."""
MOST_JSON = 1 << 26
"""Longest JSON text that is parsed."""
MOST_CONTAINERS, MOST_VALUES = 250_000, 5_000_000
"""Lists and objects, and values in all: a container takes up to 240 bytes, a text 60 and more."""
MOST_DIGITS = 77
"""Longest whole number: 256 bits."""
DTYPES = {"F32": "float32", "I64": "int64", "I32": "int32", "U8": "uint8"}
"""Types of stored arrays, by the names of the safetensors format."""
MOST_HEADER = 1 << 22
"""Longest description of the arrays in a file."""
MOST_SKIMMED = 1 << 28
"""Bytes of a file of impossible shapes that are read to see whether it is the one written."""
MOST_DIMENSIONS = 8
ALIGNMENT = 64
_ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}


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

    def open(self, digests: Mapping[str, str | None]) -> None:
        """Open files, before any of them is read.

        Parameters
        ----------
        digests : mapping of str
            SHA-256 that each file must have, by its name; None where none is known.

        Raises
        ------
        FileNotFoundError
        DamagedError
            For what is no plain file: a link, a pipe, a device, a folder. None of them is opened.
        """
        # Without waiting for a pipe's writer, and without following a link.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        for name, digest in digests.items():
            if Path(name).name != name or not name.isprintable():
                raise DamagedError(f"{self.path}: {one_line(name, 100)!r} is no name of a file")
            path = self.path / name
            _check_plain(path, os.stat(name, dir_fd=self._handle, follow_symlinks=False))
            handle = os.open(name, flags, dir_fd=self._handle)
            self._open[name] = Member(path, handle, digest, self.remedy)
            _check_plain(path, os.fstat(handle))  # not what stood there a moment before

    def is_current(self) -> bool:
        """Whether the folder is still the one that its path names."""
        try:
            with Members(self.path) as now:
                return os.path.samestat(os.fstat(now._handle), os.fstat(self._handle))
        except OSError:
            return False


class Member:
    """An open file, of which every byte is digested as it is read.

    Parameters
    ----------
    path : Path
        Its name in errors.
    handle : int
        Descriptor of a plain file.
    digest : str or None
        SHA-256 that the file must have.
    remedy : str
        Advice for a damaged file, as an error gives it.

    Attributes
    ----------
    left : int
        Bytes that are not read yet.
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
        """All bytes.

        Raises
        ------
        DamagedError
            When the file is not the one of this SHA-256.
        """
        if self.size > most_bytes:
            raise DamagedError(f"{self.path}: longer than {most_bytes:,} bytes, no part of a run")
        data = self._read(self.size)
        self._check()
        return data

    def arrays(
        self, declared: Mapping[str, Array], sizes: dict[str, int], remedy: str | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Arrays of a safetensors file, which all are as declared.

        Parameters
        ----------
        declared : mapping of Array
        sizes : dict of int
            Named sizes of the declared shapes; those that the file decides are added.
        remedy : str, optional
            Advice for arrays that do not fit, as an error gives it.

        Raises
        ------
        DamagedError
            When it is another file, or no safetensors file.
        ArtefactError
            When an array is not as declared; one of another size is not allocated.
        """
        remedy = remedy or self.remedy
        try:
            forms = self._header()
        except (ValueError, RecursionError) as error:
            raise DamagedError(
                f"{self.path}: damaged, its header does not fit it ({one_line(str(error), 100)}); "
                f"{self.remedy}"
            ) from None
        try:
            check_forms(forms, declared, sizes)
        except ValueError as error:
            if self.left <= MOST_SKIMMED:  # damage is told as damage
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
        """Forms of the arrays of a safetensors file, in the order of their bytes.

        Raises
        ------
        ValueError
            When they do not fill the rest of the file, one behind the other.
        """
        if self.size < 8:
            raise ValueError("too short")
        size = int.from_bytes(self._read(8), "little")
        if size > min(self.left, MOST_HEADER):
            raise ValueError("a header of impossible length")
        entries = parsed(self._read(size))
        check_form(entries, {str: object}, "header")
        entries.pop("__metadata__", None)
        check_form(entries, {str: _ENTRY}, "header")
        place, forms = 0, {}
        for name, entry in sorted(entries.items(), key=lambda pair: pair[1]["data_offsets"]):
            if entry["dtype"] not in DTYPES or len(entry["shape"]) > MOST_DIMENSIONS:
                raise ValueError(f"{name} has another type or shape than arrays of a run have")
            form = Form(DTYPES[entry["dtype"]], tuple(entry["shape"]))
            end = place + _bytes(form)
            if entry["data_offsets"] != [place, end]:
                raise ValueError(f"{name} has impossible offsets")
            name = renamed.tensor(name)
            if name in forms:
                raise ValueError(f"{name} is there twice, under an old name too")
            place, forms[name] = end, form
        if place != self.left:
            raise ValueError("too short or too long")
        return forms

    def _read(self, count: int) -> bytes:
        """Read and digest so many bytes."""
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, buffer: memoryview) -> None:
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

    def _check(self) -> None:
        """Compare the digest of all that was read.

        Raises
        ------
        DamagedError
            When the file is not the one of this SHA-256.
        """
        if self.digest is not None and self._state.hexdigest() != self.digest:
            raise DamagedError(f"{self.path}: damaged, its SHA-256 differs; {self.remedy}")


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
        # Two renames are replacing it, or were cut short: it may stand under its other name.
        for staging in staging_of(folder):
            with contextlib.suppress(FileNotFoundError):
                return os.open(staging / "replaced", flags)
        return os.open(folder, flags)  # between the two names


def staging_of(folder: Path) -> list[Path]:
    """Folders beside a folder that saves to it have, or had when they were killed."""
    place = Path(os.path.realpath(folder))
    name = re.compile(rf"\.{re.escape(place.name)}\.saving-[a-z0-9_]{{8}}")
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        return [Path(e.path) for e in entries if name.fullmatch(e.name) and e.is_dir()]
    return []


def _bytes(form: Form) -> int:
    return np.dtype(form.dtype).itemsize * math.prod(form.shape)


def _allocated(form: Form) -> npt.NDArray[Any]:
    """Memory for an array, aligned as PyTorch's own: products depend on that in the last bit."""
    raw = np.empty(_bytes(form) + ALIGNMENT, dtype=np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + _bytes(form)].view(form.dtype).reshape(form.shape)


def parsed(data: bytes) -> Any:
    """Parse a JSON text at a bounded cost.

    Raises
    ------
    ValueError
        When it is no JSON, is too large, or holds NaN or infinity.
    RecursionError
        When it is too deep.
    """
    if len(data) > MOST_JSON:
        raise ValueError(f"longer than {MOST_JSON:,} bytes")
    # Each value but the first stands behind one of these, so this is never too low a count.
    containers = data.count(b"{") + data.count(b"[")
    if containers > MOST_CONTAINERS or data.count(b",") + data.count(b":") > MOST_VALUES:
        raise ValueError("more values than a run has")
    return json.loads(data.decode("utf-8"), parse_constant=_refused, parse_int=_whole)


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def check_form(value: Any, form: Any, where: str = "it") -> None:
    """Compare plain data with a form.

    Parameters
    ----------
    value : plain data
    form
        A type (`int`: a whole number from 0 on; `float`: a finite number; `object`: anything); a
        pair of a form and None, where the value may be None; a list with the form of each element;
        a dict with the form under each key (``"key?"`` may be missing, other keys may be there),
        or with the form of all values under `str`.
    where : str
        Name of the value in an error.

    Raises
    ------
    ValueError
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
        raise ValueError(f"{where} is {type(value).__name__}, or out of range; not {kind.__name__}")


def one_line(text: str, most: int = 300) -> str:
    """The first line of a text, in characters that a terminal prints, cut where it is long."""
    line = next(iter(text.splitlines()), "")[:most]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)

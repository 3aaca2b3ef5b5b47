"""Arrays of a safetensors file, read straight into memory of their own and checked before use.

The format is a description in JSON and then the bytes of the arrays. The library's own reader opens
a file by its name, so it could meet another file than the one that was digested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec import renamed
from comet_rec.artefact.members import Member
from comet_rec.artefact.plain import check_form, one_line, parsed
from comet_rec.data.arrays import Array, Form, check_forms, check_values
from comet_rec.errors import ArtefactError, DamagedError

DTYPES = {"F32": "float32", "I64": "int64", "I32": "int32", "U8": "uint8"}
"""Types of stored arrays, by the format's names."""
MOST_HEADER = 1 << 22
"""Longest description of the arrays in a file."""
MOST_SKIMMED = 1 << 28
"""Bytes of a file of impossible shapes that are read to see whether it is the one written."""
MOST_DIMENSIONS = 8
ALIGNMENT = 64
_ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}


def read_arrays(
    member: Member,
    digest: str,
    declared: Mapping[str, Array],
    sizes: dict[str, int],
    remedy: str | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a safetensors file, which all are as declared.

    Parameters
    ----------
    member : Member
    digest : str
        SHA-256 that the file must have.
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
    try:
        forms = _header(member)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{member.path}: damaged, its header does not fit it ({one_line(str(error), 100)}); "
            f"{member.remedy}"
        ) from None
    try:
        check_forms(forms, declared, sizes)
    except ValueError as error:
        if member.left <= MOST_SKIMMED:  # damage is told as damage
            member.skim(digest)
        raise _other(member, error, remedy) from None
    found = {name: _allocated(form) for name, form in forms.items()}
    for array in found.values():
        member.fill(array.reshape(-1).view(np.uint8).data)
    member.check(digest)
    try:
        check_values(found, declared, sizes)
    except ValueError as error:
        raise _other(member, error, remedy) from None
    return found


def _other(member: Member, error: ValueError, remedy: str | None) -> ArtefactError:
    return ArtefactError(f"{member.path}: {one_line(str(error))}; {remedy or member.remedy}")


def _header(member: Member) -> dict[str, Form]:
    """Forms of the arrays, in the order of their bytes.

    Raises
    ------
    ValueError
        When they do not fill the rest of the file, one behind the other.
    """
    length = bytearray(8)
    if member.size < 8:
        raise ValueError("too short")
    member.fill(memoryview(length))
    size = int.from_bytes(length, "little")
    if size > min(member.left, MOST_HEADER):
        raise ValueError("a header of impossible length")
    text = bytearray(size)
    member.fill(memoryview(text))
    entries = parsed(bytes(text))
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
    if place != member.left:
        raise ValueError("too short or too long")
    return forms


def _bytes(form: Form) -> int:
    count = np.dtype(form.dtype).itemsize
    for size in form.shape:
        count *= size
    return count


def _allocated(form: Form) -> npt.NDArray[Any]:
    """Memory for an array, aligned as PyTorch's own: products depend on that in the last bit."""
    raw = np.empty(_bytes(form) + ALIGNMENT, dtype=np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + _bytes(form)].view(form.dtype).reshape(form.shape)

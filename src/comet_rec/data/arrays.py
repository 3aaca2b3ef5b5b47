"""Expected type, shape and values of each array in a stored file, and checks against them.

An `Array` describes one expected array. A mapping of name → `Array` describes a whole file, such as
the parameters of a model. Stored files are checked before use, because they may be damaged or
forged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy.typing as npt

LARGEST = 1e15
"""Largest absolute value of a stored real number. Inner products of such vectors stay finite in
float32."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """Expected type, shape and range of values of one array in a stored file.

    Real numbers must also be finite and at most `LARGEST` in absolute value.

    Parameters
    ----------
    shape : tuple of int or str
        Expected size of each axis. A text names a size that only the file determines. Axes with
        the same name must have the same size.
    dtype : {"float32", "int64", "int32", "uint8"}
    low, high : int or None
        Smallest allowed value, and one past the largest allowed value. None sets no limit.
    order : {"any", "ascending", "increasing"}
        Order of the values: "ascending" allows equal neighbours, "increasing" does not.
    ends_at : str or None
        If set, the array must ascend from 0 to the size with this name. Arrays that hold the start
        of each ragged row need this.
    optional : bool
        Whether the file may lack the array.
    """

    shape: tuple[int | str, ...]
    dtype: Literal["float32", "int64", "int32", "uint8"] = "float32"
    low: int | None = None
    high: int | None = None
    order: Literal["any", "ascending", "increasing"] = "any"
    ends_at: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Form:
    """Type and shape of an array in a stored file."""

    dtype: str
    shape: tuple[int, ...]


def indices(
    shape: tuple[int | str, ...],
    size: int,
    *,
    dtype: Literal["int64", "int32", "uint8"] = "int64",
    order: Literal["any", "ascending", "increasing"] = "any",
) -> Array:
    """Expected array of indices from 0 to `size` − 1, with this shape, type and order."""
    return Array(shape=shape, dtype=dtype, low=0, high=size, order=order)


def starts(rows: int, values: str) -> Array:
    """Expected array int64 [rows + 1] with the start of each ragged row, from 0 to the last end.

    `values` is the name of the size that the last end must equal: the number of values in all rows.
    """
    return Array(shape=(rows + 1,), dtype="int64", ends_at=values)


def under(prefix: str, declared: Mapping[str, Array]) -> dict[str, Array]:
    """The expected arrays `declared`, with `prefix` and a dot in front of each name."""
    return {f"{prefix}.{name}": array for name, array in declared.items()}


def optional(declared: Mapping[str, Array]) -> dict[str, Array]:
    """The expected arrays `declared`, each marked as one that the file may lack."""
    return {name: replace(array, optional=True) for name, array in declared.items()}


def check_forms(
    found: Mapping[str, Form], declared: Mapping[str, Array], sizes: dict[str, int]
) -> None:
    """Check names, types and shapes of stored arrays, without reading their values.

    Parameters
    ----------
    found : mapping of Form
        Type and shape of each array in the file, by name.
    declared : mapping of Array
        The expected arrays, by name.
    sizes : dict of int
        Sizes that `Array.shape` names. A name that is not in `sizes` is added, with the size of the
        first stored array that has it.

    Raises
    ------
    ValueError
        When an array is missing, unexpected, or of another type or shape.
    """
    check_names(found, declared)
    for name, form in found.items():
        array = declared[name]
        if form.dtype != array.dtype:
            raise ValueError(f"{name} has type {form.dtype}, not {array.dtype}")
        shape = tuple(
            sizes.setdefault(size, actual) if isinstance(size, str) else size
            for size, actual in zip(array.shape, form.shape, strict=False)
        )
        if len(form.shape) != len(array.shape) or form.shape != shape:
            raise ValueError(f"{name} has shape {list(form.shape)}, not {list(array.shape)}")


def check_names(found: Iterable[str], declared: Mapping[str, Array]) -> None:
    """Check that the names `found` of stored arrays are those of the expected arrays `declared`.

    Raises
    ------
    ValueError
        When an array is missing or unexpected.
    """
    names = set(found)
    missing = [name for name, array in declared.items() if not array.optional and name not in names]
    if missing:
        raise ValueError(f"{min(missing)} is missing")
    unexpected = names - declared.keys()
    if unexpected:
        raise ValueError(f"{min(unexpected)} is not expected")


def check_values(
    found: Mapping[str, npt.NDArray[Any]], declared: Mapping[str, Array], sizes: Mapping[str, int]
) -> None:
    """Check the values of stored arrays against the range and order that `declared` expects.

    Call `check_forms` first: it checks the shapes and collects `sizes`.

    Raises
    ------
    ValueError
        When a value is out of range or out of order.
    """
    for name, values in found.items():
        fault = _fault(values, declared[name], sizes)
        if fault:
            raise ValueError(f"{name} {fault}")


def _fault(values: npt.NDArray[Any], array: Array, sizes: Mapping[str, int]) -> str:
    """What is wrong with the values, as the end of an error message; empty if nothing is."""
    if array.ends_at is not None:
        end = sizes.get(array.ends_at)
        if end is None:
            return "holds starts of rows that are missing"
        if values[0] != 0 or values[-1] != end or bool((values[1:] < values[:-1]).any()):
            return f"does not ascend from 0 to {end}"
    if values.size == 0:
        return ""
    # A NaN makes both extremes NaN, so they show it too, without a second array of this size.
    lowest, highest = values.min(), values.max()
    if values.dtype.kind == "f" and not (lowest >= -LARGEST and highest <= LARGEST):
        return f"holds a number that is NaN, infinite or above {LARGEST:g}"
    if array.low is not None and lowest < array.low:
        return f"holds {lowest}, but the smallest allowed value is {array.low}"
    if array.high is not None and highest >= array.high:
        return f"holds {highest}, but the largest allowed value is {array.high - 1}"
    if array.order == "ascending" and bool((values[1:] < values[:-1]).any()):
        return "is not in ascending order"
    if array.order == "increasing" and bool((values[1:] <= values[:-1]).any()):
        return "is not in increasing order"
    return ""

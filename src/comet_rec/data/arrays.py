"""Declarations of stored arrays, and the checks that a stored array must pass before use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy.typing as npt

LARGEST = 1e15
"""Largest stored real number: inner products of vectors of such numbers are finite in float32."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """Declaration of one stored array. Real numbers must be finite, and at most `LARGEST`.

    Parameters
    ----------
    shape : tuple of int or str
        A text names a size, which is the same wherever the name stands.
    dtype : {"float32", "int64", "int32", "uint8"}
    low, high : int or None
        Smallest value, and one past the largest.
    order : {"any", "ascending", "increasing"}
        Whether each value must be at least the one before it, or larger.
    ends_at : str or None
        Name of a size: the array holds the starts of ragged rows, so it ascends from 0 to that
        size.
    optional : bool
        Whether the array may be missing.
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
    """Type and shape of a stored array."""

    dtype: str
    shape: tuple[int, ...]


def indices(
    shape: tuple[int | str, ...],
    size: int,
    *,
    dtype: Literal["int64", "int32", "uint8"] = "int64",
    order: Literal["any", "ascending", "increasing"] = "any",
) -> Array:
    """Declaration of indices 0 … size − 1."""
    return Array(shape=shape, dtype=dtype, low=0, high=size, order=order)


def starts(rows: int, values: str) -> Array:
    """Declaration of the starts of ragged rows, int64 [rows + 1]; `values` names their size."""
    return Array(shape=(rows + 1,), dtype="int64", ends_at=values)


def under(prefix: str, declared: Mapping[str, Array]) -> dict[str, Array]:
    """The same declarations with the prefix and a dot before each name."""
    return {f"{prefix}.{name}": array for name, array in declared.items()}


def optional(declared: Mapping[str, Array]) -> dict[str, Array]:
    """The same declarations of arrays that may be missing."""
    return {name: replace(array, optional=True) for name, array in declared.items()}


def check_forms(
    found: Mapping[str, Form], declared: Mapping[str, Array], sizes: dict[str, int]
) -> None:
    """Compare names, types and shapes with the declarations; nothing is allocated.

    Parameters
    ----------
    found : mapping of Form
    declared : mapping of Array
    sizes : dict of int
        Known sizes by name. Sizes that `found` decides are added.

    Raises
    ------
    ValueError
    """
    check_names(found, declared)
    for name, form in found.items():
        wanted = declared[name]
        if form.dtype != wanted.dtype:
            raise ValueError(f"{name} has type {form.dtype}, not {wanted.dtype}")
        shape = tuple(
            sizes.setdefault(size, actual) if isinstance(size, str) else size
            for size, actual in zip(wanted.shape, form.shape, strict=False)
        )
        if len(form.shape) != len(wanted.shape) or form.shape != shape:
            raise ValueError(f"{name} has shape {list(form.shape)}, not {list(wanted.shape)}")


def check_names(found: Iterable[str], declared: Mapping[str, Array]) -> None:
    """Compare names with the declarations.

    Raises
    ------
    ValueError
    """
    names = set(found)
    missing = [name for name, array in declared.items() if not array.optional and name not in names]
    if missing:
        raise ValueError(f"{min(missing)} is missing")
    foreign = names - declared.keys()
    if foreign:
        raise ValueError(f"{min(foreign)} is not expected")


def check_values(
    found: Mapping[str, npt.NDArray[Any]], declared: Mapping[str, Array], sizes: Mapping[str, int]
) -> None:
    """Compare values with the declarations; `check_forms` comes first.

    Raises
    ------
    ValueError
    """
    for name, values in found.items():
        fault = _fault(values, declared[name], sizes)
        if fault:
            raise ValueError(f"{name} {fault}")


def _fault(values: npt.NDArray[Any], wanted: Array, sizes: Mapping[str, int]) -> str:
    """Fault of an array's values in words; empty if there is none."""
    if wanted.ends_at is not None:
        end = sizes.get(wanted.ends_at)
        if end is None:
            return "holds starts of rows that are missing"
        if values[0] != 0 or values[-1] != end or bool((values[1:] < values[:-1]).any()):
            return f"does not ascend from 0 to {end}"
    if values.size == 0:
        return ""
    # With a NaN both extremes are NaN. No second array of this size is made.
    lowest, highest = values.min(), values.max()
    if values.dtype.kind == "f" and not (lowest >= -LARGEST and highest <= LARGEST):
        return f"holds a number that is NaN, infinite or above {LARGEST:g}"
    if wanted.low is not None and lowest < wanted.low:
        return f"holds {lowest}, and the least is {wanted.low}"
    if wanted.high is not None and highest >= wanted.high:
        return f"holds {highest}, and the most is {wanted.high - 1}"
    if wanted.order == "ascending" and bool((values[1:] < values[:-1]).any()):
        return "is not in ascending order"
    if wanted.order == "increasing" and bool((values[1:] <= values[:-1]).any()):
        return "is not in increasing order"
    return ""

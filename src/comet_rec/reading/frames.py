"""Columns of pandas frames in types that need no guessing."""

from __future__ import annotations

import sys
import uuid
from typing import Any

from comet_rec.errors import DataError

_DTYPES = {"string": "string", "integer": "Int64", "floating": "float64"}


def _of_categories(column: Any) -> Any:
    """A categorical column as its categories' type; missing integers without a way over floats."""
    kind = column.cat.categories.dtype
    if not column.hasnans or kind.kind not in "iu":
        return column.astype(kind)
    pandas, codes = sys.modules["pandas"], column.cat.codes.to_numpy()
    values = column.cat.categories.to_numpy()[codes.clip(0)]
    return pandas.Series(pandas.arrays.IntegerArray(values, codes < 0), index=column.index)


def pandas_column(column: Any, label: str, name: str) -> Any:
    """The column in a type that DuckDB reads without guessing from a sample."""
    if str(column.dtype) == "category":
        column = _of_categories(column)
    if str(column.dtype) != "object":
        return column
    kind = sys.modules["pandas"].api.types.infer_dtype(column, skipna=True)
    if kind == "mixed" and all(isinstance(v, uuid.UUID) for v in column.dropna()):
        return column
    if kind in ("mixed", "mixed-integer", "mixed-integer-float", "unknown-array", "bytes"):
        raise DataError(f"{name}: column {label!r} mixes types; make it one type, such as text")
    try:
        return column.astype(_DTYPES.get(kind, object))
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{name}: column {label!r} holds numbers beyond 64 bits; make it text"
        ) from error

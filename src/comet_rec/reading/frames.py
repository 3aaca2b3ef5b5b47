"""Frames, matrices and rows in memory as a part of a log."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np

from comet_rec.data.randomness import generator
from comet_rec.errors import DataError
from comet_rec.reading.columns import ROLES, Role, choose, rivals
from comet_rec.reading.parts import LETTER, Part, described
from comet_rec.reading.sniff import POSITIONAL, looks_like_time

Asked = Mapping[Role, str | None]

_DTYPES = {"string": "string", "integer": "Int64", "floating": "float64"}
_HALF = ("float16", "halffloat", "Float16")


def frame_name(source: Any) -> str:
    """What messages call a source in memory."""
    return "the matrix" if hasattr(source, "tocsr") else "the frame"


def open_frame(con: duckdb.DuckDBPyConnection, source: Any, asked: Asked) -> Part:
    """The part of a log that a frame, a matrix or rows make.

    Raises
    ------
    DataError
        When the source is of no known kind, or its columns cannot be told.
    """
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):  # a polars LazyFrame
        columns = list(source.collect_schema().names())
        chosen = choose(columns, asked, frame_name(source))
        source = source.select([columns[place] for place in sorted(set(chosen.values()))]).collect()
    if hasattr(source, "tocsr") and hasattr(source, "nnz"):
        return _sparse(con, source, asked)
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _pandas(con, source, asked)
    if hasattr(source, "__arrow_c_stream__"):
        return _arrow(con, source, asked)
    if isinstance(source, Mapping):
        return _columns(con, {str(key): list(value) for key, value in source.items()}, asked)
    if isinstance(source, np.ndarray) or (
        isinstance(source, Iterable) and not isinstance(source, (str, bytes))
    ):
        return _rows(con, source, asked)
    raise DataError(
        f"cannot read an object of type {type(source).__name__}; give a path, a pandas or polars "
        "DataFrame, an Arrow table, a scipy sparse matrix, a file object, or (user, item) tuples"
    )


class _Stream:
    """Only the Arrow stream of a frame, so that DuckDB asks for no further library."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


def _arrow(con: duckdb.DuckDBPyConnection, frame: Any, asked: Asked) -> Part:
    name = frame_name(frame)
    schema = getattr(frame, "schema", None)
    names = getattr(schema, "names", None)  # polars: a method
    own = [str(column) for column in (names() if callable(names) else names or [])] or None
    halves = _half_columns(frame, own or [])
    if halves:
        frame = _single_precision(frame, halves)
    con.register("frame", _Stream(frame))
    if hasattr(frame, "shape"):
        part = described(con, "frame", name, asked, own)
    else:
        # A stream without a shape may be consumed by its first reading.
        con.execute("CREATE TEMP TABLE streamed AS SELECT * FROM frame")
        part = described(con, "streamed", name, asked, own)
    types = {
        role: "HALFFLOAT" if part.labels[role] in halves else kind
        for role, kind in part.types.items()
    }
    return replace(part, types=types)


def _half_columns(frame: Any, names: Sequence[str]) -> list[str]:
    """Columns of 16-bit floats, which DuckDB does not read."""
    schema = getattr(frame, "schema", None)
    types = getattr(schema, "types", None)
    if types is not None and not callable(types):  # pyarrow
        return [name for name, kind in zip(names, types, strict=True) if str(kind) in _HALF]
    if isinstance(schema, Mapping):  # polars
        return [name for name, kind in schema.items() if str(kind) in _HALF]
    return []


def _single_precision(frame: Any, halves: Sequence[str]) -> Any:
    if "polars" in type(frame).__module__:
        return frame.cast(dict.fromkeys(halves, sys.modules["polars"].Float32))
    pyarrow = sys.modules["pyarrow"]
    for name in halves:
        place = frame.schema.get_field_index(name)
        column = frame.column(place).cast(pyarrow.float32())
        frame = frame.set_column(place, name, column)
    return frame


def _pandas(con: duckdb.DuckDBPyConnection, frame: Any, asked: Asked) -> Part:
    name = frame_name(frame)
    if len(frame) == 0:
        raise DataError(f"{name}: is empty")
    columns = [str(column) for column in frame.columns]
    try:
        chosen = choose(columns, asked, name)
    except DataError as error:
        index = [str(level) for level in frame.index.names if level is not None]
        if index:
            raise type(error)(
                f"{error}; its index holds {', '.join(map(repr, index))}: give frame.reset_index()"
            ) from None
        raise
    parts, types = {}, {}
    for role, place in chosen.items():
        column = _plain_column(frame.iloc[:, place], columns[place], name)
        if str(column.dtype) in _HALF:
            column, types[role] = column.astype("float32"), "HALFFLOAT"
        parts[LETTER[role]] = column
    con.register("frame", sys.modules["pandas"].DataFrame(parts))
    part = _lettered(con, name, chosen)
    labels = {role: columns[place] for role, place in chosen.items()}
    guessed = rivals(columns, asked, chosen)
    return replace(
        part, labels=labels, width=len(columns), guessed=guessed, types={**part.types, **types}
    )


def _lettered(con: duckdb.DuckDBPyConnection, name: str, roles: Iterable[Role]) -> Part:
    """The registered frame, whose columns are the letters of the roles."""
    return described(con, "frame", name, {role: LETTER[role] for role in roles})


def _categories(column: Any) -> Any:
    """A categorical column as its categories' type; missing integers without a way over floats."""
    kind = column.cat.categories.dtype
    if not column.hasnans or kind.kind not in "iu":
        return column.astype(kind)
    pandas, codes = sys.modules["pandas"], column.cat.codes.to_numpy()
    values = column.cat.categories.to_numpy()[codes.clip(0)]
    return pandas.Series(pandas.arrays.IntegerArray(values, codes < 0), index=column.index)


def _plain_column(column: Any, label: str, name: str) -> Any:
    """The column in a type that DuckDB reads without guessing from a sample."""
    if str(column.dtype) == "category":
        column = _categories(column)
    if str(column.dtype) != "object":
        return column
    kind = sys.modules["pandas"].api.types.infer_dtype(column, skipna=True)
    if kind == "decimal":
        return column.map(_exact_text, na_action="ignore").astype("string")
    if kind == "mixed":
        values = column.dropna()
        if all(isinstance(value, uuid.UUID) for value in values):
            return column
        if any(isinstance(value, (list, tuple, set, np.ndarray)) for value in values):
            raise DataError(
                f"{name}: column {label!r} holds lists; give a row for each member, such as "
                f"frame.explode({label!r})"
            )
    if kind in ("mixed", "mixed-integer", "mixed-integer-float", "unknown-array", "bytes"):
        raise DataError(f"{name}: column {label!r} mixes types; make it one type, such as text")
    try:
        return column.astype(_DTYPES.get(kind, object))
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{name}: column {label!r} holds numbers beyond 64 bits; make it text"
        ) from error


def _exact_text(value: Decimal) -> str:
    """A decimal's digits; 7.00 as 7."""
    whole = value.is_finite() and value == value.to_integral_value()
    return format(value.to_integral_value() if whole else value, "f")


def _sparse(con: duckdb.DuckDBPyConnection, matrix: Any, asked: Asked) -> Part:
    name = frame_name(matrix)
    if any(column is not None for column in asked.values()):
        raise DataError(f"{name}: has rows (users) and columns (items), no named columns")
    if len(matrix.shape) != 2:
        raise DataError(f"{name}: has {len(matrix.shape)} dimensions; give users x items")
    rows = matrix.tocsr(copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    if rows.nnz == 0:
        raise DataError(f"{name}: is empty")
    users = np.repeat(np.arange(rows.shape[0], dtype=np.int64), np.diff(rows.indptr))
    parts = {"u": users, "i": rows.indices.astype(np.int64), "r": rows.data.astype(np.float64)}
    # In the order of its columns each user's highest item would be held out.
    order = generator(0, "matrix.order").permutation(rows.nnz)
    con.register("frame", {letter: values[order] for letter, values in parts.items()})
    part = _lettered(con, name, [role for role in ROLES if role != "time"])
    labels: dict[Role, str] = {"user": "row", "item": "column", "rating": "value"}
    remark = "a matrix has no order: its entries are taken in one random order, always the same"
    return replace(part, labels=labels, width=3, remarks=(remark,))


def _rows(con: duckdb.DuckDBPyConnection, source: Iterable[Any], asked: Asked) -> Part:
    """Rows of two to four values: user, item, then rating and time as the values tell."""
    name = "the rows"
    rows = [tuple(row) if _is_row(row) else row for row in source]
    if not rows:
        raise DataError(f"{name}: there are none")
    for place, row in enumerate(rows, 1):
        if not isinstance(row, tuple):
            raise DataError(
                f"{name}, row {place:,}: is a {type(row).__name__}; give (user, item) tuples"
            )
        if len(row) != len(rows[0]) or not 2 <= len(row) <= 4:
            raise DataError(
                f"{name}, row {place:,}: has {len(row)} values; give 2 to 4 in every row: user, "
                "item, rating, time"
            )
    columns = {str(place): list(column) for place, column in enumerate(zip(*rows, strict=True), 1)}
    wanted = dict(asked)
    taken = {column for column in asked.values() if column}
    for role, column in _roles_of_rows(columns).items():
        if wanted.get(role) is None and column not in taken:
            wanted[role] = column
    placed = ", ".join(f"value {column} is the {role}" for role, column in wanted.items() if column)
    part = _columns(con, columns, wanted, name)
    return replace(part, remarks=(placed,) if len(columns) > 2 else ())


def _is_row(row: Any) -> bool:
    return isinstance(row, (tuple, list, np.ndarray, np.void)) and not isinstance(row, str)


def _roles_of_rows(columns: Mapping[str, Sequence[Any]]) -> dict[Role, str]:
    if len(columns) == 4:
        return {role: str(place) for place, role in enumerate(POSITIONAL, 1)}
    roles: dict[Role, str] = {"user": "1", "item": "2"}
    if len(columns) == 3:
        sample = columns["3"][:200]
        dated = all(isinstance(value, (dt.date, np.datetime64)) for value in sample)
        time = dated or looks_like_time([str(value) for value in sample])
        roles["time" if time else "rating"] = "3"
    return roles


def _columns(
    con: duckdb.DuckDBPyConnection,
    columns: Mapping[str, list[Any]],
    asked: Asked,
    name: str = "the columns",
) -> Part:
    """Named lists of Python values of equal length."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"{name}: give lists of one length, not empty")
    chosen = choose(list(columns), asked, name)
    labels = {role: list(columns)[place] for role, place in chosen.items()}
    arrays = {LETTER[role]: _array(columns[label], label, name) for role, label in labels.items()}
    types = {role: _type_of(arrays[LETTER[role]]) for role in labels}
    halves: dict[Role, str] = {role: kind for role, kind in types.items() if kind == "HALFFLOAT"}
    for role in halves:
        arrays[LETTER[role]] = arrays[LETTER[role]].astype(np.float32)
    con.register("frame", arrays)
    part = _lettered(con, name, labels)
    return replace(part, labels=labels, width=len(columns), types={**part.types, **halves})


def _type_of(array: Any) -> str:
    return "HALFFLOAT" if array.dtype == np.float16 else ""


def _array(values: list[Any], label: str, name: str) -> Any:
    """Values of one type as an array that DuckDB takes."""
    kinds = {_kind(value) for value in values}
    if len(kinds) == 2 and kinds == {"int", "float"}:
        kinds = {"float"} if all(abs(value) <= 2**53 for value in values) else kinds
    if len(kinds) != 1 or None in kinds:
        example = next((value for value in values if _kind(value) != _kind(values[0])), values[0])
        raise DataError(
            f"{name}: column {label!r} mixes types, {values[0]!r} and {example!r}; make it one "
            "type, such as text"
        )
    kind = kinds.pop()
    if kind == "int":
        if any(not -(2**63) <= int(value) < 2**63 for value in values):
            return np.array([str(int(value)) for value in values], dtype=object)
        return np.array([int(value) for value in values], dtype=np.int64)
    if kind == "float":
        dtype = values[0].dtype if isinstance(values[0], np.floating) else np.float64
        return np.array(values, dtype=dtype)
    if kind == "time":
        return np.array([np.datetime64(_universal(value), "us") for value in values])
    if kind == "decimal":
        return np.array([_exact_text(value) for value in values], dtype=object)
    return np.array(values, dtype=object)


def _universal(value: Any) -> Any:
    """A time with a zone in UTC and without it, as numpy wants it."""
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    return value


def _kind(value: Any) -> str | None:
    kinds: tuple[tuple[Any, str], ...] = (
        ((bool, np.bool_), ""),
        ((int, np.integer), "int"),
        ((float, np.floating), "float"),
        (str, "text"),
        (uuid.UUID, "uuid"),
        (Decimal, "decimal"),
        ((dt.date, np.datetime64), "time"),
    )
    for types, kind in kinds:
        if isinstance(value, types):
            return kind or None
    return None

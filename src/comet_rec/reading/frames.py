"""Read a log that is in memory: a frame, a sparse matrix, columns or rows."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np

from comet_rec.errors import DataError
from comet_rec.random import generator
from comet_rec.reading.columns import LETTER, Role, choose, event_text, rivals
from comet_rec.reading.database import one_line
from comet_rec.reading.parts import Part, described
from comet_rec.reading.sniff import roles_by_values
from comet_rec.text import shortened

Asked = Mapping[Role, str | None]

_DTYPES = {"string": "string", "integer": "Int64", "floating": "float64"}
MOST_BITS = 10_000
_KINDS: tuple[tuple[Any, str], ...] = (
    ((int, np.integer), "int"),
    (np.float16, "float16"),
    (np.float32, "float32"),
    ((float, np.floating), "float64"),
    (str, "text"),
    (uuid.UUID, "uuid"),
    (Decimal, "decimal"),
    ((dt.date, np.datetime64), "time"),
)
_ROWS: Any = (list, np.ndarray, np.void)
_HALF = ("float16", "halffloat", "Float16")


def frame_name(source: Any) -> str:
    """Name of a source in messages: "the matrix" or "the frame"."""
    return "the matrix" if hasattr(source, "tocsr") else "the frame"


def open_frame(con: duckdb.DuckDBPyConnection, source: Any, asked: Asked) -> Part:
    """Open a log in memory as a part: rows that one SQL query can read.

    Parameters
    ----------
    con : connection
    source : object
        A frame, an Arrow stream, a mapping of columns, an array, a sparse matrix or rows.
    asked : mapping of role to str or None
        Column name that the caller gave for each role (user, item, time, rating), or None.

    Raises
    ------
    DataError
        When the type of the source is not supported, or its columns cannot be recognised.
    """
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):  # a polars LazyFrame
        source = _collected(source, asked)
    if hasattr(source, "tocsr") and hasattr(source, "nnz"):
        return _sparse(con, source, asked)
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _pandas(con, source, asked)
    if hasattr(source, "__arrow_c_stream__"):
        return _arrow(con, source, asked)
    if isinstance(source, Mapping):
        return _columns(
            con, {str(key): _listed(key, value) for key, value in source.items()}, asked
        )
    if isinstance(source, np.ndarray) and source.dtype.names:
        return _columns(con, {name: list(source[name]) for name in source.dtype.names}, asked)
    if (isinstance(source, np.ndarray) and source.ndim > 0) or (
        isinstance(source, Iterable) and not isinstance(source, (str, bytes, np.ndarray))
    ):
        return _rows(con, source, asked)
    raise DataError(
        f"cannot read an object of type {type(source).__name__}; give a path, a pandas or polars "
        "DataFrame, an Arrow table, a scipy sparse matrix, a file object, or (user, item) tuples"
    )


def _collected(frame: Any, asked: Asked) -> Any:
    """Load the needed columns of a lazy polars frame."""
    name = frame_name(frame)
    try:
        columns = list(frame.collect_schema().names())
        chosen = choose(columns, asked, name)
        return frame.select([columns[place] for place in sorted(set(chosen.values()))]).collect()
    except DataError:
        raise
    except Exception as error:  # a lazy plan may fail in any way: files, types, user functions
        raise DataError(f"{name}: cannot be collected: {one_line(error)}") from error


def _listed(key: object, values: Any) -> list[Any]:
    """The values of the column `key` as a list."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise DataError(f"the columns: {key!r} is a {type(values).__name__}; give lists")
    try:
        return list(values)
    except TypeError as error:
        raise DataError(f"the columns: {key!r}: {one_line(error)}") from error


class _Stream:
    """Wrapper that shows DuckDB only the Arrow stream of a frame, so that it imports no library."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


def _arrow(con: duckdb.DuckDBPyConnection, frame: Any, asked: Asked) -> Part:
    """Open a polars frame, an Arrow table or another Arrow stream."""
    name = frame_name(frame)
    names = getattr(getattr(frame, "schema", None), "names", None)  # polars: a method
    columns = [str(column) for column in (names() if callable(names) else names or [])]
    halves = _half_columns(frame, columns)
    if halves:
        read = {columns[place] for place in choose(columns, asked, name).values()}
        halves = [column for column in halves if column in read]
        frame = _single_precision(frame, halves)
    con.register("frame", _Stream(frame))
    table = "frame"
    if not hasattr(frame, "shape"):
        # A stream without a shape may be readable only once.
        con.execute("CREATE TEMP TABLE streamed AS SELECT * FROM frame")
        table = "streamed"
    return described(con, table, name, asked, columns or None, halves)


def _half_columns(frame: Any, names: Sequence[str]) -> list[str]:
    """Names of the columns of 16-bit floats, which DuckDB cannot read."""
    schema = getattr(frame, "schema", None)
    types = getattr(schema, "types", None)
    if types is not None and not callable(types):  # pyarrow
        return [name for name, kind in zip(names, types, strict=True) if str(kind) in _HALF]
    if isinstance(schema, Mapping):  # polars
        return [name for name, kind in schema.items() if str(kind) in _HALF]
    return []


def _single_precision(frame: Any, halves: Sequence[str]) -> Any:
    """Cast the columns `halves` from 16-bit to 32-bit floats."""
    if "polars" in type(frame).__module__:
        return frame.cast(dict.fromkeys(halves, sys.modules["polars"].Float32))
    pyarrow = sys.modules["pyarrow"]
    frame = frame.read_all() if hasattr(frame, "read_all") else frame
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
    series = {
        role: _plain_column(frame.iloc[:, place], columns[place], name)
        for role, place in chosen.items()
    }
    labels = {role: columns[place] for role, place in chosen.items()}
    part = _lettered(con, name, series, labels, len(columns), sys.modules["pandas"].DataFrame)
    return replace(part, guessed=rivals(columns, asked, chosen))


def _lettered(
    con: duckdb.DuckDBPyConnection,
    name: str,
    columns: Mapping[Role, Any],
    labels: Mapping[Role, str],
    width: int,
    frame: Callable[[dict[str, Any]], Any] = dict,
) -> Part:
    """Make a part of a log from one array per role (user, item, time, rating).

    DuckDB reads the arrays as columns u, i, t, r and e of the table that `frame` makes from a dict.
    """
    halves = [LETTER[role] for role, column in columns.items() if str(column.dtype) in _HALF]
    arrays = {LETTER[role]: column for role, column in columns.items()}
    for letter in halves:
        arrays[letter] = arrays[letter].astype("float32")
    con.register("frame", frame(arrays))
    asked = {role: LETTER[role] for role in columns}
    part = described(con, "frame", name, asked, halves=halves)
    return replace(part, labels=labels, width=width)


def _categories(column: Any) -> Any:
    """Convert a categorical pandas column to the type of its categories.

    Integers with missing values stay integers: a cast to floats would round large ids.
    """
    kind = column.cat.categories.dtype
    if not column.hasnans or kind.kind not in "iu":
        return column.astype(kind)
    pandas, codes = sys.modules["pandas"], column.cat.codes.to_numpy()
    values = column.cat.categories.to_numpy()[codes.clip(0)]
    return pandas.Series(pandas.arrays.IntegerArray(values, codes < 0), index=column.index)


def _plain_column(column: Any, label: str, name: str) -> Any:
    """Convert a pandas column to a type that DuckDB need not guess from a sample."""
    if str(column.dtype) == "category":
        column = _categories(column)
    if str(column.dtype).startswith("Sparse"):
        column = column.sparse.to_dense()
    if getattr(column.dtype, "byteorder", "=") not in ("=", "|"):
        column = column.astype(column.dtype.newbyteorder("="))
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
    except UnicodeError as error:
        raise DataError(f"{name}: column {label!r} holds text that is not Unicode") from error
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{name}: column {label!r} holds numbers beyond 64 bits; make it text"
        ) from error


def _exact_text(value: Decimal) -> str:
    """Digits of a decimal number as text; 7.00 becomes 7."""
    is_integer = value.is_finite() and value == value.to_integral_value()
    return format(value.to_integral_value() if is_integer else value, "f")


def _sparse(con: duckdb.DuckDBPyConnection, matrix: Any, asked: Asked) -> Part:
    """Open a scipy sparse matrix of users × items, whose stored values are ratings."""
    name = frame_name(matrix)
    if any(column is not None for column in asked.values()):
        raise DataError(
            f"{name}: has no named columns; leave out user, item, time, rating and events"
        )
    if len(matrix.shape) != 2:
        raise DataError(f"{name}: has {len(matrix.shape)} dimensions; give users x items")
    rows = matrix.tocsr(copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    if rows.nnz == 0:
        raise DataError(f"{name}: is empty")
    users = np.repeat(np.arange(rows.shape[0], dtype=np.int64), np.diff(rows.indptr))
    # A random order: in column order, a split would hold out the highest index of each user.
    order = generator(0, "matrix.order").permutation(rows.nnz)
    columns: dict[Role, Any] = {
        "user": users[order],
        "item": rows.indices.astype(np.int64)[order],
        "rating": rows.data.astype(np.float64)[order],
    }
    labels: dict[Role, str] = {"user": "row", "item": "column", "rating": "value"}
    part = _lettered(con, name, columns, labels, 3)
    remark = "a matrix has no order: its entries are read in a random order that is always the same"
    return replace(part, remarks=(remark,))


def _rows(con: duckdb.DuckDBPyConnection, source: Iterable[Any], asked: Asked) -> Part:
    """Open rows of two to four values: the user, the item and, in any order, rating and time.

    The values decide which column is the rating and which is the time.
    """
    name = "the rows"
    rows = [tuple(row) if isinstance(row, _ROWS) else row for row in source]
    if not rows:
        raise DataError(f"{name}: are empty; give (user, item) tuples")
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
    texts = [[_text_of(value) for value in column[:200]] for column in columns.values()]
    roles = dict(asked)
    for role, label in roles_by_values(texts).items():
        if roles.get(role) is None and label not in asked.values():
            roles[role] = label
    placed = ", ".join(f"value {label} is the {role}" for role, label in roles.items() if label)
    part = _columns(con, columns, roles, name)
    return replace(part, remarks=(placed,) if len(columns) > 2 else ())


def _text_of(value: Any) -> str:
    """The value as short text, from which the role of its column is guessed."""
    return str(value)[:40] if not isinstance(value, int) or abs(value) < 10**40 else "1e40"


def _columns(
    con: duckdb.DuckDBPyConnection,
    columns: Mapping[str, list[Any]],
    asked: Asked,
    name: str = "the columns",
) -> Part:
    """Open columns that are lists of Python values; `columns` maps names to lists."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"{name}: are empty or differ in length; give lists of one length")
    chosen = choose(list(columns), asked, name)
    labels = {role: list(columns)[place] for role, place in chosen.items()}
    arrays = {}
    for role, label in labels.items():
        values = columns[label]
        if role == "event":
            values = [event_text(value) if _is_bool(value) else value for value in values]
        arrays[role] = _array(values, label, name)
    return _lettered(con, name, arrays, labels, len(columns))


def _array(values: list[Any], label: str, name: str) -> Any:
    """Convert the values of a column to an array for DuckDB; missing values become NULL."""
    values = [None if _is_missing(value) else value for value in values]
    present = [value for value in values if value is not None]
    kinds = {_kind(value) for value in present}
    if kinds == {"int", "float64"} and all(abs(value) <= 2**53 for value in present):
        kinds = {"float64"}
    if len(kinds) != 1 or None in kinds:
        first = present[0] if present else None
        other = next((value for value in present if _kind(value) != _kind(first)), first)
        raise DataError(
            f"{name}: column {label!r} mixes types, {_shown(first)} and {_shown(other)}; make it "
            "one type, such as text"
        )
    kind = kinds.pop()
    if kind == "time":
        times = [_universal(value) for value in values]
        return np.array(times, dtype="datetime64[us]")
    if kind in ("float16", "float32", "float64"):
        return np.array([np.nan if value is None else value for value in values], dtype=kind)
    small = kind == "int" and all(-(2**63) <= int(value) < 2**63 for value in present)
    if small and len(present) == len(values):
        return np.array([int(value) for value in values], dtype=np.int64)
    texts = [None if value is None else _text(value, kind, label, name) for value in values]
    return np.array(texts, dtype=object)


def _text(value: Any, kind: str | None, label: str, name: str) -> Any:
    """Convert an integer or a decimal number to text; another value is returned unchanged."""
    if kind == "int" and int(value).bit_length() > MOST_BITS:
        raise DataError(f"{name}: column {label!r} holds numbers of thousands of digits")
    if kind == "int":
        return str(int(value))
    return _exact_text(value) if kind == "decimal" else value


def _shown(value: Any) -> str:
    """Short form of a value for messages."""
    return shortened(repr(value) if _kind(value) != "int" else value)


def _is_missing(value: Any) -> bool:
    """Whether a value is missing: None, NaN, NaT or a missing value of pandas."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return True
    return isinstance(value, (float, np.floating, np.datetime64)) and bool(value != value)


def _universal(value: Any) -> np.datetime64:
    """Convert a date or time to datetime64 in UTC; None becomes NaT."""
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return np.datetime64("NaT" if value is None else value, "us")


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _kind(value: Any) -> str | None:
    """Name of the type of a value, such as "int"; None if the type is not supported.

    A bool is not supported, although Python counts it as an int.
    """
    if _is_bool(value):
        return None
    return next((kind for types, kind in _KINDS if isinstance(value, types)), None)

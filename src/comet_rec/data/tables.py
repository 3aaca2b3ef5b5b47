"""A table of results with named columns, which converts to pandas, polars, Arrow or a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, KeysView, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.errors import InputError, UnknownNameError
from comet_rec.files import written_whole
from comet_rec.text import cropped, printable, table

SHOWN = 10
"""Number of rows that the text form of a table (`str`) shows at most."""
WIDEST = 50
"""Width of a cell in the text form of a table at most, in characters."""
_NOTE = "comet_rec"
"""Key of a note in the metadata of a Parquet file."""
_OPTIONS = {
    "csv": "FORMAT csv, HEADER",
    "tsv": "FORMAT csv, HEADER, DELIMITER '\t'",
    "parquet": "FORMAT parquet",
}


class Table:
    """Named columns of equal length; ``table["item_id"]`` is a column.

    ``in``, ``keys`` and ``dict`` refer to the columns; ``len`` and iteration refer to the rows.
    A conversion such as `to_pandas` imports only its own library. Libraries that read Arrow streams
    accept a table directly (``__arrow_c_stream__``, if pyarrow is installed).

    Parameters
    ----------
    columns : mapping of str to ndarray
        The values of each column, by its name.
    """

    def __init__(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __repr__(self) -> str:
        first = [[_shown(value) for value in column[:SHOWN]] for column in self.columns.values()]
        lines = table(list(self.columns), list(zip(*first, strict=True)), left=0)
        return "\n".join([f"Table({len(self)} rows)", *lines, *["…"] * (len(self) > SHOWN)])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.columns

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self:
            raise UnknownNameError(
                f"no column {name!r}; there are {', '.join(self.columns)} (.rows() gives each row "
                "as a dict)"
            )
        return self.columns[name]

    def keys(self) -> KeysView[str]:
        """Names of the columns."""
        return self.columns.keys()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict of plain Python values."""
        lists = [column.tolist() for column in self.columns.values()]
        for values in zip(*lists, strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def to_pandas(self) -> Any:
        """Convert to a `pandas.DataFrame`."""
        return _library("pandas").DataFrame(self.columns)

    def to_polars(self) -> Any:
        """Convert to a `polars.DataFrame`."""
        polars = _library("polars")
        return polars.DataFrame({k: _plain(v) for k, v in self.columns.items()})

    def to_arrow(self) -> Any:
        """Convert to a `pyarrow.Table`."""
        pyarrow = _library("pyarrow")
        return pyarrow.table({k: pyarrow.array(_plain(v)) for k, v in self.columns.items()})

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def write(self, path: str, form: str) -> None:
        """Write the table to `path` as a ``csv``, ``tsv`` or ``parquet`` file.

        If writing fails, an earlier file at `path` stays unchanged. Cells are written as they are.
        A spreadsheet reads a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula.

        Raises
        ------
        InputError
            When the file cannot be written, or `form` is another format.
        """
        import duckdb

        if form not in _OPTIONS:
            raise InputError(f"form = {form!r}: must be csv, tsv or parquet")
        columns = {k: _texts(v) for k, v in self.columns.items()}
        selected = ", ".join(
            f'CAST("{k}" AS VARCHAR) AS "{k}"' if v.dtype == object else f'"{k}"'
            for k, v in columns.items()
        )
        with written_whole(Path(path)) as fresh, duckdb.connect() as con:
            try:
                con.execute(
                    f"COPY (SELECT {selected} FROM columns) "
                    f"TO '{_quoted(str(fresh))}' ({_OPTIONS[form]})"
                )
            except duckdb.IOException as error:
                raise InputError(f"{path}: cannot be written: {_reason(error)}") from None


def join_parquet(parts: list[str], path: Path, note: str) -> None:
    """Join the rows of Parquet files, in order, into one file at `path`, in bounded memory.

    The file carries the text `note`, which `parquet_note` reads. If writing fails, an earlier file
    at `path` stays unchanged.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    import duckdb

    # With one thread, DuckDB holds one group of rows in memory, instead of one per core.
    with written_whole(path) as fresh, duckdb.connect(config={"threads": 1}) as con:
        try:
            con.execute(
                f"COPY (SELECT * FROM read_parquet(?)) TO '{_quoted(str(fresh))}' "
                f"(FORMAT parquet, KV_METADATA {{{_NOTE}: '{_quoted(note)}'}})",
                [parts],
            )
        except duckdb.IOException as error:
            raise InputError(f"{path}: cannot be written: {_reason(error)}") from None


def parquet_note(path: Path) -> str | None:
    """The text that `join_parquet` added to a file; None for any other file."""
    import duckdb

    with duckdb.connect() as con:
        try:
            rows = con.execute(
                f"SELECT value FROM parquet_kv_metadata('{_quoted(str(path))}') WHERE key = ?",
                [_NOTE.encode()],
            ).fetchall()
        except duckdb.Error:  # no Parquet file, or a damaged one
            return None
    return rows[0][0].decode() if rows else None


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
    return cropped(printable(text), WIDEST)


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"{name} is not installed; install it or use .columns") from None


def _plain(column: npt.NDArray[Any]) -> Any:
    return _texts(column).tolist() if column.dtype == object else column


def _texts(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The column as text if it holds UUIDs or ids of several types; otherwise unchanged."""
    if column.dtype != object:
        return column
    texts = [None if _missing(value) else str(value) for value in column.tolist()]
    return np.array(texts, dtype=object)


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or value != value


def _reason(error: Exception) -> str:
    """Why a file could not be written, in the words of the operating system.

    DuckDB's own message would name a temporary file.
    """
    number = re.search(r'"errno":"(\d+)"', str(error))
    if number:
        return os.strerror(int(number[1]))
    return str(error).splitlines()[0].rsplit('": ', 1)[-1]


def _quoted(path: str) -> str:
    return path.replace("'", "''")

"""Read a table that describes items: a frame or a file with a column of ids and other columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.id_lists import id_list, with_columns
from comet_rec.data.ids import Ids
from comet_rec.data.nearest import shown
from comet_rec.errors import InputError
from comet_rec.reading.database import connect, one_line, quoted, reader_path


def item_columns(
    source: Any, ids_of_log: Ids, column: str | None
) -> tuple[list[Any], dict[str, npt.NDArray[Any]]]:
    """Ids of items and the columns that describe them, from a frame or a file.

    Parameters
    ----------
    source : path, frame, Arrow table or dict of columns
        A path names a CSV or Parquet file.
    ids_of_log : Ids
        Item ids of the log; the ids of the table get their type.
    column : str or None
        Column of ids in the log. The table has its ids there, or in "item_id" or "item".

    Raises
    ------
    InputError
        When the source cannot be read, lacks a column of ids, names an item twice, or has columns
        of different lengths.
    """
    likely = (column, "item_id", "item")
    if isinstance(source, (str, PathLike)):
        source = _file(Path(source), likely)
    source, names = with_columns(source, "items", "a column item_id and features")
    of_ids = _of_ids(names, likely)
    if of_ids is None:
        listed = ", ".join(map(shown, names)) or "no columns"
        raise InputError(f"items: no column item_id among {listed}; rename the column of ids")
    where = f"items, column {shown(of_ids)}"
    stored, _ = ids_of_log.lookup(id_list(source[of_ids], where), where)
    ids = stored.tolist()
    if not ids:
        raise InputError("items: has no rows; give one row for each item")
    if "" in ids:
        raise InputError(f"{where}: an id is empty; fix it, or leave the item out")
    repeated = [item for item, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(f"items: item {shown(repeated[0])} has two rows; give one row for each")
    columns = {
        name: feature_column(source[name], name, len(ids)) for name in names if name != of_ids
    }
    if not columns:
        raise InputError("items: no column describes the items; add one, e.g. their titles")
    return ids, columns


def _of_ids(names: Iterable[Any], likely: Iterable[Any]) -> Any:
    """The column that holds ids; None if there is none."""
    return next((name for name in names if name in likely), None)


def feature_column(given: Any, name: Any, count: int) -> npt.NDArray[Any]:
    """One column that describes items, as an array [count]; entries may be lists.

    Raises
    ------
    InputError
        When `given` is no column, or has another length.
    """
    try:
        values = np.asarray(given)
    except ValueError:  # lists of different lengths
        values = np.empty((0, 0))
    if values.ndim > 1:
        entries = list(given)
        values = np.empty(len(entries), dtype=object)
        values[:] = [str(entry) for entry in entries]
    if values.shape != (count,):
        found = f"{len(values)} values" if values.ndim else "a single value"
        raise InputError(
            f"items, column {shown(name)}: {found} for {count} items; give one value for each item"
        )
    # Numbers of categories are names, not amounts. Their type has a name in pandas alone.
    if str(getattr(given, "dtype", "")) == "category":
        texts = [None if value != value else str(value) for value in values.tolist()]
        values = np.array(texts, dtype=object)
    return values


def _file(path: Path, likely: Iterable[Any]) -> dict[str, npt.NDArray[Any]]:
    """Columns of a CSV or Parquet file; missing values are None or NaN.

    The first column of a CSV file that is one of `likely` is read as text, because ids such as 007
    are no numbers.
    """
    import duckdb

    if not path.is_file():
        raise InputError(f"items: {path}: no such file")
    with connect(path.name, None) as con:
        file = quoted(reader_path(path))
        try:
            table = f"read_parquet({file})"
            if not _is_parquet(path):
                table = f"read_csv({file}, header = true, skip = 0)"
                names = [column[0] for column in con.sql(f"SELECT * FROM {table}").description]
                of_ids = _of_ids(names, likely)
                if of_ids is not None:
                    table = f"{table[:-1]}, types = {{{quoted(of_ids)}: 'VARCHAR'}})"
            columns = con.execute(f"SELECT * FROM {table}").fetchnumpy()
        except duckdb.Error as error:
            raise InputError(
                f"items: {path}: {one_line(error)}; give a CSV file in UTF-8 with a row of names, "
                "or a Parquet file"
            ) from None
    return {name: _filled(values) for name, values in columns.items()}


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _filled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A column of DuckDB without its mask: NaN or None where a value is missing."""
    if not np.ma.is_masked(values):
        return np.ma.getdata(values)
    if values.dtype.kind in "biuf":
        return np.ma.filled(values.astype(np.float64), np.nan)
    objects = np.ma.getdata(values).astype(object)
    objects[np.ma.getmaskarray(values)] = None  # `filled(None)` would write "?"
    return objects

"""A file or a frame as one SQL relation with the columns u, i and, where known, t and r."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import numpy as np

from comet_rec.data.randomness import generator
from comet_rec.errors import DataError
from comet_rec.reading.columns import ROLES, Role, choose, rivals
from comet_rec.reading.database import named, parquet_columns, quoted, reader_path
from comet_rec.reading.frames import pandas_column
from comet_rec.reading.sniff import Format, sniff

LETTER: Mapping[Role, str] = {"user": "u", "item": "i", "time": "t", "rating": "r"}
REJECTS = "rejected"


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Parameters
    ----------
    name : str
        What messages call it.
    relation : str
        SQL that gives the columns; `/*options*/` stands where a CSV reader's options go.
    labels, types : mapping of role to str
        The column's own name, and its DuckDB type.
    width : int
        Number of columns of the whole log.
    format : Format or None
        The file's format; None for a frame.
    guessed : mapping of role to str
        A note on each role that could have fallen on another column.
    unnamed : mapping of role to str
        Columns, by number, that were taken for their place in a file without a header row.
    remark : str
        What else the user has to know.
    """

    name: str
    relation: str
    labels: Mapping[Role, str]
    types: Mapping[Role, str]
    width: int
    format: Format | None = None
    guessed: Mapping[Role, str] = field(default_factory=dict)
    unnamed: Mapping[Role, str] = field(default_factory=dict)
    remark: str = ""

    def notes(self, roles: Sequence[Role]) -> list[str]:
        """What had to be guessed about the columns that are read."""
        placed = [
            f"column {self.unnamed[role]} is the {role}" for role in roles if role in self.unnamed
        ]
        found = [f"{self.name}: no header row: {', '.join(placed)}"] if placed else []
        found += [f"{self.name}: {self.guessed[role]}" for role in roles if role in self.guessed]
        return found + ([f"{self.name}: {self.remark}"] if self.remark else [])

    @property
    def lines(self) -> bool:
        """Whether rows are lines of a text file."""
        return self.format is not None and self.format.kind != "parquet"

    def sql(self, rejects: str = "scratch") -> str:
        """The relation; lines of the wrong shape go to the table `rejects` instead.

        A scan whose rejects are of no interest records them too: with DuckDB's `ignore_errors`
        alone a line with a broken quote may hide the lines behind it.
        """
        return self.relation.replace(
            "/*options*/",
            f"store_rejects=true, rejects_limit=0, rejects_table='{rejects}', "
            f"rejects_scan='{rejects}_scan'",
        )


def source_name(source: Any) -> str:
    """What messages call a source."""
    if isinstance(source, (str, os.PathLike)):
        return os.path.expanduser(os.fsdecode(source))
    return "the matrix" if hasattr(source, "tocsr") else "the frame"


def open_source(
    con: duckdb.DuckDBPyConnection, source: Any, columns: Mapping[Role, str | int | None]
) -> Source:
    """Find out what a source is and which of its columns play which role.

    Raises
    ------
    DataError
        When the source is of no known kind, or `sniff` or `choose` refuses it.
    """
    # A frame's columns may be named by numbers.
    asked = {role: None if name is None else str(name) for role, name in columns.items()}
    if isinstance(source, (str, os.PathLike)):
        return _open_file(con, source_name(source), asked)
    if hasattr(source, "tocsr") and hasattr(source, "nnz"):
        return _open_sparse(con, source, asked)
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _open_pandas(con, source, asked)
    if hasattr(source, "__arrow_c_stream__"):
        return _open_arrow(con, source, asked)
    raise DataError(
        f"cannot read a {type(source).__name__}; give a path, a pandas or polars DataFrame, an "
        "Arrow table or a scipy sparse matrix"
    )


def _select(columns: Mapping[Role, str], table: str) -> str:
    picked = ", ".join(f"{sql} AS {LETTER[role]}" for role, sql in columns.items())
    return f"(SELECT {picked} FROM {table})"


def _open_file(
    con: duckdb.DuckDBPyConnection, name: str, asked: Mapping[Role, str | None]
) -> Source:
    found = sniff(name, [column for column in asked.values() if column])
    if found.kind == "parquet":
        path = quoted(reader_path(found.path))
        table = f"read_parquet({path}, hive_partitioning=false)"
        own = parquet_columns(con, path)
        return replace(_described(con, table, name, asked, own), format=found)
    where, wanted = name, dict(asked)
    unnamed: dict[Role, str] = {}
    remark = ""
    if found.columns[:1] == ("1",):
        where = f"{name} (without a header row; columns are numbered)"
        taken = {column for column in asked.values() if column}
        unnamed = {
            role: column
            for role, column in found.roles.items()
            if wanted.get(role) is None and column not in taken
        }
        wanted |= unnamed
        remark = "" if unnamed else "no header row: its first row was taken as data"
    chosen = choose(found.columns, wanted, where)
    labels = {role: found.columns[place] for role, place in chosen.items()}
    if found.kind == "ndjson":
        parts = {
            role: _json_text(label, whole=role in ("user", "item"))
            for role, label in labels.items()
        }
        # A broken line becomes NULL here, so that it is a bad row and never an error.
        rows = (
            f"(SELECT CASE WHEN json_valid(line) THEN line END AS json FROM "
            f"{_csv(found, ['line'])} WHERE trim(line) <> '')"
        )
        relation = _select(parts, rows)
    else:
        names = [f"c{place}" for place in range(len(found.columns))]
        parts = {role: names[place] for role, place in chosen.items()}
        if found.padded:
            parts = {
                role: f"ltrim({column}, ' ')" if chosen[role] > 0 else column
                for role, column in parts.items()
            }
        relation = _select(parts, _csv(found, names))
    types = dict.fromkeys(chosen, "VARCHAR")
    guessed = rivals(found.columns, wanted, chosen)
    width = len(found.columns)
    return Source(name, relation, labels, types, width, found, guessed, unnamed, remark)


def _csv(found: Format, columns: list[str]) -> str:
    declared = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
    delimiter = found.delimiter if found.kind == "delimited" else "\x1f"
    return (
        f"read_csv({quoted(reader_path(found.path))}, auto_detect=false, header=false, "
        f"skip={found.skip}, delim={quoted(delimiter)}, new_line='{found.line_end}', "
        f"quote='{found.quote}', escape='{found.quote}', columns={{{declared}}}, "
        f"compression='{found.compression}', "
        "hive_partitioning=false, /*options*/)"
    )


def _json_text(key: str, *, whole: bool) -> str:
    """A member as text: a string or an integer as it is, 3.0 as 3; NULL for anything else."""
    pointer = quoted("/" + key.replace("~", "~0").replace("/", "~1"))
    value = f"(json ->> {pointer})"
    real = f"regexp_replace({value}, '\\.0+$', '')"
    if whole:
        real = f"CASE WHEN regexp_full_match({real}, '-?\\d+') THEN {real} END"
    return (
        f"CASE json_type(json, {pointer}) WHEN 'VARCHAR' THEN {value} WHEN 'UBIGINT' THEN {value} "
        f"WHEN 'BIGINT' THEN {value} WHEN 'DOUBLE' THEN {real} END"
    )


def _described(
    con: duckdb.DuckDBPyConnection, table: str, name: str, asked: Mapping[Role, str | None],
    own: Sequence[str] | None = None,
) -> Source:  # fmt: skip
    """A source whose columns DuckDB knows by name and type.

    `own` are the columns' names: DuckDB gives another one to a name that differs from an earlier
    one in case alone.
    """
    described = con.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
    renamed, types = [str(row[0]) for row in described], [str(row[1]) for row in described]
    columns = renamed if own is None else list(own)
    chosen = choose(columns, asked, name)
    picked = {role: named(renamed[place]) for role, place in chosen.items()}
    kinds = {role: types[place] for role, place in chosen.items()}
    for role in ("user", "item", "time"):
        if kinds.get(role) in WIDE:
            picked[role], kinds[role] = f"CAST({picked[role]} AS VARCHAR)", "VARCHAR"
    labels = {role: columns[place] for role, place in chosen.items()}
    guessed = rivals(columns, asked, chosen)
    return Source(name, _select(picked, table), labels, kinds, len(columns), guessed=guessed)


WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT")
"""Types that may hold more than an int64, as hashes do: they are read as text is."""


class _Stream:
    """Only the Arrow stream of a frame, so that DuckDB asks for no further library."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.frame.__arrow_c_stream__(requested_schema)


def _open_arrow(
    con: duckdb.DuckDBPyConnection, frame: Any, asked: Mapping[Role, str | None]
) -> Source:
    name = source_name(frame)
    names = getattr(getattr(frame, "schema", None), "names", None)  # polars: a method
    own = names() if callable(names) else names
    con.register("frame", _Stream(frame))
    if hasattr(frame, "shape"):
        return _described(con, "frame", name, asked, own)
    # A stream without a shape may be consumed by its first reading.
    con.execute("CREATE TEMP TABLE streamed AS SELECT * FROM frame")
    return _described(con, "streamed", name, asked, own)


def _open_pandas(
    con: duckdb.DuckDBPyConnection, frame: Any, asked: Mapping[Role, str | None]
) -> Source:
    name = source_name(frame)
    if len(frame) == 0:
        raise DataError(f"{name}: is empty")
    columns = [str(column) for column in frame.columns]
    chosen = choose(columns, asked, name)
    parts = {}
    for role, place in chosen.items():
        parts[LETTER[role]] = pandas_column(frame.iloc[:, place], columns[place], name)
    picked = sys.modules["pandas"].DataFrame(parts)
    con.register("frame", picked)
    letters: dict[Role, str | None] = {role: LETTER[role] for role in chosen}
    source = _described(con, "frame", name, letters)
    labels = {role: columns[place] for role, place in chosen.items()}
    guessed = rivals(columns, asked, chosen)
    return replace(source, labels=labels, width=len(columns), guessed=guessed)


def _open_sparse(
    con: duckdb.DuckDBPyConnection, matrix: Any, asked: Mapping[Role, str | None]
) -> Source:
    name = source_name(matrix)
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
    parts = {letter: values[order] for letter, values in parts.items()}
    con.register("frame", parts)
    letters: dict[Role, str | None] = {role: LETTER[role] for role in ROLES if role != "time"}
    source = _described(con, "frame", name, letters)
    labels: dict[Role, str] = {"user": "row", "item": "column", "rating": "value"}
    remark = "a matrix has no order: its entries are taken in one random order, always the same"
    return replace(source, labels=labels, width=3, remark=remark)

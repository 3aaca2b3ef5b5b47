"""A private in-memory DuckDB for one reading."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath

import duckdb


@contextmanager
def connect(threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database that touches no network and leaves no file behind.

    Parameters
    ----------
    threads : int, optional
        Number of threads; all cores when not given.
    """
    with tempfile.TemporaryDirectory(prefix="comet-rec-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": spill,
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        if threads is not None:
            config["threads"] = str(threads)
        con = duckdb.connect(":memory:", config=config)
        try:
            con.execute("SET TimeZone = 'UTC'")
            con.execute("SET enable_progress_bar = false")
            yield con
        finally:
            con.close()


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def reader_path(path: str | PathLike[str]) -> str:
    """A path in which DuckDB's readers see no pattern."""
    return re.sub(r"([*?\[])", r"[\1]", fspath(path))


def one_line(error: BaseException) -> str:
    """The first line of an error's text, without DuckDB's class in front."""
    text = str(error).strip().split("\n")[0]
    return re.sub(r"^[A-Z][A-Za-z ]*Error: ", "", text)

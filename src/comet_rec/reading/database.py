"""A private in-memory DuckDB database that reads one log."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import duckdb

from comet_rec import memory
from comet_rec.config import MOST_THREADS, is_whole
from comet_rec.errors import DataError

DATABASE_SHARE = 0.4
"""Share of the memory limit that DuckDB may take; its usual limit does not need more."""
# Above this limit DuckDB moves tables to temporary files. Hashes and times of 20 M rows fit.
BASE_MEMORY_MB = 512
THREAD_MEMORY_MB = 160


def whole_number(name: str, value: Any) -> int:
    """Check that the argument called `name` is a whole number, and return it as an int.

    Raises
    ------
    DataError
        When `value` is negative or not a whole number.
    """
    if not is_whole(value) or value < 0:
        raise DataError(f"{name} is {value!r}; give a whole number, 0 or more")
    return int(value)


@contextmanager
def connect(name: str, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Context with a new database to read a source; it uses no network and leaves no files behind.

    Parameters
    ----------
    name : str
        Name of the source in messages.
    threads : int, optional
        Number of threads; by default all cores.

    Raises
    ------
    DataError
        When `threads` is not in 1 … `MOST_THREADS`, and in place of errors inside the context:
        errors of DuckDB, text that is not Unicode and numbers that are too large.
    """
    if threads is not None and not 1 <= whole_number("threads", threads) <= MOST_THREADS:
        raise DataError(f"threads is {threads}; give 1 to {MOST_THREADS}")
    with tempfile.TemporaryDirectory(prefix="comet-rec-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": spill,
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        if threads is not None:
            config["threads"] = str(threads)
        count = threads or os.cpu_count() or 1
        usual = (BASE_MEMORY_MB + THREAD_MEMORY_MB * count) * 10**6
        config["memory_limit"] = f"{memory.share(DATABASE_SHARE, usual) // 10**6}MB"
        con = duckdb.connect(":memory:", config=config)
        try:
            con.execute("SET TimeZone = 'UTC'")
            con.execute("SET enable_progress_bar = false")
            yield con
        except (duckdb.Error, UnicodeError, OverflowError) as error:
            raise DataError(f"{name}: cannot be read: {one_line(error)}") from error
        finally:
            con.close()


def quoted(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def spill_folder(con: duckdb.DuckDBPyConnection) -> str:
    """Folder of the database for temporary files; `connect` deletes it at the end."""
    return str(con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0])


def reader_path(path: str | PathLike[str]) -> str:
    """`path` with escaped wildcards, so that DuckDB does not read it as a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", fspath(path))


def one_line(error: BaseException) -> str:
    """The first line of an error's text, without the class name that DuckDB puts before it."""
    text = str(error).strip().split("\n")[0]
    return re.sub(r"^[A-Z][A-Za-z ]*Error: ", "", text)

"""`read`: the function that turns a log (file, frame or matrix) into `Interactions`."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Int32, Interactions
from comet_rec.errors import CometWarning, DataError, argument
from comet_rec.reading.bad_rows import bad_rows, skipped, too_many
from comet_rec.reading.cautions import Remarks
from comet_rec.reading.columns import ROLES, Role, event_text
from comet_rec.reading.database import connect, one_line, spill_folder, whole_number
from comet_rec.reading.files import LogFile, is_path, is_path_list, log_files, shown
from comet_rec.reading.frames import frame_name, open_frame
from comet_rec.reading.indexing import HashError, Indexer, Repeats, Scope
from comet_rec.reading.parts import FileOpener, Part
from comet_rec.reading.sniff import TextOptions
from comet_rec.reading.table import LogTable
from comet_rec.text import shortened

if TYPE_CHECKING:
    import duckdb

LISTED_EVENTS = 8


def read(
    source: Any,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    rating: str | int | None = None,
    min_rating: float | None = None,
    min_user_interactions: int = 0,
    min_item_interactions: int = 0,
    skip_bad: int = 0,
    time_scope: Scope = "auto",
    time_format: str | None = None,
    repeats: Repeats = "first",
    events: Mapping[str, Sequence[str]] | None = None,
    encoding: str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    threads: int | None = None,
) -> Interactions:
    """Read a log.

    Parameters
    ----------
    source : path, list of paths, frame, matrix, file object, bytes or rows
        Files: CSV (separated by `,` `;` `|` `::`, tabs or blanks), NDJSON or Parquet, recognised
        by content. Text may be compressed with gzip, bzip2, xz or zstd. Several files are one log,
        in the order of their names: a list, a folder, a pattern such as `day-*.csv`, or Hive
        partitions. A log in memory is a pandas or polars frame, an object with an Arrow stream or
        a mapping of columns. It may also be rows: tuples of user, item and optionally rating and
        time. The non-zeros of a scipy sparse matrix of users × items are ratings.
    user, item, time, rating : str or int, optional
        Column names; common names are recognised by default. Columns of a file without a header
        row are named "1", "2", …. Rows without times keep their order. A matrix has no order: it
        is read in a random order that is always the same.
    min_rating : float, optional
        Drop rows with a lower rating. The result keeps the (user, item) pairs of these rows as
        `dropped_users` and `dropped_items`.
    min_user_interactions, min_item_interactions : int
        Drop users with fewer distinct items, and items with fewer distinct users. This is repeated
        until both limits hold.
    skip_bad : int
        Number of bad rows that may be skipped.
    time_scope : {"auto", "global", "per_user", "none"}
        Whether times compare across users ("global"), or only within a user ("per_user"). "auto"
        means "per_user" if every user's times are just the positions 0…n−1 (or 1…n) of the user's
        rows, else "global". "none" ignores the time column.
    time_format : str, optional
        Format of the times for `strptime`, such as "%d.%m.%Y %H:%M". Numbers and common date
        formats are recognised without it.
    repeats : {"first", "last"}
        Which row of a repeated (user, item) pair counts: the earliest or the latest. Rows with
        equal times, or without times, count in the order of the file.
    events : mapping of a column name to a list of values, optional
        Keep only rows of these events, such as ``{"event": ["cart", "purchase"]}``. Other rows
        count as if the log did not hold them, and their ids and times are not checked.
    encoding : str, optional
        Encoding of text files, such as "latin-1", "cp1252", "utf-16" or "gbk"; by default UTF-8.
    quote, escape : str, optional
        Quote character of text files ("" for none), and the character that makes the next one
        plain text. By default `"` encloses a field; a quote inside the field is doubled or follows
        a backslash. Files that clearly use no quotes are recognised.
    threads : int, optional
        Number of threads; by default all cores.

    Returns
    -------
    Interactions
        The rows, sorted by user and then by time; one row of a repeated pair is kept.
        Integer times stay as they are; dates and times with fractions become microseconds. The
        `notes` tell how the log was read.

    Raises
    ------
    DataError
        When the log cannot be read. The message is one line: where, what is wrong, how to fix it.

    Warns
    -----
    CometWarning
        When values may not mean what they seem to: ids that a spreadsheet rounded, times in two
        units, ratings of 0, ….
    """
    asked: dict[Role, str | int | None] = {
        "user": user, "item": item, "time": time, "rating": rating
    }  # fmt: skip
    asked["event"], kept_events = _events(events)
    if repeats not in ("first", "last"):
        raise DataError(f"repeats is {repeats!r}; give first or last")
    min_user = whole_number("min_user_interactions", min_user_interactions)
    min_item = whole_number("min_item_interactions", min_item_interactions)
    if time_format is not None and not (isinstance(time_format, str) and "%" in time_format):
        raise DataError(
            f"time_format is {time_format!r}; give a format of strptime, such as '%d.%m.%Y %H:%M'"
        )
    with connect(source_name(source), threads) as con:
        name, parts = open_log(
            con, source, asked, encoding=encoding, quote=quote, escape=escape, events=kept_events
        )
        roles = _roles(name, parts, min_rating, time_scope)
        # Hashes of text ids take half the memory of the texts but need a second scan. That is too
        # slow for JSON, and frames are in memory already.
        hashed = all(part.files and not part.is_json for part in parts)
        watches = min_rating is None and all("rating" in part.labels for part in parts)
        table = LogTable(
            con, name, parts, roles, time_form=time_format, watches_ratings=watches, hashed=hashed,
            events=kept_events,
        )  # fmt: skip
        try:
            log, doubts = _indexed(table, min_rating, skip_bad, time_scope, repeats)
        except HashError:
            con.execute("DROP TABLE texts; DROP TABLE ids_u; DROP TABLE IF EXISTS ids_i")
            table = replace(table, parts=parts, hashed=False)
            log, doubts = _indexed(table, min_rating, skip_bad, time_scope, repeats)
    kept = _cored(log, min_user, min_item)
    if len(kept) == 0:
        raise DataError(f"{name}: no interaction is left after the filters; lower them")
    for doubt in doubts:
        warnings.warn(doubt, CometWarning, stacklevel=2)
    options: dict[str, Any] = {
        role: str(column)
        for role, column in asked.items()
        if role != "event" and column is not None
    }
    options |= {
        "min_rating": None if min_rating is None else float(min_rating),
        "min_user_interactions": min_user or None, "min_item_interactions": min_item or None,
        "time_format": time_format, "repeats": None if repeats == "first" else repeats,
        "events": {asked["event"]: list(kept_events)} if kept_events else None,
        "encoding": encoding, "quote": quote, "escape": escape,
    }  # fmt: skip
    reading = {name: value for name, value in options.items() if value is not None}
    return replace(kept, reading=reading)


def _events(events: Any) -> tuple[str | None, tuple[str, ...]]:
    """Column of the events and the events to keep, from the argument `events` of `read`."""
    if events is None:
        return None, ()
    example = argument("events", {"event": ["cart", "purchase"]})
    if not isinstance(events, Mapping) or len(events) != 1:
        raise DataError(f"events are {events!r}; give one column and its values: {example}")
    ((column, values),) = events.items()
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        values = [values]
    texts = tuple(dict.fromkeys(map(event_text, values)))
    if not texts or "" in texts:
        raise DataError(f"events of column {str(column)!r}: give at least one value: {example}")
    return str(column), texts


def source_name(source: Any) -> str:
    """Name of a source in messages, such as its path or "the frame"."""
    if is_path(source):
        return shown(source)
    if is_path_list(source):
        names = [shown(path) for path in source if is_path(path)]
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the bytes"
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the file"))
    return frame_name(source)


def open_log(
    con: duckdb.DuckDBPyConnection,
    source: Any,
    columns: Mapping[Role, str | int | None],
    *,
    encoding: str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    events: tuple[str, ...] = (),
) -> tuple[str, list[Part]]:
    """Open a log: detect its type, and the columns of the user, item, time, rating and event.

    Parameters
    ----------
    con : connection
    source, encoding, quote, escape
        As for `read`.
    columns : mapping of role to name, position or None
        Columns that the caller named.
    events : tuple of str
        Events of the rows that are kept, if the caller named a column of events.

    Returns
    -------
    name : str
        Name of the log in messages.
    parts : list of Part
        The rows of the log in one or more parts. One SQL query can read a part.

    Raises
    ------
    DataError
        When the type of the source is not supported, or its columns cannot be recognised.
    """
    # The column names of a frame may be integers.
    asked = {role: None if name is None else str(name) for role, name in columns.items()}
    name = source_name(source)
    if is_path(source) or is_path_list(source):
        files = log_files(source)
    elif isinstance(source, (bytes, bytearray, memoryview)) or hasattr(source, "read"):
        path = Path(spill_folder(con)) / "given"
        files = [LogFile(path, name)]
        if _write(source, name, path):
            encoding = None
    else:
        part = open_frame(con, source, asked)
        return part.name, [part]
    opener = FileOpener(con, TextOptions(asked, encoding, quote, escape, events))
    return name, opener.parts(files)


def _write(source: Any, name: str, path: Path) -> bool:
    """Write bytes, or the content of an open file, to `path`; return whether it was text."""
    was_text = False
    with path.open("wb") as out:
        if not hasattr(source, "read"):
            out.write(bytes(source))
            return was_text
        try:
            while chunk := source.read(1 << 20):
                was_text = isinstance(chunk, str)
                out.write(chunk.encode() if isinstance(chunk, str) else chunk)
        except Exception as error:  # a file object of the caller may fail in any way
            raise DataError(f"{name}: cannot be read: {one_line(error)}") from error
    return was_text


def _once(notes_of_parts: list[tuple[str, list[str]]]) -> list[str]:
    """Notes with the name of their part; a note of several parts is given once."""
    names: dict[str, list[str]] = {}
    for name, notes in notes_of_parts:
        for note in notes:
            names.setdefault(note, []).append(name)
    lines = []
    for note, parts in names.items():
        more = f" and {len(parts) - 1:,} more" if len(parts) > 1 else ""
        lines.append(f"{parts[0]}{more}: {note}")
    return lines


def load_rows(table: LogTable, skip_bad: int, remarks: Remarks) -> None:
    """Read the rows of a log into its table in the database, and delete the bad rows.

    Parameters
    ----------
    table : LogTable
        The table, which knows the files or frames to read.
    skip_bad : int
        Number of bad rows that may be skipped.
    remarks : Remarks
        Collects notes and warnings for the user.

    Raises
    ------
    DataError
        When more than `skip_bad` rows are bad, or no row is good.
    """
    whole_number("skip_bad", skip_bad)
    table.fill()
    if table.events:
        _check_events(table)
    remarks.notes += _once([(part.name, part.notes(table.roles)) for part in table.parts])
    remarks.doubt(_once([(part.name, list(part.cautions)) for part in table.parts]))
    rows = table.count("SELECT count(*) FROM log")
    if table.n_bad > skip_bad or (table.n_bad and table.misfits == rows):  # no good row is left
        raise too_many(table)
    if table.n_bad:
        remarks.notes.append(skipped(table))
        remarks.first_bad = str(bad_rows(table, 1)[0])
        table.con.execute(f"DELETE FROM log WHERE {table.misfit}")
    if rows == 0:
        raise DataError(f"{table.name}: has no rows")
    if table.events:
        kept, total, lost = table.con.execute(
            "SELECT count(*) FILTER (e > 0), count(*), "
            "count(DISTINCT u) - count(DISTINCT u) FILTER (e > 0) FROM log"
        ).fetchall()[0]
        column, listed = table.parts[0].labels["event"], ", ".join(table.events)
        if kept == 0:
            raise DataError(f"{table.name}: has no good rows with {column!r} in {listed}")
        without = f"; users without such a row, who are left out: {lost:,}" if lost else ""
        remarks.notes.append(f"kept {kept:,} of {total:,} rows: {column} in {listed}{without}")


def _check_events(table: LogTable) -> None:
    """Refuse events that no row has; the message lists the commonest events of the log."""
    query = "SELECT DISTINCT e FROM log"
    present = {number for (number,) in table.con.execute(query).fetchall()}
    missing = [event for number, event in enumerate(table.events, 1) if number not in present]
    if not missing:
        return
    union = " UNION ALL ".join(f"SELECT e FROM {part.relation}" for part in table.parts)
    rows = table.con.execute(
        f"SELECT e FROM ({union}) WHERE e <> '' GROUP BY e ORDER BY count(*) DESC, e "
        f"LIMIT {LISTED_EVENTS + 1}"
    ).fetchall()
    known = ", ".join(repr(shortened(event, 40)) for (event,) in rows[:LISTED_EVENTS])
    more = ", …" if len(rows) > LISTED_EVENTS else ""
    column = table.parts[0].labels["event"]
    raise DataError(
        f"{table.name}: column {column!r}: no row has {shortened(missing[0], 40)!r}; its values "
        f"are {known or 'empty'}{more}"
    )


def _indexed(
    table: LogTable, min_rating: float | None, skip_bad: int, time_scope: Scope, repeats: Repeats
) -> tuple[Interactions, list[str]]:
    """Read a log into its table; return the interactions and the warnings for the user."""
    remarks = Remarks()
    load_rows(table, skip_bad, remarks)
    log = Indexer(table, min_rating, remarks, repeats).interactions(time_scope)
    return log, remarks.doubts


def _roles(
    name: str, parts: Sequence[Part], min_rating: float | None, time_scope: str
) -> tuple[Role, ...]:
    """Roles (user, item, time, rating) whose columns are needed for these arguments of `read`."""
    labels = parts[0].labels
    if time_scope not in ("auto", "global", "per_user", "none"):
        raise DataError(f"time_scope is {time_scope!r}; give auto, global, per_user or none")
    if min_rating is not None and not (
        isinstance(min_rating, (numbers.Real, Decimal)) and math.isfinite(min_rating)
    ):
        raise DataError(f"min_rating is {min_rating!r}; give a number")
    if min_rating is not None and "rating" not in labels:
        raise DataError(
            f"{name}: has no rating column for {argument('min_rating')}; name it with "
            f"{argument('rating')}"
        )
    if time_scope in ("global", "per_user") and "time" not in labels:
        raise DataError(
            f"{name}: has no time column for {time_scope} times; name it with {argument('time')}"
        )
    # `LogTable` has a column of its own for events.
    unused = {"rating": min_rating is None, "time": time_scope == "none", "event": True}
    return tuple(role for role in ROLES if role in labels and not unused.get(role, False))


def _cored(log: Interactions, min_user: int, min_item: int) -> Interactions:
    """Drop users with fewer than `min_user` items, and items with fewer than `min_item` users.

    This is repeated until no such user or item is left.
    """
    if max(min_user, min_item) <= 1:  # every id of the log has a pair
        return log
    keep = np.ones(len(log), dtype=np.bool_)
    while True:
        rare_users = np.bincount(log.users[keep], minlength=log.n_users) < min_user
        rare_items = np.bincount(log.items[keep], minlength=log.n_items) < min_item
        fewer = keep & ~rare_users[log.users] & ~rare_items[log.items]
        if bool(np.array_equal(fewer, keep)):
            break
        keep = fewer
    if bool(keep.all()):
        return log
    new_user, user_ids = _renumbered(log.users[keep], log.user_ids)
    new_item, item_ids = _renumbered(log.items[keep], log.item_ids)

    def renumbered(users: Int32, items: Int32) -> tuple[Int32, Int32]:
        both = (new_user[users] >= 0) & (new_item[items] >= 0)
        return new_user[users[both]], new_item[items[both]]

    users, items = renumbered(log.users[keep], log.items[keep])
    dropped_users, dropped_items = renumbered(log.dropped_users, log.dropped_items)
    zero_users, zero_items = renumbered(log.zero_users, log.zero_items)
    note = (
        f"{log.n_users - len(user_ids)} users and {log.n_items - len(item_ids)} items with too "
        f"few interactions removed, with {int((~keep).sum())} interactions"
    )
    return replace(
        log,
        users=users,
        items=items,
        times=None if log.times is None else log.times[keep],
        user_ids=user_ids,
        item_ids=item_ids,
        dropped_users=dropped_users,
        dropped_items=dropped_items,
        notes=(*log.notes, note),
        origin=None if log.origin is None else replace(log.origin, few=int((~keep).sum())),
        zero_users=zero_users,
        zero_items=zero_items,
    )


def _renumbered(indices: Int32, ids: Ids) -> tuple[Int32, Ids]:
    """New index of each old index (−1 if it is not in `indices`), and the ids that are left."""
    used = np.bincount(indices, minlength=len(ids)) > 0
    new = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return new, Ids(ids.kind, ids.values[used])

"""Any log, file or frame, to `Interactions`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from comet_rec.data.ids import IdKind, Ids
from comet_rec.data.interactions import Int32, Interactions
from comet_rec.errors import DataError, argument
from comet_rec.reading.bad_rows import skipped, too_many
from comet_rec.reading.cautions import Remarks
from comet_rec.reading.columns import ROLES, Role
from comet_rec.reading.database import connect, one_line, refusing, whole_number
from comet_rec.reading.files import LogFile, is_path, is_path_list, log_files, shown
from comet_rec.reading.frames import frame_name, open_frame
from comet_rec.reading.indexing import HashError, LogTable
from comet_rec.reading.parts import FileOpener, Part
from comet_rec.reading.stage import Staged, may_be_hashed, stage
from comet_rec.reading.typed import check_form, misfit

if TYPE_CHECKING:
    import duckdb

Scope = Literal["auto", "global", "per_user", "none"]


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
    encoding: str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    threads: int | None = None,
) -> Interactions:
    """Read a log.

    Parameters
    ----------
    source : path, list of paths, frame, matrix, file object, bytes or rows
        Files: CSV with `,` `;` `|` tabs or blanks, `::`, NDJSON or Parquet; text plain, gzip,
        bzip2, xz or zstd; told by content. Several files are one log: a list, a folder, a pattern
        such as `day-*.csv`, hive partitions; they count in the order of their names. In memory: a
        pandas or polars frame, anything with an Arrow stream, a mapping of columns, (user, item)
        tuples with a rating or a time behind, or a scipy sparse matrix of users × items whose
        stored non-zeros are the ratings.
    user, item, time, rating : str or int, optional
        Column names; common names are recognised when not given. Columns of a file without a
        header row are named "1", "2", …. Rows without times keep their order; a matrix has none
        and is read in a random one, always the same.
    min_rating : float, optional
        Rows rated lower are dropped; their pairs are kept apart as `dropped_users` and
        `dropped_items`.
    min_user_interactions, min_item_interactions : int
        Users (items) with fewer distinct pairs are dropped, until both limits hold.
    skip_bad : int
        Number of bad rows that may be skipped.
    time_scope : {"auto", "global", "per_user", "none"}
        Whether times compare across users. "auto": per user when every user's times are just the
        positions 0…n−1 (or 1…n) of the rows, else global. "none" ignores the time column.
    time_format : str, optional
        How times are written, as for `strptime`: "%d.%m.%Y %H:%M". Numbers and common forms of
        dates are recognised without it.
    encoding : str, optional
        Of text files: "latin-1", "cp1252", "utf-16", "gbk", …; UTF-8 when not given.
    quote, escape : str, optional
        The quote character of text files ("" for none), and the character that makes the next one
        text. Without them fields are quoted with `"`, which is doubled (or escaped with a
        backslash) inside; files that are plainly not quoted are recognised.
    threads : int, optional
        Number of threads; all cores when not given.

    Returns
    -------
    Interactions
        In canonical order; integer times as they are, dates and fractions in microseconds. Its
        `notes` say what was done.

    Raises
    ------
    DataError
        When the log cannot be read as asked; one line that says where and what to do.

    Warns
    -----
    CometWarning
        For what may not mean what it seems to: ids that a spreadsheet rounded, times of two units,
        ratings of 0, ….
    """
    asked: dict[Role, str | int | None] = {
        "user": user, "item": item, "time": time, "rating": rating
    }  # fmt: skip
    limits = _limits(user=min_user_interactions, item=min_item_interactions)
    check_form(time_format)
    remarks = Remarks()
    with connect(threads) as con, refusing(source_name(source)):
        name, parts = open_log(con, source, asked, encoding=encoding, quote=quote, escape=escape)
        roles = _roles(name, parts, min_rating, time_scope)
        log = _indexed(
            con, name, parts, roles, min_rating, skip_bad, time_scope, time_format, remarks
        )
    kept = _cored(log, *limits)
    if len(kept) == 0:
        raise DataError(f"{name}: no interaction is left after the filters; lower them")
    remarks.warn(stacklevel=2)
    return kept


def source_name(source: Any) -> str:
    """Name of a source in messages."""
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
) -> tuple[str, list[Part]]:
    """Find out what a source is, and which of its columns play which role.

    Raises
    ------
    DataError
        When the source is of no known kind, or its columns cannot be told.
    """
    # A frame's columns may be named by numbers.
    asked = {role: None if name is None else str(name) for role, name in columns.items()}
    name = source_name(source)
    if is_path(source) or is_path_list(source):
        files = log_files(source)
    elif isinstance(source, (bytes, bytearray, memoryview)) or hasattr(source, "read"):
        path, was_text = _spooled(con, source, name)
        files = [LogFile(path, name)]
        encoding = None if was_text else encoding
    else:
        part = open_frame(con, source, asked)
        return part.name, [part]
    opener = FileOpener(con, asked, encoding, quote, escape)
    return name, opener.parts(files)


def _spooled(con: duckdb.DuckDBPyConnection, source: Any, name: str) -> tuple[Path, bool]:
    """Bytes or an open file as a file within the database's folder; whether they were text."""
    was_text = False
    spill = con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    path = Path(spill) / "given"
    with path.open("wb") as out:
        if not hasattr(source, "read"):
            out.write(bytes(source))
            return path, was_text
        try:
            while chunk := source.read(1 << 20):
                was_text = isinstance(chunk, str)
                out.write(chunk.encode() if isinstance(chunk, str) else chunk)
        except Exception as error:  # a file of others, which may unpack, decode or fetch
            raise DataError(f"{name}: cannot be read: {one_line(error)}") from error
    return path, was_text


def load_rows(
    con: duckdb.DuckDBPyConnection,
    name: str,
    parts: Sequence[Part],
    roles: tuple[Role, ...],
    skip_bad: int,
    remarks: Remarks,
    fixed: Mapping[Role, IdKind] | None = None,
    form: str | None = None,
    *,
    watches_ratings: bool = False,
    hashed: bool = False,
) -> Staged:
    """Fill the table `log` with the good rows.

    Parameters
    ----------
    skip_bad : int
        Number of bad rows that may be left out.
    fixed, form, watches_ratings, hashed
        As for `stage`.

    Raises
    ------
    DataError
        When more rows are bad than may be, or none is good.
    """
    whole_number("skip_bad", skip_bad)
    staged = stage(
        con, name, parts, roles, fixed, form, watches_ratings=watches_ratings, hashed=hashed
    )
    for part in staged.parts:
        for note in part.notes(roles):
            remarks.note(note)
        remarks.doubt(f"{part.name}: {caution}" for caution in part.cautions)
    if staged.n_bad > skip_bad:
        raise too_many(con, staged)
    if staged.n_bad:
        remarks.note(skipped(con, staged))
        con.execute(f"DELETE FROM log WHERE {misfit(roles)}")
    if con.execute("SELECT count(*) FROM log").fetchall()[0][0] == 0:
        raise DataError(f"{name}: has no rows{' that are good' if staged.n_bad else ''}")
    return staged


def _limits(**limits: int) -> list[int]:
    return [whole_number(f"min_{role}_interactions", limit) for role, limit in limits.items()]


def _indexed(
    con: duckdb.DuckDBPyConnection,
    name: str,
    parts: Sequence[Part],
    roles: tuple[Role, ...],
    min_rating: float | None,
    skip_bad: int,
    time_scope: Scope,
    form: str | None,
    remarks: Remarks,
) -> Interactions:
    watches = min_rating is None and all("rating" in part.labels for part in parts)

    def indexed(remarks: Remarks, *, hashed: bool) -> Interactions:
        staged = load_rows(
            con, name, parts, roles, skip_bad, remarks, form=form, watches_ratings=watches,
            hashed=hashed,
        )  # fmt: skip
        return LogTable(con, staged, min_rating).interactions(time_scope, remarks)

    if not may_be_hashed(parts):
        return indexed(remarks, hashed=False)
    tried = Remarks()
    try:
        log = indexed(tried, hashed=True)
    except HashError:
        con.execute("DROP TABLE texts; DROP TABLE ids_u; DROP TABLE IF EXISTS ids_i")
        return indexed(remarks, hashed=False)
    remarks.notes, remarks.doubts = tried.notes, tried.doubts
    return log


def _roles(
    name: str, parts: Sequence[Part], min_rating: float | None, time_scope: str
) -> tuple[Role, ...]:
    """The columns that the call needs."""
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
    unused = {"rating": min_rating is None, "time": time_scope == "none"}
    return tuple(role for role in ROLES if role in labels and not unused.get(role, False))


def _cored(log: Interactions, min_user: int, min_item: int) -> Interactions:
    """Drop users and items with too few pairs, until none is left."""
    if max(min_user, min_item) <= 1:  # an id that the log knows has a pair
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
    users, user_ids, new_user = _reindexed(log.users[keep], log.user_ids)
    items, item_ids, new_item = _reindexed(log.items[keep], log.item_ids)
    dropped_users, dropped_items = new_user[log.dropped_users], new_item[log.dropped_items]
    both = (dropped_users >= 0) & (dropped_items >= 0)
    zero_users, zero_items = new_user[log.zero_users], new_item[log.zero_items]
    zero = (zero_users >= 0) & (zero_items >= 0)
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
        dropped_users=dropped_users[both],
        dropped_items=dropped_items[both],
        notes=(*log.notes, note),
        zero_users=zero_users[zero],
        zero_items=zero_items[zero],
    )


def _reindexed(indices: Int32, ids: Ids) -> tuple[Int32, Ids, Int32]:
    """Indices over the ids that occur, those ids, and old index → new index or −1."""
    used = np.bincount(indices, minlength=len(ids)) > 0
    new = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return new[indices], Ids(ids.kind, ids.values[used]), new

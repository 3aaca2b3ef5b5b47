"""The one line that says which row of a log is bad, where it stands, and what to do."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

import duckdb

from comet_rec.errors import DataError
from comet_rec.reading.columns import Role
from comet_rec.reading.records import plain_lines, records
from comet_rec.reading.sources import LETTER, REJECTS, Source
from comet_rec.reading.staging import Kinds, family, misfit, values

_REASONS = {
    "TOO MANY COLUMNS": "has more than {width} columns",
    "MISSING COLUMNS": "has fewer than {width} columns",
    "UNQUOTED VALUE": "has a quote that is not closed",
    "INVALID ENCODING": "is not UTF-8",
    "LINE SIZE OVER MAXIMUM": "is longer than 2 MB",
}


def bad_rows(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    kinds: Kinds,
    roles: tuple[Role, ...],
    count: int,
) -> DataError:
    """The error for a log with `count` bad rows, pointing at the first one."""
    rejects = _rejects(con) if source.lines else {}
    found = con.execute(f"SELECT min(rowid) FROM log WHERE {misfit(roles)}").fetchall()[0][0]
    row = None if found is None else int(found)
    where, reason = _first(con, source, kinds, roles, rejects, row)
    advice = "mend it" if count == 1 else f"{count} rows are bad; mend them"
    return DataError(f"{source.name}{where}{reason}; {advice} or pass --skip-bad {count}")


def _rejects(con: duckdb.DuckDBPyConnection) -> dict[int, str]:
    """Type of error by record, counted from 1 with blank and header lines."""
    found = con.execute(f"SELECT line, min(error_type) FROM {REJECTS} GROUP BY line").fetchall()
    return {int(line): str(kind) for line, kind in found}


def _first(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    kinds: Kinds,
    roles: tuple[Role, ...],
    rejects: dict[int, str],
    row: int | None,
) -> tuple[str, str]:
    """Where the first bad row is, and what is wrong with it."""
    if source.format is None or not source.lines:
        assert row is not None
        return f", row {row + 1}", _misfit(con, source, kinds, roles, row)
    place = _locate(source, set(rejects), row)
    if place is None:  # the two parsers disagree about the lines in front
        reject = min(rejects, default=None)
        line = ""
    else:
        reject = place.record if place.rejected else None
        line = f", line {place.line}"
    if reject is not None and (row is None or place is not None):
        kind = rejects[reject]
        text = _REASONS.get(kind, f"is malformed ({kind.lower()})")
        if source.format.kind == "ndjson" and kind in ("TOO MANY COLUMNS", "UNQUOTED VALUE"):
            text = "is not valid JSON"
        return line, ": " + text.format(width=source.width)
    assert row is not None
    return line, _misfit(con, source, kinds, roles, row)


@dataclass(frozen=True)
class _Place:
    line: int
    record: int
    rejected: bool


def _locate(source: Source, rejects: set[int], row: int | None) -> _Place | None:
    """The first line that is a reject, or that holds the row-th row of `log`."""
    assert source.format is not None
    skip = source.format.skip
    # In front of the first reject and of the row, lines need only be counted if nothing is odd.
    least = min([*rejects] if row is None else [*rejects, skip + row + 1], default=1)
    passed = plain_lines(source.format, least - 1)
    if passed[0] < skip:
        passed = (0, 0)
    rows = max(0, passed[0] - skip)
    try:
        for record, (line, blank) in enumerate(records(source.format, passed), passed[0] + 1):
            if record in rejects:
                return _Place(line, record, True)
            if blank or line <= skip:
                continue
            if rows == row:
                return _Place(line, record, False)
            rows += 1
    except csv.Error:
        pass
    return None


def _misfit(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    kinds: Kinds,
    roles: tuple[Role, ...],
    row: int,
) -> str:
    """What is wrong with the values of one row of the source."""
    every = values(source, kinds, roles)
    letters = ", ".join(LETTER[role] for role in every)
    fits = ", ".join(f"({value}) IS NOT NULL" for value in every.values())
    picked = con.execute(
        f"SELECT {letters}, {fits} FROM (FROM {source.sql()} LIMIT 1 OFFSET {row})"
    ).fetchall()[0]
    raw, fit = picked[: len(roles)], picked[len(roles) :]
    json = source.format is not None and source.format.kind == "ndjson"
    if json and all(value is None for value in raw):
        return ": is not a JSON object with these members"
    for role, value, good in zip(roles, raw, fit, strict=True):
        if not good:
            return f", column {source.labels[role]!r}: {_reason(role, value, source, json)}"
    return ": is bad"


def _reason(role: Role, value: object, source: Source, json: bool) -> str:
    if value is None or value == "":
        return "is missing, or neither a number nor text" if json else "is empty"
    shown = re.sub(r"\s", " ", str(value))
    shown = repr(shown if len(shown) <= 40 else shown[:37] + "...")
    if role in ("time", "user", "item") and re.fullmatch(r"[+-]?\d{18,}", str(value)):
        return f"{shown} is beyond 64 bits"
    if role == "time":
        return f"{shown} is not a time"
    if role == "rating":
        return f"{shown} is not a rating"
    if family(source.types[role]) == "text":
        return f"{shown} is no plain integer, and the ids of the log are"
    return f"{shown}: ids are integers or text"

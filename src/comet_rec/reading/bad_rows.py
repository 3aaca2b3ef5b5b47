"""Which rows of a log are bad: their lines, what is wrong with them, and the error that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from comet_rec.errors import DataError, argument
from comet_rec.reading.clean import INEXACT
from comet_rec.reading.columns import Role
from comet_rec.reading.parts import LETTER, Part, file_of_row
from comet_rec.reading.stage import Staged, header_pairs
from comet_rec.reading.typed import ACCEPTED, EXACT_BITS, family, misfit, values

SHOWN = 5
BLOCK_BYTES = 1 << 22
ADVISED_SHARE = 0.1
"""Share of bad rows above which the columns or the format are wrong, and skipping is no advice."""


@dataclass(frozen=True)
class BadRow:
    """Where a bad row is ("log.csv", "line 7"), and what is wrong (": has a quote …")."""

    file: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}{self.reason}"


def bad_rows(con: duckdb.DuckDBPyConnection, staged: Staged, most: int = SHOWN) -> list[BadRow]:
    """The first bad rows of each part, at most `most` in all."""
    query = f"SELECT rowid FROM log WHERE {misfit(staged.roles)} ORDER BY rowid LIMIT {most}"
    misfits = [int(row) for (row,) in con.execute(query).fetchall()]
    found: list[BadRow] = []
    ends = [*staged.starts[1:], None]
    for part, start, end in zip(staged.parts, staged.starts, ends, strict=True):
        rows = [row - start for row in misfits if row >= start and (end is None or row < end)]
        found += _of_part(con, staged, part, rows, most)
    return found[:most]


def _of_part(
    con: duckdb.DuckDBPyConnection, staged: Staged, part: Part, rows: Sequence[int], most: int
) -> list[BadRow]:
    if part.bad is not None:
        lined = [(line, reason) for line, reason in part.bad.rows[:most]]
        for row in rows:
            query = f"SELECT line FROM (FROM {part.relation} LIMIT 1 OFFSET {row})"
            line = int(con.execute(query).fetchall()[0][0])
            lined.append((line, _reason(con, staged, part, row)))
        return [BadRow(part.name, f"line {line}", reason) for line, reason in sorted(lined)]
    if part.text is None:
        name = part.files[0].name if part.files else part.name
        return [BadRow(name, f"row {row + 1}", _reason(con, staged, part, row)) for row in rows]
    found = []
    for row in rows:
        at, within = file_of_row(part, row)
        line, text = _line_of(part, part.plain[at], within)
        shape = "" if part.is_json else _shape(part, text)
        reason = shape or _reason(con, staged, part, row)
        found.append(BadRow(part.files[at].name, f"line {line}", reason))
    return found


def line_of_row(con: duckdb.DuckDBPyConnection, staged: Staged, row: int) -> str:
    """Where a row of `log` stands, such as "line 7" or "log.csv, line 7"."""
    at = max(place for place, start in enumerate(staged.starts) if start <= row)
    part, row = staged.parts[at], row - staged.starts[at]
    many = sum(len(one.files) for one in staged.parts) > 1
    if part.text is None:
        name, word, line = part.name, "row", row + 1
    elif part.bad is not None:
        query = f"SELECT line FROM (FROM {part.relation} LIMIT 1 OFFSET {row})"
        name, word, line = part.name, "line", int(con.execute(query).fetchall()[0][0])
    else:
        at, within = file_of_row(part, row)
        name, word, line = part.files[at].name, "line", _line_of(part, part.plain[at], within)[0]
    return f"{name}, {word} {line}" if many else f"{word} {line}"


def _line_of(part: Part, path: Path, row: int) -> tuple[int, str]:
    """Number and text of the line that holds a record, counted from 0; each line is a record."""
    assert part.text is not None
    skip = part.text.skip
    blank = b" \t\r\n" if part.is_json else b"\r\n"
    lines = count = 0
    with path.open("rb") as file:
        for block, n_lines, n_records in _blocks(file, blank, skip):
            if count + n_records <= row:
                lines, count = lines + n_lines, count + n_records
                continue
            for line in block.split(b"\n")[:n_lines]:
                lines += 1
                if lines <= skip or not line.strip(blank):
                    continue
                if count == row:
                    return lines, line.decode("utf-8", errors="replace").rstrip("\r\n")
                count += 1
    return lines, ""


def _blocks(file: object, blank: bytes, skip: int) -> Iterator[tuple[bytes, int, int]]:
    """Whole lines, their number, and the number of records among them.

    The block with the lines in front of the first record is counted line by line.
    """
    passed = 0
    while block := file.read(BLOCK_BYTES):  # type: ignore[attr-defined]
        block += file.readline()  # type: ignore[attr-defined]
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        # Cheap where no line can be empty: no two line ends in a row.
        plain = passed >= skip and blank == b"\r\n" and not re.search(rb"\A\r?\n|\n\r?\n", block)
        if plain:
            records = lines
        else:
            texts = block.split(b"\n")[:lines]
            records = sum(
                passed + place >= skip and bool(text.strip(blank))
                for place, text in enumerate(texts)
            )
        yield block, lines, records
        passed += lines


def _shape(part: Part, text: str) -> str:
    """Fault in the number of fields of a line; empty when there is none."""
    assert part.text is not None
    fields = part.text.splitter.fields(text) or part.text.splitter.plain(text)
    if len(fields) == part.width:
        return ""
    more = "more" if len(fields) > part.width else "fewer"
    return f": has {more} than {part.width} columns"


def _reason(con: duckdb.DuckDBPyConnection, staged: Staged, part: Part, row: int) -> str:
    """Fault in the values of one row of a part."""
    roles = staged.roles
    every = values(part, staged.kinds, roles)
    # As text: Python has no type for some of what DuckDB reads.
    letters = ", ".join(f"CAST({LETTER[role]} AS VARCHAR)" for role in every)
    fits = ", ".join(f"({value}) IS NOT NULL" for value in every.values())
    picked = con.execute(
        f"SELECT {letters}, {fits} FROM (FROM {part.relation} LIMIT 1 OFFSET {row})"
    ).fetchall()[0]
    raw, fit = picked[: len(roles)], picked[len(roles) :]
    if part.is_json and all(value is None for value in raw):
        return ": is not a JSON object with these members"
    if any(tuple(raw[:2]) == pair for pair in header_pairs(part)):
        return ": repeats the header, as joined files do"
    for role, value, good in zip(roles, raw, fit, strict=True):
        if not good:
            return f", column {part.labels[role]!r}: {_fault(role, value, part)}"
    return ": is bad"


def _fault(role: Role, value: str | None, part: Part) -> str:
    if value is None or value == "":
        return "is missing, or neither a number nor text" if part.is_json else "is empty"
    shown = re.sub(r"\s", " ", value)
    shown = repr(shown if len(shown) <= 40 else shown[:37] + "...")
    group = family(part.types[role])
    if role in ("user", "item") and group == "real":
        bits = EXACT_BITS[part.types[role]]
        number = float(value)
        if number == number and abs(number) > 2**bits:
            if bits == 53:
                return f"{shown} {INEXACT}"
            size = {11: 16, 24: 32}[bits]
            return (
                f"{shown}: {size}-bit floats are exact up to 2^{bits} only; make ids integers or "
                "text"
            )
        return f"{shown}: ids are integers or text"
    if role in ("time", "user", "item") and re.fullmatch(r"[+-]?\d{18,}", value):
        return f"{shown} is beyond 64 bits"
    if role == "time":
        return f"{shown} is not a time"
    if role == "rating":
        return f"{shown} is not a rating"
    if group == "text":
        return f"{shown} is no plain integer, and the ids of the log are"
    return f"{shown}: ids are integers or text"


def too_many(con: duckdb.DuckDBPyConnection, staged: Staged) -> DataError:
    """The error for a log with more bad rows than may be skipped: the first one, and what to do."""
    first = bad_rows(con, staged, 1)[0]
    count, rows = staged.n_bad, _rows(con, staged)
    fix = "fix it" if count == 1 else f"{count:,} rows are bad; fix them"
    if count == rows or count > max(SHOWN, ADVISED_SHARE * rows):
        many = f"{count:,} of {rows:,} rows are bad"
        return DataError(f"{first}; {many}; {_other_advice(first)}")
    quotes = ""
    if " quote " in first.reason:
        quotes = f" say how quotes are written ({argument('quote')}, {argument('escape')}),"
    return DataError(f"{first}; {fix},{quotes} or pass {argument('skip_bad', count)}")


def _rows(con: duckdb.DuckDBPyConnection, staged: Staged) -> int:
    """Number of all rows, bad ones included."""
    kept = int(con.execute("SELECT count(*) FROM log").fetchall()[0][0])
    return kept + sum(part.bad.count for part in staged.parts if part.bad)


def _other_advice(first: BadRow) -> str:
    """Advice when so many rows are bad that a column or the format must be wrong."""
    if "is not a time" in first.reason:
        return (
            f"accepted are {ACCEPTED}; for another form pass {argument('time_format')}, such as "
            "'%d.%m.%Y %H:%M'"
        )
    if " quote " in first.reason:
        return f"say how quotes are written with {argument('quote')} and {argument('escape')}"
    if "encoding" in first.reason:
        return "the encoding is the likely cause"
    return "check that the columns are the right ones"


def skipped(con: duckdb.DuckDBPyConnection, staged: Staged) -> str:
    """The note on bad rows that were skipped."""
    shown = bad_rows(con, staged)
    several = sum(max(1, len(part.files)) for part in staged.parts) > 1
    listed = "; ".join(str(row) if several else f"{row.place}{row.reason}" for row in shown)
    more = f"; and {staged.n_bad - len(shown):,} more" if staged.n_bad > len(shown) else ""
    return f"{staged.n_bad:,} bad row{'s' * (staged.n_bad > 1)} skipped: {listed}{more}"

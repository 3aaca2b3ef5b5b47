"""Bad rows of a log: their lines, what is wrong with them, and the error message."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from comet_rec.errors import DataError, argument
from comet_rec.reading.clean import INEXACT, width_fault
from comet_rec.reading.columns import IDS, LETTER, Role
from comet_rec.reading.parts import Part
from comet_rec.reading.table import LogTable, header_pairs
from comet_rec.reading.typed import ACCEPTED, EXACT_BITS, family

SHOWN = 5
BLOCK_BYTES = 1 << 22
ADVISED_SHARE = 0.1
"""Above this share of bad rows a column or the format is probably wrong; messages say so."""


@dataclass(frozen=True)
class BadRow:
    """A bad row: its place (file "log.csv", unit "line", number 7) and the reason why it is bad."""

    file: str
    unit: str
    number: int
    reason: str

    @property
    def place(self) -> str:
        """Place of the row in its file, such as "line 7"."""
        return f"{self.unit} {self.number}"

    def __str__(self) -> str:
        return f"{self.file}, {self.place}{self.reason}"


def bad_rows(table: LogTable, limit: int = SHOWN) -> list[BadRow]:
    """The first bad rows of a log, at most `limit`."""
    query = f"SELECT rowid FROM log WHERE {table.misfit} ORDER BY rowid LIMIT {limit}"
    misfits = [int(row) for (row,) in table.con.execute(query).fetchall()]
    rows: list[BadRow] = []
    ends = [*table.starts[1:], math.inf]
    for part, start, end in zip(table.parts, table.starts, ends, strict=True):
        bad = [_bad_row(table, part, misfit - start) for misfit in misfits if start <= misfit < end]
        if part.bad is not None:
            bad += [
                BadRow(part.name, "line", line, reason) for line, reason in part.bad.rows[:limit]
            ]
            bad.sort(key=lambda row: row.number)
        rows += bad
    return rows[:limit]


def _bad_row(table: LogTable, part: Part, row: int) -> BadRow:
    """Place and reason of a bad row; `row` is its number within the part."""
    file, unit, number, text = _located(table, part, row)
    if part.rows is not None:  # delimited text, read by DuckDB
        fields = part.text.splitter.fields(text) or part.text.splitter.plain(text)
        if len(fields) != part.width:
            return BadRow(file, unit, number, width_fault(len(fields), part.width))
    return BadRow(file, unit, number, _reason(table, part, row))


def place_of_row(table: LogTable, row: int) -> str:
    """Place of a row of the table `log` in its file, such as "line 7" or "log.csv, line 7"."""
    at = max(place for place, start in enumerate(table.starts) if start <= row)
    file, unit, number, _ = _located(table, table.parts[at], row - table.starts[at])
    one_file = sum(len(part.files) for part in table.parts) <= 1
    return f"{unit} {number}" if one_file else f"{file}, {unit} {number}"


def _located(table: LogTable, part: Part, row: int) -> tuple[str, str, int, str]:
    """Place of a row of a part: file, "line" or "row", number, and the text of the line.

    The text is empty if it is not known.
    """
    if not part.plain:
        return part.name, "row", row + 1, ""
    if part.bad is not None:
        query = f"SELECT line FROM (FROM {part.relation} LIMIT 1 OFFSET {row})"
        return part.name, "line", table.count(query), ""
    place, record = part.file_of_row(row)
    return part.files[place].name, "line", *_line_of(part, part.plain[place], record)


def _line_of(part: Part, path: Path, record: int) -> tuple[int, str]:
    """Number and text of the line that holds a record (from 0), if each record is one line."""
    skip = part.text.skip
    blank = b" \t\r" if part.is_json else b"\r"
    blank_line = re.compile(rb"(?:\A|\n)[%s]*\n" % blank)
    lines = records = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            block += file.readline()
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            # Skip a block before the record in one step only if each of its lines is a record.
            only_records = lines >= skip and not blank_line.search(block)
            if only_records and records + count <= record:
                lines, records = lines + count, records + count
                continue
            for line in block.removesuffix(b"\n").split(b"\n"):
                lines += 1
                if lines <= skip or not line.strip(blank):
                    continue
                if records == record:
                    return lines, line.decode("utf-8", errors="replace").rstrip("\r")
                records += 1
    return lines, ""


def _reason(table: LogTable, part: Part, row: int) -> str:
    """Reason why a row is bad, as the end of a message; `row` is its number within the part."""
    typed = part.values(table.kinds, table.roles)
    # Cast to text: Python has no equivalent of some DuckDB types.
    letters = ", ".join(f"CAST({LETTER[role]} AS VARCHAR)" for role in typed)
    fits = ", ".join(f"({value}) IS NOT NULL" for value in typed.values())
    picked = table.con.execute(
        f"SELECT {letters}, {fits} FROM (FROM {part.relation} LIMIT 1 OFFSET {row})"
    ).fetchall()[0]
    raw, fit = picked[: len(typed)], picked[len(typed) :]
    if part.is_json and all(value is None for value in raw):
        return ": is not a JSON object with these members"
    if tuple(raw[:2]) in header_pairs(part):
        return ": repeats the header, as joined files do"
    for role, value, fits_kind in zip(typed, raw, fit, strict=True):
        if not fits_kind:
            return f", column {part.labels[role]!r}: {_fault(role, value, part)}"
    return ": is bad"


def _fault(role: Role, value: str | None, part: Part) -> str:
    """Reason why one value does not fit its column, as the end of a message."""
    if value is None or value == "":
        return "is missing, or neither a number nor text" if part.is_json else "is empty"
    shown = re.sub(r"\s", " ", value)
    shown = repr(shown if len(shown) <= 40 else shown[:37] + "...")
    group = family(part.types[role])
    if role in IDS and group == "real":
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
    if role != "rating" and re.fullmatch(r"[+-]?\d{18,}", value):
        return f"{shown} is beyond 64 bits"
    if role == "time":
        return f"{shown} is not a time"
    if role == "rating":
        return f"{shown} is not a rating"
    if group == "text":
        return f"{shown} is no plain integer, unlike the ids of the log"
    return f"{shown}: ids are integers or text"


def too_many(table: LogTable) -> DataError:
    """Error for a log with too many bad rows: its message shows the first one and how to fix it."""
    first = bad_rows(table, 1)[0]
    count = table.n_bad
    rows = table.count("SELECT count(*) FROM log") + count - table.misfits
    if count == rows or count > max(SHOWN, ADVISED_SHARE * rows):
        many = f"{count:,} of {rows:,} rows are bad"
        return DataError(f"{first}; {many}; {_other_advice(first)}")
    fix = "fix it" if count == 1 else f"{count:,} rows are bad; fix them"
    quotes = ""
    if " quote " in first.reason:
        quotes = f" say how quotes are written ({argument('quote')}, {argument('escape')}),"
    return DataError(f"{first}; {fix},{quotes} or pass {argument('skip_bad', count)}")


def _other_advice(first: BadRow) -> str:
    """Advice if so many rows are bad that a column or the format must be wrong."""
    if "is not a time" in first.reason:
        return (
            f"accepted are {ACCEPTED}; for another format pass {argument('time_format')}, such as "
            "'%d.%m.%Y %H:%M'"
        )
    if " quote " in first.reason:
        return f"say how quotes are written with {argument('quote')} and {argument('escape')}"
    if "encoding" in first.reason:
        return "the encoding is the likely cause"
    return "check that the columns are the right ones"


def skipped(table: LogTable) -> str:
    """Note with the number of bad rows that were skipped, and the first of these rows."""
    shown = bad_rows(table)
    several = sum(max(1, len(part.files)) for part in table.parts) > 1
    listed = "; ".join(str(row) if several else f"{row.place}{row.reason}" for row in shown)
    more = f"; and {table.n_bad - len(shown):,} more" if table.n_bad > len(shown) else ""
    return f"{table.n_bad:,} bad row{'s' * (table.n_bad > 1)} skipped: {listed}{more}"

"""What a log file is, told by its first bytes: compression, format, delimiter, header, columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from comet_rec.errors import DataError
from comet_rec.reading.columns import Role, find, recognised
from comet_rec.reading.packed import Compression, compression_of, head_of, verify

HEAD_RECORDS = 200
DELIMITERS = ("::", "\t", ";", "|", ",")  # the order breaks ties
POSITIONAL: tuple[Role, ...] = ("user", "item", "rating", "time")

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DATE = re.compile(r"\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}.*")
_OTHER_MAGIC = {
    b"PK\x03\x04": "a zip archive or workbook",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True)
class Format:
    """How to read one file; columns of a file without a header row are named "1", "2", ….

    `roles` says which of them are the user, item, rating and time by position; `skip` is the
    number of lines in front of the first row; `line_end` is as SQL writes it; with `padded` a
    blank behind the delimiter is no part of what follows.
    """

    path: Path
    name: str
    kind: Literal["delimited", "ndjson", "parquet"]
    compression: Compression = "none"
    delimiter: str = ","
    line_end: Literal["\\n", "\\r\\n"] = "\\n"
    skip: int = 0
    columns: tuple[str, ...] = ()
    roles: Mapping[Role, str] = field(default_factory=dict)
    padded: bool = False

    @property
    def quote(self) -> str:
        """The quote character; MovieLens' `::` files have none."""
        return "" if self.kind != "delimited" or self.delimiter == "::" else '"'


def sniff(path: str | Path, asked: Sequence[str] = ()) -> Format:
    """Tell a file's format by its content.

    Parameters
    ----------
    path : path
        The file; its name and extension are not looked at.
    asked : sequence of str
        Column names that the caller gave: a first row that has one of them is a header.

    Raises
    ------
    DataError
        When there is no such file, or it is empty, binary, truncated, or not a table with at
        least two columns, or it cannot be told whether its first row is a header.
    """
    name, path = str(path), Path(path)
    try:
        if path.is_dir():
            raise DataError(f"{name}: is a directory; give a file")
        if not path.exists():
            raise DataError(f"{name}: no such file")
        if not path.is_file():
            raise DataError(f"{name}: is not a regular file; give a file on disk")
        with path.open("rb") as file:
            magic = file.read(16)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name!r}: cannot be opened: {error}") from error
    if not magic:
        raise DataError(f"{name}: is empty")
    if magic.startswith(b"PAR1"):
        return Format(path, name, "parquet")
    compression = compression_of(magic)
    if compression != "none":
        verify(path, name, compression)
    head, whole = head_of(path, name, compression)
    base = Format(path, name, "delimited", compression)
    return _sniff_text(base, _text(head, whole, name), asked)


def _text(head: bytes, whole: bool, name: str) -> str:
    """The head as text, in whole lines."""
    for magic, what in _OTHER_MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{name}: is {what}; unpack or export it to CSV or Parquet")
    if head.startswith(b"PAR1"):
        raise DataError(f"{name}: is Parquet inside another compression; unpack it")
    if head.startswith(_UTF16):
        raise DataError(f"{name}: is UTF-16 or UTF-32; save it as UTF-8")
    if b"\x00" in head:
        raise DataError(f"{name}: holds NUL bytes: binary or UTF-16; give UTF-8 text or Parquet")
    if not whole:
        end = head.rfind(b"\n")
        if end < 0:
            raise DataError(f"{name}: line 1 is longer than {len(head)} bytes; is this a log?")
        head = head[: end + 1]
    text = head.decode("utf-8", errors="replace").removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{name}: is empty")
    return text


def _sniff_text(base: Format, text: str, asked: Sequence[str]) -> Format:
    name = base.name
    first = text.lstrip().split("\n", 1)[0].strip()
    if first == "[" or first.startswith(("[{", "[ {")):
        raise DataError(f"{name}: is a JSON array; write one object per line (NDJSON)")
    if first == "{" or first.startswith('{"') or _object(first) is not None:
        keys: dict[str, None] = {}
        for line in text.split("\n")[:HEAD_RECORDS]:
            keys.update(dict.fromkeys(_object(line) or {}))
        if not keys:
            raise DataError(f"{name}, line 1: is not a JSON object; write one object per line")
        return replace(base, kind="ndjson", columns=tuple(keys), line_end=_line_end(text))
    delimiter, table = _delimiter(text, name, asked)
    unquoted = text if delimiter == "::" else re.sub(r'"[^"]*"', "", text)
    padded = (
        delimiter != "\t"
        and all(
            field.startswith(" ")
            for row in table.rows
            if len(row) == table.width  # a comma in quotes that were not seen makes another
            for field in row[1:]
        )
    )
    base = replace(base, delimiter=delimiter, line_end=_line_end(unquoted), padded=padded)
    if padded:  # a quote may stand behind the blank
        table = _split(text, delimiter, padded=True)
    if _has_header(table, delimiter, asked, name):
        columns = tuple(field.strip() for field in table.rows[0])
        return replace(base, skip=table.lines[0], columns=columns)
    columns = tuple(str(position + 1) for position in range(len(table.rows[0])))
    return replace(base, columns=columns, roles=_by_position(table.rows, delimiter, asked, name))


def _line_end(text: str) -> Literal["\\n", "\\r\\n"]:
    """The first line end; DuckDB's own guess falls for one inside quotes."""
    first = re.search(r"\r?\n", text)
    return "\\r\\n" if first is not None and first[0] == "\r\n" else "\\n"


def _object(line: str) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True)
class _Table:
    rows: list[list[str]]
    lines: list[int]  # the physical line on which each row ends

    @property
    def width(self) -> int:
        return Counter(len(row) for row in self.rows).most_common(1)[0][0]


def _split(text: str, delimiter: str, *, padded: bool = False) -> _Table:
    """The first records under one delimiter; blank lines are no records."""
    rows: list[list[str]] = []
    lines: list[int] = []
    if delimiter == "::":
        for number, line in enumerate(text.split("\n")[:HEAD_RECORDS], 1):
            if line.strip("\r"):
                fields = line.rstrip("\r").split("::")
                rows.append([field.lstrip(" ") if padded else field for field in fields])
                lines.append(number)
        return _Table(rows, lines)
    reader = csv.reader(
        io.StringIO(text, newline="\n"), delimiter=delimiter, skipinitialspace=padded
    )
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
            if len(rows) >= HEAD_RECORDS:
                break
    except csv.Error:
        pass  # the rows so far tell enough; reading will name the line
    return _Table(rows, lines)


def _delimiter(text: str, name: str, asked: Sequence[str]) -> tuple[str, _Table]:
    best: tuple[tuple[float, ...], str, _Table] | None = None
    for place, delimiter in enumerate(DELIMITERS):
        table = _split(text, delimiter)
        if not table.rows or table.width < 2:
            continue
        width = table.width
        share = sum(len(row) == width for row in table.rows) / len(table.rows)
        named = sum(_names(field, asked) for field in table.rows[0])
        key = (min(named, 2), round(share, 2), width, -place)
        if best is None or key > best[0]:
            best = (key, delimiter, table)
    if best is None:
        if "\r" in text.rstrip("\r\n") and "\n" not in text.strip():
            raise DataError(f"{name}: its lines end in CR alone; save it with LF or CRLF")
        raise DataError(
            f"{name}: has one column; columns are told apart by ',' ';' '|' '::' or a tab"
        )
    return best[1], best[2]


def _names(field: str, asked: Sequence[str]) -> bool:
    """Whether a field of the first row is a column's name, asked for or well known."""
    wanted = any(not name.isdigit() and find(name, [field]) is not None for name in asked)
    return wanted or recognised(field)


def _value(field: str) -> bool:
    return bool(_NUMBER.fullmatch(field) or _DATE.fullmatch(field))


def _has_header(table: _Table, delimiter: str, asked: Sequence[str], name: str) -> bool:
    first, rest = table.rows[0], [row for row in table.rows[1:] if len(row) == table.width]
    numbered = bool(asked) and all(column.isdigit() for column in asked)
    if numbered and any(_value(field) for field in first):
        return False  # though an id may be a well-known name
    if any(_names(field, asked) for field in first):
        return True
    if any(_value(field) for field in first):
        return False
    for position in range(min(len(first), table.width)):
        if rest and all(_value(row[position]) for row in rest):
            return True
    if numbered:
        return False
    if delimiter in ("::", "\t"):
        return False
    raise DataError(
        f"{name}: cannot tell whether its first row is a header; begin it with a row of names "
        "such as user_id, item_id"
    )


def _looks_like_time(fields: Sequence[str]) -> bool:
    """Unix times (from 1973 on, in any unit) or dates; ratings and positions are smaller."""

    def one(field: str) -> bool:
        number = re.fullmatch(r"\s*(\d+)(\.\d*)?\s*", field)
        return bool(_DATE.fullmatch(field) or (number and int(number[1]) >= 10**8))

    return all(one(field) for field in fields)


def _by_position(
    rows: Sequence[Sequence[str]], delimiter: str, asked: Sequence[str], name: str
) -> dict[Role, str]:
    """Roles of the columns of a file without a header row.

    Two columns are user and item; a third is the time where it looks like one and otherwise
    the rating; four are user, item, rating, time.
    """
    width = len(rows[0])
    last = [row[-1] for row in rows if len(row) == width]
    if width == 2:
        return {"user": "1", "item": "2"}
    if width == 3 and _looks_like_time(last):
        return {"user": "1", "item": "2", "time": "3"}
    if width == 3 and all(_NUMBER.fullmatch(f) and abs(float(f)) <= 1000 for f in last):
        return {"user": "1", "item": "2", "rating": "3"}
    if width == 4 and (delimiter in ("::", "\t") or _looks_like_time(last)):
        return {role: str(place) for place, role in enumerate(POSITIONAL, 1)}
    if any(field.isdigit() for field in asked):
        return {}
    raise DataError(
        f"{name}: has {width} columns and no header row; begin it with a row of names, or name "
        "columns by number (--user 1 --item 2)"
    )

"""Detect the format of a text log from its first lines: delimiter, quotes, header, columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from comet_rec.errors import DataError, argument
from comet_rec.reading.columns import Role, find, recognised
from comet_rec.reading.foreign import refuse_layout
from comet_rec.reading.lines import Padding, Splitter

HEAD_BYTES = 1 << 18
HEAD_RECORDS = 200
UNNAMED = ("::", "\t", " ")
"""Delimiters of files that often have no header row."""
DELIMITERS = ("::", "\t", ";", "|", ",")  # ties go to the first; blanks are tried last

_BLANKS = r"[^\S\x1c-\x1f]*"  # `float` takes all of `\s` but the separators
_NUMBER = re.compile(rf"{_BLANKS}[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?{_BLANKS}")
_DATE = re.compile(
    r"\s*(\d{4}[-/]\d{1,2}[-/]\d{1,2}.*"
    r"|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}.*"
    r"|\d{8}T\d{6}.*"
    r"|[A-Za-z]{3,9},? [A-Za-z]{3} +\d{1,2} .*\d{4})"
)


@dataclass(frozen=True)
class Format:
    """The detected format of a text file: how to split its lines, and its columns.

    Parameters
    ----------
    kind : {"delimited", "ndjson", "typed"}
        Fields between delimiters; one JSON object per line; or "typed" for frames and Parquet,
        which need no format.
    splitter : Splitter
        Splits a line of a delimited file into fields.
    skip : int
        Number of lines before the first row.
    columns : tuple of str
        Column names. Columns of a file without a header row are named "1", "2", ….
    header : tuple of str
        Fields of the header row as they are written; empty without a header row.
    roles : mapping of role to str
        Column of each role (user, item, time, rating) that was decided from the values. Empty if
        the file has a header row.
    typed : tuple of bool
        Whether each column holds only numbers or dates.
    line_end : str
        Line ending, in the escaped form that DuckDB expects.
    remarks : tuple of str
        Notes for the user about the detected format.
    cautions : tuple of str
        Notes for the user about detected features that may be wrong.
    """

    kind: Literal["delimited", "ndjson", "typed"]
    splitter: Splitter = field(default_factory=lambda: Splitter(","))
    skip: int = 0
    columns: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    roles: Mapping[Role, str] = field(default_factory=dict)
    typed: tuple[bool, ...] = ()
    line_end: str = "\\n"
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def numbered(self) -> bool:
        """Whether the file has no header row, so that its columns are named by number."""
        return self.kind == "delimited" and self.columns[:1] == ("1",)


@dataclass(frozen=True)
class TextOptions:
    """The caller's options for text files.

    Parameters
    ----------
    columns : mapping of role to str or None
        Column name of each role (user, item, time, rating); None to recognise the column. A first
        row that holds one of these names is a header.
    encoding : str or None
        Encoding of the files; UTF-8 if None.
    quote, escape : str or None
        Quote and escape character, as for `Splitter`; "" for no such character, None to detect it.
    events : tuple of str
        Events of the rows that are kept; empty if the log has no column of events.

    Raises
    ------
    DataError
        When `quote` or `escape` is not a single character.
    """

    columns: Mapping[Role, str | None] = field(default_factory=dict)
    encoding: str | None = None
    quote: str | None = None
    escape: str | None = None
    events: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("quote", self.quote), ("escape", self.escape)):
            if value is None or value == "":
                continue
            if not isinstance(value, str) or len(value) != 1 or value in "\n\r\t ":
                raise DataError(f"{name} is {value!r}; give one character, or '' for none")

    @property
    def names(self) -> list[str]:
        """Column names that the caller gave."""
        return [name for name in self.columns.values() if name]


def sniff(head: bytes, name: str, options: TextOptions, *, whole: bool) -> Format:
    """Detect the format of a text file from its first bytes.

    Parameters
    ----------
    head : bytes
        The first bytes of the file, uncompressed.
    name : str
        Name of the file in messages.
    options : TextOptions
        The caller's column names and text options.
    whole : bool
        Whether `head` is the whole file.

    Raises
    ------
    DataError
        When the text is not a table with at least two columns, or when it is unclear whether
        the first row is a header.
    """
    text = _text(head, name, whole=whole)
    all_lines = text.split("\n")
    lines = [line for line in all_lines if line.strip()]
    asked = options.names
    refuse_layout(lines[:50], name, numbered=any(column.isdigit() for column in asked))
    first = lines[0].strip()
    if first == "{" or first.startswith('{"') or _object(first) is not None:
        keys: dict[str, None] = {}
        for line in lines[:HEAD_RECORDS]:
            keys.update(dict.fromkeys(_object(line) or {}))
        if not keys:
            raise DataError(f"{name}, line 1: is not a JSON object; write one object per line")
        return Format("ndjson", columns=tuple(keys))
    marked = _marked(all_lines)
    if all(line.startswith(("%", "# ")) for line in lines):
        raise _no_rows(name)
    splitter, table = _delimiter("\n".join(all_lines[marked:]) or text, name, options)
    comments = _comments(all_lines, marked, splitter, table, asked)
    text = "\n".join(all_lines[comments:])
    table = _split(text, splitter)
    if not table.rows:
        raise _no_rows(name)
    remarks: list[str] = []
    if comments:
        remarks.append(f"the first {comments} lines are comments and were left out")
    if options.escape is None and splitter.quote and _escaped_by_backslash(text, splitter):
        splitter = replace(splitter, escape="\\")
        remarks.append("quotes are escaped with a backslash")
    splitter = replace(splitter, padded=_padding(table, splitter))
    if splitter.padded == "both":
        remarks.append("columns are padded with blanks, which were left out")
    table = _split(text, splitter)
    header: list[str] = []
    cautions: list[str] = []
    roles: dict[Role, str] = {}
    skip = comments
    if _has_header(table, splitter.delimiter, asked, name):
        header = table.rows[0]
        columns = [column.strip() for column in header]
        columns[0] = columns[0].removeprefix("#").strip()
        skip += table.lines[0]
        below = all_lines[skip : skip + 1]
        if below and _is_rule(below[0]):
            skip += 1
            shown = below[0].strip()[:40]
            cautions.append(f"line {skip} ({shown!r}) is a rule under the header, not a row")
    else:
        columns = [str(position + 1) for position in range(len(table.rows[0]))]
        roles = _by_position(table.rows, splitter.delimiter, asked, name)
    return Format(
        "delimited", splitter, skip, tuple(columns), tuple(header), roles,
        _typed(table, 1 if header else 0), remarks=tuple(remarks), cautions=tuple(cautions),
    )  # fmt: skip


def _text(head: bytes, name: str, *, whole: bool) -> str:
    """Decode the first bytes of a file as UTF-8, without a last line that is cut off."""
    if not whole:
        end = head.rfind(b"\n")
        if end < 0:
            raise DataError(f"{name}: line 1 has over {len(head):,} bytes; write a row per line")
        head = head[: end + 1]
    text = head.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        raise DataError(f"{name}: is empty")
    if "\r" in text.strip() and "\n" not in text.strip():
        raise DataError(f"{name}: lines end in CR alone; save the file with LF or CRLF")
    return text


def _object(line: str) -> dict[str, object] | None:
    """Parse a line as a JSON object; None if it is not one."""
    try:
        value = json.loads(line, parse_int=str)  # text: Python refuses very long numbers
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_rule(line: str) -> bool:
    """Whether a line is only a separator, such as `----+----` between the header and the rows."""
    return set(line) <= set("-+=|:_ \t,;\r") and sum(map(line.count, "-=_")) >= 3


def _marked(lines: Sequence[str]) -> int:
    """Number of leading lines that are blank or start with `#` or `%`."""
    count = 0
    for line in lines:
        if line.strip() and not line.startswith(("%", "#")):
            break
        count += 1
    return count


def _no_rows(name: str) -> DataError:
    return DataError(f"{name}: has no rows, only comments")


def _comments(
    lines: Sequence[str], marked: int, splitter: Splitter, table: _Table, asked: Sequence[str]
) -> int:
    """Number of leading comment lines, as in data sets of KONECT and SNAP.

    The first `marked` lines are blank or start with `#` or `%`. Such a line is no comment if it has
    as many fields as the table and is one of these: the last marked line with a column name (it is
    the header), or a line without a blank after its `#` (it is a row).
    """
    for place, line in enumerate(lines[:marked]):
        fields = splitter.plain(line.lstrip("#% "))
        if len(fields) != table.width:
            continue
        if place == marked - 1 and any(_names(field.strip(), asked) for field in fields):
            return place
        if line.startswith("#") and line[1:2] not in (" ", "#"):
            return place
    return marked if any(line.strip() for line in lines[:marked]) else 0


@dataclass(frozen=True)
class _Table:
    """The first records of a text, split into fields."""

    rows: list[list[str]]
    lines: list[int]  # the physical line on which each row ends

    @cached_property
    def width(self) -> int:
        """The most common number of fields in a row."""
        return Counter(len(row) for row in self.rows).most_common(1)[0][0]

    @property
    def share(self) -> float:
        """Share of the rows with the most common number of fields."""
        return sum(len(row) == self.width for row in self.rows) / len(self.rows)


def _split(text: str, splitter: Splitter) -> _Table:
    """Split at most `HEAD_RECORDS` records of a text into fields; blank lines are skipped."""
    rows: list[list[str]] = []
    ends: list[int] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines) and len(rows) < HEAD_RECORDS:
        fields, used = _record(lines, at, splitter)
        at += used
        if used > 1 or lines[at - 1].strip():
            rows.append(fields)
            ends.append(at)
    return _Table(rows, ends)


def _record(lines: Sequence[str], at: int, splitter: Splitter) -> tuple[list[str], int]:
    """Fields of the record that starts at line `at`, and the number of lines that it takes."""
    line = lines[at]
    if not splitter.needs_care(line):
        return splitter.plain(line), 1
    fields = splitter.fields(line)
    if fields is not None:
        return fields, 1
    if splitter.is_open(line):
        for end in range(at + 1, min(at + HEAD_RECORDS, len(lines))):
            line += "\n" + lines[end]
            if splitter.quote in lines[end] and (fields := splitter.fields(line)) is not None:
                return fields, end + 1 - at
    return splitter.plain(lines[at]), 1


def _delimiter(text: str, name: str, options: TextOptions) -> tuple[Splitter, _Table]:
    """Choose the delimiter that gives the most regular table; return splitter and table."""
    best: tuple[tuple[float, ...], Splitter, _Table] | None = None
    for place, delimiter in enumerate((*DELIMITERS, " ")):
        if delimiter == " " and best is not None:
            break
        quote = options.quote
        if quote is None:
            quote = "" if delimiter in ("::", " ") else '"'
        splitter = Splitter(delimiter, quote, options.escape or "")
        table = _split(text, splitter)
        if not table.rows or table.width < 2:
            continue
        if delimiter == " " and (table.share < 0.95 or table.width > 5):
            continue
        named = sum(_names(field, options.names) for field in table.rows[0])
        # Prefer known column names, then rows of equal width, then many columns.
        key = (min(named, 2), round(table.share, 2), table.width, -place)
        if best is None or key > best[0]:
            best = (key, splitter, table)
    if best is None:
        raise DataError(
            f"{name}: has one column; separate columns by ',' ';' '|' '::', a tab or a blank"
        )
    return best[1], best[2]


def _padding(table: _Table, splitter: Splitter) -> Padding:
    """Sides on which blanks pad every field: "left" in `a, b`, "both" in tables of psql."""
    # A row of another width may hold a delimiter inside quotes, so it does not count.
    rows = [row for row in table.rows if len(row) == table.width]
    if splitter.delimiter in ("\t", " "):
        return ""
    if not all(field.startswith(" ") for row in rows for field in row[1:]):
        return ""
    aligned = all(field.endswith(" ") for row in rows for field in row[:-1])
    return "both" if aligned and splitter.delimiter == "|" else "left"


def _escaped_by_backslash(text: str, splitter: Splitter) -> bool:
    """Whether more rows have equal width if backslashes escape quotes, as in files of Spark."""
    if "\\" + splitter.quote not in text:
        return False
    escaping = replace(splitter, escape="\\")
    return _split(text, escaping).share > _split(text, splitter).share


def _names(field: str, asked: Sequence[str]) -> bool:
    """Whether a field of the first row is a column name: one of `asked`, or a common name."""
    field = field.removeprefix("#")
    is_asked = any(not name.isdigit() and find(name, [field]) is not None for name in asked)
    return is_asked or recognised(field)


def is_value(field: str) -> bool:
    """Whether a field is a number or a date."""
    return bool(_NUMBER.fullmatch(field) or _DATE.fullmatch(field))


def _typed(table: _Table, first: int) -> tuple[bool, ...]:
    """Whether each column of a table holds only numbers or dates from row `first` on.

    Rows with an unusual number of fields, with quotes or with line breaks do not count.
    """
    rows = [row for row in table.rows[first:] if len(row) == table.width]
    rows = [row for row in rows if not any('"' in field or "\n" in field for field in row)]
    return tuple(bool(rows) and all(map(is_value, column)) for column in zip(*rows, strict=True))


def _has_header(table: _Table, delimiter: str, asked: Sequence[str], name: str) -> bool:
    """Whether the first row is a header; `DataError` if that is unclear."""
    first, rest = table.rows[0], [row for row in table.rows[1:] if len(row) == table.width]
    numbered = bool(asked) and all(column.isdigit() for column in asked)
    if numbered and any(is_value(field) for field in first):
        return False  # even if an id equals a common column name
    if any(_names(field, asked) for field in first):
        return True
    if any(is_value(field) for field in first):
        return False
    for position in range(min(len(first), table.width)):
        if rest and all(is_value(row[position]) for row in rest):
            return True
    if numbered or delimiter in UNNAMED:
        return False
    raise DataError(
        f"{name}: cannot tell whether its first row is a header; begin it with a row of names "
        "such as user_id, item_id"
    )


def _looks_like_time(fields: Sequence[str]) -> bool:
    """Whether all fields are dates, or Unix times from 1973 on in any unit.

    Such times have nine digits or more; ratings and row positions have fewer.
    """
    numbers = [re.fullmatch(r"\s*(\d+)(\.\d*)?\s*", field) for field in fields]
    return all(
        _DATE.fullmatch(field) or (number and len(number[1].lstrip("0")) >= 9)
        for field, number in zip(fields, numbers, strict=True)
    )


def _by_position(
    rows: Sequence[Sequence[str]], delimiter: str, asked: Sequence[str], name: str
) -> dict[Role, str]:
    """Column of each role (user, item, time, rating) in a file without a header row.

    The values decide. If they leave it unclear, a `DataError` asks for names or column numbers.
    """
    width = len(rows[0])
    columns = list(zip(*(row for row in rows if len(row) == width), strict=True))
    roles = roles_by_values(columns)
    if width == 4 and "time" not in roles and all(map(_looks_like_time, columns[2:4])):
        if not any(column in ("3", "4") for column in asked):
            raise DataError(
                f"{name}: has no header row, and columns 3 and 4 both look like times; name one "
                f"with {argument('time', 3)} or {argument('time', 4)}"
            )
        return {"user": "1", "item": "2"}
    if width == 2 or (width == 3 and len(roles) == 3):
        return roles
    if width == 4 and ("time" in roles or delimiter in UNNAMED):
        return roles
    if any(field.isdigit() for field in asked):
        return {}
    raise DataError(
        f"{name}: has {width} columns and no header row; begin it with a row of names, or name "
        f"columns by number ({argument('user', 1)} {argument('item', 2)})"
    )


def roles_by_values(columns: Sequence[Sequence[str]]) -> dict[Role, str]:
    """Find the user, item, time and rating among two to four columns without names.

    Columns are numbered from "1", and 1 and 2 are user and item. Column 3 or 4 is the time if it
    looks like times, and the rating if its values fit a rating scale. A column of integers after
    the rating is the time.
    """
    roles: dict[Role, str] = {"user": "1", "item": "2"}
    rest = {str(place): column for place, column in enumerate(columns[2:4], 3)}
    times = [place for place, column in rest.items() if _looks_like_time(column)]
    if len(times) == 1:
        roles["time"] = times[0]
        rest.pop(times[0])
    # Of three columns the last may have any rating scale; of four, one within 0…10.
    low, high = (-1000, 1000) if len(columns) == 3 else (0, 10)
    for place, column in rest.items():
        rated = all(_NUMBER.fullmatch(field) and low <= float(field) <= high for field in column)
        if place not in times and rated:
            roles.setdefault("rating", place)
    untimed = len(columns) == 4 and not times and roles.get("rating") == "3"
    if untimed and all(re.fullmatch(r"\s*-?\d+\s*", field) for field in columns[3]):
        roles["time"] = "4"
    return roles

"""Parser of text logs that reads line by line in Python and gives a reason for each bad row.

It reads files that the fast check `scan` rejects, and NDJSON that DuckDB's parser refuses. It
writes the columns that are needed to a copy without quotes, which DuckDB can read in one way only.
A bad line affects no later line: reading goes on at the next one.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from comet_rec.errors import DataError, argument
from comet_rec.reading.columns import IDS, Role
from comet_rec.reading.sniff import Format, is_value

MOST_LINE_BYTES = 8 << 20
MOST_RECORD_LINES = 10_000
MOST_RECORD_CHARS = 4 << 20
MOST_TRIES = 64
"""Attempts to end a record over several lines; each attempt parses all of its lines again."""
MOST_VALUE_CHARS = 1_000_000
LITERAL_SHARE = 0.9
"""If a larger share of the lines in a quoted field looks like rows, its quotes may be text."""
LITERAL_LINES = 10
"""Lines that must look like rows; one is enough if a column holds only numbers or dates."""
REMEMBERED = 1000
"""Number of bad rows that are stored with line and reason; later ones are only counted."""

DELIMITER = "\x1f"
# Characters that would end a field or a line of the copy are escaped with the byte \x10.
_ESCAPES = {"\x10": "\x10p", "\n": "\x10n", "\r": "\x10r", DELIMITER: "\x10s"}
_ESCAPE_TABLE = str.maketrans(_ESCAPES)
_SPECIAL = re.compile("[\x10\n\r\x1f]")
_BROKEN = re.compile("[\ud800-\udfff]")
LARGEST_EXACT = 2**53
"""Above this limit a 64-bit float cannot represent every integer."""
FRACTION = "has a fraction; ids are integers or text"
INEXACT = "is no exact integer (floats lose digits above 2^53); write ids as integers or text"


def decoded(value: str) -> str:
    """SQL that removes the escapes of `write_clean` from the SQL expression `value`."""
    for plain, escaped in reversed(_ESCAPES.items()):  # the escape of the escape comes last
        value = f"replace({value}, '{escaped}', chr({ord(plain)}))"
    return value


@dataclass
class Bad:
    """Bad rows of a file, and irregular rows that were accepted as good.

    Parameters
    ----------
    rows : list of (int, str)
        Line and reason of the first bad rows.
    count : int
        Number of all bad rows.
    literal : list of int
        Numbers of the first lines in which a quote was taken as text.
    n_literal : int
        Number of all lines in which a quote was taken as text.
    escaped : bool
        Whether values in the copy that `write_clean` makes are escaped; `decoded` restores them.
    doubtful : list of (int, int)
        First and last line of each record over several lines that could also be separate rows.
    n_joined : int
        Number of records over several lines.
    rounded : str
        A JSON float in an id to which larger integers may have been rounded; empty without one.
    """

    rows: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0
    literal: list[int] = field(default_factory=list)
    n_literal: int = 0
    escaped: bool = False
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    n_joined: int = 0
    rounded: str = ""

    def add(self, line: int, reason: str) -> None:
        """Count a bad row, and store it unless many are stored.

        In a message, `reason` follows the place of the row, such as "line 7".
        """
        self.count += 1
        if len(self.rows) < REMEMBERED:
            self.rows.append((line, reason))

    def add_literal(self, line: int) -> None:
        """Count a line in which a quote is taken as text."""
        self.n_literal += 1
        if len(self.literal) < 3:
            self.literal.append(line)

    def remarks(self) -> list[str]:
        """Notes for the user about quotes that were taken as text."""
        if not self.n_literal:
            return []
        lines = ", ".join(map(str, self.literal))
        more = " and others" if self.n_literal > len(self.literal) else ""
        return [
            f"quotes in {self.n_literal:,} rows do not enclose a field and were taken as text "
            f"(line {lines}{more})"
        ]

    def cautions(self) -> list[str]:
        """Warnings for the user about rows that may have been misread."""
        doubts = [
            f"one quoted field spans the lines {first} to {last}, which could be separate "
            f"rows; if quotes are text in this file, pass {argument('quote', '')}"
            for first, last in self.doubtful[:1]
        ]
        if self.rounded:
            doubts.append(
                f"the id {self.rounded} is the largest exact float: greater ids may have been "
                "rounded to it; write ids as integers or text"
            )
        return doubts


def write_clean(
    path: Path,
    name: str,
    file_format: Format,
    labels: Mapping[Role, str],
    copy: Path,
    most_lines: int | None = None,
    *,
    events: Collection[str] = (),
) -> Bad:
    """Parse a text file; write line number and values of every good row to a copy.

    Parameters
    ----------
    path : Path
        An uncompressed file. Bytes that are not UTF-8 make a row bad only if they are in an id.
    name : str
        Name of the file in messages.
    file_format : Format
        The detected format of the file.
    labels : mapping of role to str
        Name of the column for each role (user, item, …) whose values are written, in this order.
    copy : Path
        Where the copy is written.
    most_lines : int, optional
        Number of lines to read; by default all.
    events : collection of str
        Events of the rows that are kept, if `labels` has a column of events. The values of other
        rows are not checked, and but for the event they are empty in the copy.

    Returns
    -------
    Bad
        The bad rows of the file, which are not in the copy.

    Raises
    ------
    DataError
        When the disk is full or the file cannot be read.
    """
    bad = Bad()
    rows = (
        _json_rows(path, file_format, labels, bad, events)
        if file_format.kind == "ndjson"
        else _delimited_rows(path, file_format, labels, bad)
    )
    event_place = list(labels).index("event") if "event" in labels else None
    try:
        with copy.open("w", encoding="utf-8", newline="\n") as out:
            for number, values in rows:
                if most_lines is not None and number > most_lines:
                    break
                if event_place is not None and values[event_place] not in events:
                    event = values[event_place]
                    values = [""] * len(values)
                    if len(event) < MOST_VALUE_CHARS and not _BROKEN.search(event):
                        values[event_place] = event  # messages list the events of a log
                row = DELIMITER.join(values)
                if not row.isascii() and _BROKEN.search(row):
                    fault = _broken_id(values, labels)
                    if fault:
                        bad.add(number, fault)
                        continue
                    # A time or rating that is not UTF-8 becomes empty, which matters only if used.
                    values = ["" if _BROKEN.search(value) else value for value in values]
                    row = DELIMITER.join(values)
                if len(row) > MOST_VALUE_CHARS:
                    bad.add(number, "has an id or a time longer than 1 MB")
                    continue
                if row.count(DELIMITER) >= len(values) or _SPECIAL.search("".join(values)):
                    bad.escaped = True
                    row = DELIMITER.join(value.translate(_ESCAPE_TABLE) for value in values)
                out.write(f"{number}{DELIMITER}{row}\n")
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    return bad


def _broken_id(values: Sequence[str], labels: Mapping[Role, str]) -> str:
    """Reason why a row with an invalid id is bad; empty if all ids are valid text."""
    for (role, label), value in zip(labels.items(), values, strict=True):
        if role not in IDS or not _BROKEN.search(value):
            continue
        if any("\udc80" <= letter <= "\udcff" for letter in value):
            return (
                f", column {label!r}: is not UTF-8; name the file's encoding with "
                f"{argument('encoding', 'latin-1')}, cp1252, gbk or another"
            )
        return f", column {label!r}: holds half a character (a cut surrogate pair)"
    return ""


def width_fault(n_fields: int, width: int) -> str:
    """Reason why a row with `n_fields` fields is bad in a table with `width` columns."""
    return f": has {'more' if n_fields > width else 'fewer'} than {width} columns"


def _lines(path: Path, bad: Bad) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line, with its CR if it has one.

    A line that is too long is added to `bad`, and is never in memory as a whole.
    """
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(MOST_LINE_BYTES):
            number += 1
            if len(raw) == MOST_LINE_BYTES and not raw.endswith(b"\n"):
                while (rest := file.readline(MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                bad.add(number, f": is longer than {MOST_LINE_BYTES >> 20} MB")
                continue
            text = raw.decode("utf-8", errors="surrogateescape").removesuffix("\n")
            yield number, text.removeprefix("\ufeff") if number == 1 else text


@dataclass
class _Ahead:
    """Iterator over numbered lines that can also show later lines without consuming them."""

    source: Iterator[tuple[int, str]]
    waiting: deque[tuple[int, str]] = field(default_factory=deque)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while True:
            if self.waiting:
                yield self.waiting.popleft()
            elif (line := next(self.source, None)) is not None:
                yield line
            else:
                return

    def peek(self) -> Iterator[tuple[int, str]]:
        """Iterate over the next lines without consuming them."""
        yield from self.waiting
        while (line := next(self.source, None)) is not None:
            self.waiting.append(line)
            yield line

    def drop(self, count: int) -> None:
        """Consume the first `count` lines that `peek` showed."""
        for _ in range(count):
            self.waiting.popleft()


def _delimited_rows(
    path: Path, file_format: Format, labels: Mapping[Role, str], bad: Bad
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and values of each good row of a delimited file; fill `bad`."""
    splitter, width = file_format.splitter, len(file_format.columns)
    lines = _Ahead(_lines(path, bad))
    places = [file_format.columns.index(label) for label in labels.values()]
    id_places = [place for place, role in zip(places, labels, strict=True) if role in IDS]
    for number, raw in lines:
        line = raw.removesuffix("\r")
        if number <= file_format.skip or not line:
            continue
        fields: list[str] | None
        if not splitter.needs_care(line):
            fields = splitter.plain(line)
            if "\r" in line and any("\r" in field for field in fields):
                bad.add(number, ": holds a CR that does not end the line")
                continue
        else:
            fields = _quoted_record(number, raw, lines, file_format, id_places, bad)
        if fields is None:
            bad.add(number, ": has a quote that is not closed")
        elif not fields:
            continue  # a bad record over several lines, counted already
        elif len(fields) != width:
            bad.add(number, width_fault(len(fields), width))
        else:
            yield number, [fields[place] for place in places]


def _quoted_record(
    number: int, raw: str, lines: _Ahead, file_format: Format, id_places: Sequence[int], bad: Bad
) -> list[str] | None:
    """Fields of a record that starts on a line with quotes; [] if it is bad.

    Three readings are tried in turn: the line with its quotes, a record over several lines, and the
    line with quotes as text. The last one is refused if an id would hold a quote. The result is
    None if a quote stays open.
    """
    splitter, width = file_format.splitter, len(file_format.columns)
    line = raw.removesuffix("\r")
    fields = splitter.fields(line)
    if fields is not None and len(fields) == width:
        return fields
    if fields is None and splitter.is_open(line):
        joined = _record_over_lines(number, raw, lines, file_format, bad)
        if joined is not None:
            return joined
    plain = splitter.plain(line)
    if len(plain) == width and not any(splitter.quote in plain[place] for place in id_places):
        bad.add_literal(number)
        return plain
    return fields


def _record_over_lines(
    number: int, raw: str, lines: _Ahead, file_format: Format, bad: Bad
) -> list[str] | None:
    """Fields of a record with line ends inside quotes; [] if it is bad.

    The result is None if the quote stays open, or if the lines look like separate rows.
    """
    splitter, width = file_format.splitter, len(file_format.columns)
    parts = [raw]
    size, tries = len(raw), 0
    for _, next_line in lines.peek():
        parts.append(next_line)
        size += len(next_line)
        if len(parts) > MOST_RECORD_LINES or size > MOST_RECORD_CHARS:
            return None
        # Doubled quotes are text, so a line with doubled quotes alone cannot close the field.
        if splitter.quote not in next_line.replace(splitter.quote * 2, ""):
            continue
        text = "\n".join(parts).removesuffix("\r")
        tries += 1
        fields = splitter.fields(text)
        if fields is not None:
            break
        if tries == MOST_TRIES or not splitter.is_open(text):
            return None
    else:
        return None
    # Lines inside a field may be separate rows in a file whose quotes are text. That is likely if
    # nearly all lines look like rows, and a column of numbers or the number of lines confirms it.
    are_rows = sum(_is_row(part, file_format) for part in parts) >= LITERAL_SHARE * len(parts)
    n_inside = len(parts) - 2  # lines between the first and the last one of the record
    if are_rows and n_inside >= (1 if any(file_format.typed) else LITERAL_LINES):
        return None
    lines.drop(n_inside + 1)
    bad.n_joined += 1
    last = number + n_inside + 1
    if len(fields) != width:
        fault = width_fault(len(fields), width)
        bad.add(number, f"{fault} (in a record that ends in line {last})")
        return []
    if are_rows:
        bad.doubtful.append((number, last))
    return fields


def _is_row(line: str, file_format: Format) -> bool:
    """Whether a line looks like a row if its quotes are text.

    Such a line has one field per column, and numbers or dates in columns that hold only these.
    """
    fields = file_format.splitter.plain(line.removesuffix("\r"))
    if len(fields) != len(file_format.columns):
        return False
    typed = zip(fields, file_format.typed, strict=False)
    return all(is_value(field) for field, is_typed in typed if is_typed)


def _json_rows(
    path: Path,
    file_format: Format,
    labels: Mapping[Role, str],
    bad: Bad,
    events: Collection[str],
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and values of each good row of an NDJSON file; fill `bad`.

    If `labels` has a column of events, only rows with one of `events` are checked.
    """
    for number, line in _lines(path, bad):
        if not line.strip():
            continue
        try:
            # Keep numbers as text: floats lose digits, and Python refuses very long integers.
            record = json.loads(
                line, parse_float=JsonFloat, parse_int=JsonInteger, object_pairs_hook=_first_wins
            )
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            bad.add(number, ": is not a JSON object")
            continue
        texts = [
            json_text(record.get(label), is_event=role == "event") for role, label in labels.items()
        ]
        if "event" in labels and texts[list(labels).index("event")] not in events:
            yield number, texts
            continue
        for role, label in labels.items():
            value = record.get(label)
            if role in IDS and isinstance(value, JsonFloat):
                integer = value.integer()
                if integer is None:
                    why = FRACTION if value.has_fraction else INEXACT
                    bad.add(number, f", column {label!r}: {value[:40]} {why}")
                    break
                if abs(integer) == LARGEST_EXACT:
                    bad.rounded = value
        else:
            yield number, texts


class JsonInteger(str):
    """Text of a JSON number without fraction and exponent."""

    __slots__ = ()


class JsonFloat(str):
    """Text of a JSON number with a fraction or an exponent."""

    __slots__ = ()

    @property
    def has_fraction(self) -> bool:
        """Whether the number has a fraction; above `LARGEST_EXACT` no float has one."""
        return abs(float(self)) < LARGEST_EXACT and float(self) != int(float(self))

    def integer(self) -> int | None:
        """The integer that the number equals; None for a fraction or an inexact number."""
        if len(self) > 40:
            return None
        number = Decimal(self)
        if abs(number) > LARGEST_EXACT or number != number.to_integral_value():
            return None
        return int(number)


def _first_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build a JSON object; of several members with one key the first counts, as in DuckDB."""
    return dict(reversed(pairs))


def json_text(value: object, *, is_event: bool) -> str:
    """A JSON value as text: 7.0 becomes 7, and a value that is no text or number becomes empty.

    An event may also be true or false.
    """
    if is_event and isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, JsonFloat) and (integer := value.integer()) is not None:
        return str(integer)
    return str(value) if isinstance(value, str) else ""

"""Parts of a log: rows that one SQL query can read, from a frame or from files of one format.

The query gives the columns u (user) and i (item). If they are known, t (time), r (rating) and e
(the event as text, '' if it is missing) follow.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import numpy as np

from comet_rec.errors import DataError, NoColumnError, argument
from comet_rec.reading.clean import (
    DELIMITER,
    LARGEST_EXACT,
    MOST_LINE_BYTES,
    Bad,
    decoded,
    write_clean,
)
from comet_rec.reading.columns import IDS, LETTER, ROLES, Role, choose, rivals
from comet_rec.reading.database import named, quoted, reader_path, spill_folder
from comet_rec.reading.files import LogFile, compression_of, plain_file, text_encoding
from comet_rec.reading.foreign import refuse_binary
from comet_rec.reading.lines import Scan, Splitter, all_of_width, scan
from comet_rec.reading.sniff import HEAD_BYTES, Format, TextOptions, sniff
from comet_rec.reading.typed import Kinds, event_value

MAGIC_BYTES = 16
LARGE_BYTES = 20 << 20
TRIED_LINES = 100_000
SEVERAL = 20
"""If this many of `TRIED_LINES` lines hold a quote as text, the file may use no quoting."""
NO_NULL = "\x10N"
"""NULL marker that no field equals: an empty field stays '', only a missing field is NULL."""
WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT")
"""Types for integers beyond int64, such as hashes."""


@dataclass(frozen=True)
class Part:
    """A part of a log: rows that one SQL query can read, from a frame or from files of one format.

    Parameters
    ----------
    name : str
        Name of the part in messages.
    relation : str
        SQL query that gives one row per record, in order, with the columns u (user), i (item), t
        (time), r (rating) and e (event). If a record has a wrong number of fields, u and e are
        NULL.
    labels, types : mapping of role to str
        Name and DuckDB type of the column for each role (user, item, time, rating). The type of a
        16-bit float is `HALFFLOAT`.
    width : int
        Number of all columns of the source, used or not.
    files : tuple of LogFile
        The files of the part; empty for a frame.
    rows : tuple of int or None
        Number of records of each file, counted from its lines without DuckDB; None if not counted.
    text : Format
        Format of text files; its kind is "typed" for frames and Parquet.
    plain : tuple of Path
        The text files after unpacking and recoding to UTF-8; empty for frames and Parquet.
    bad : Bad or None
        Bad rows that the line-by-line parser (`clean`) found; None if it was not used.
    remarks : tuple of str
        Notes for the user about how the part is read.
    cautions : tuple of str
        Warnings for the user about rows or a format that may have been misread.
    guessed : mapping of role to str
        A note for each role for which several columns have a common name.
    placed : mapping of role to str
        For a file without a header row: the number of each column whose role the values decided.
    careful : callable or None
        Function that reads the same rows again with the line-by-line parser; None if there is none.
    """

    name: str
    relation: str
    labels: Mapping[Role, str]
    types: Mapping[Role, str]
    width: int
    files: tuple[LogFile, ...] = ()
    rows: tuple[int, ...] | None = None
    text: Format = field(default_factory=lambda: Format("typed"))
    plain: tuple[Path, ...] = ()
    bad: Bad | None = None
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    guessed: Mapping[Role, str] = field(default_factory=dict)
    placed: Mapping[Role, str] = field(default_factory=dict)
    careful: Callable[[], list[Part]] | None = None

    @property
    def is_json(self) -> bool:
        """Whether each row is a JSON object."""
        return self.text.kind == "ndjson"

    @property
    def file_labels(self) -> dict[Role, str]:
        """Names of the needed columns that the text files hold; other columns are folder names."""
        columns = self.text.columns
        return {role: self.labels[role] for role in ROLES if self.labels.get(role) in columns}

    def values(self, kinds: Kinds, roles: Sequence[Role]) -> dict[Role, str]:
        """SQL for the column of each role, converted to the value types that `kinds` holds."""
        return {role: kinds.value(role, self.types[role]) for role in roles}

    def notes(self, roles: Sequence[Role]) -> list[str]:
        """Notes for the user about how the columns of these roles were chosen and read.

        They do not name the part.
        """
        placed = [
            f"column {self.placed[role]} is the {role}" for role in roles if role in self.placed
        ]
        notes = [f"no header row: {', '.join(placed)}"] if placed else []
        notes += [self.guessed[role] for role in roles if role in self.guessed]
        notes += self.remarks
        if self.bad:
            notes += self.bad.remarks()
        return notes

    def file_of_row(self, row: int) -> tuple[int, int]:
        """Index of the file that holds record `row` of the part, and its number in that file."""
        if self.rows is None:
            return 0, row
        ends = np.cumsum(self.rows)
        place = int(np.searchsorted(ends, row, side="right"))
        return place, row - int(ends[place]) + self.rows[place]


def select(columns: Mapping[str, str], table: str) -> str:
    """SQL subquery that selects expressions from a table; `columns` maps names to expressions."""
    picked = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    return f"(SELECT {picked} FROM {table})"


def described(
    con: duckdb.DuckDBPyConnection,
    table: str,
    name: str,
    asked: Mapping[Role, str | None],
    names: Sequence[str] | None = None,
    halves: Sequence[str] = (),
) -> Part:
    """Make a part from a table whose column names and types DuckDB knows.

    Parameters
    ----------
    table : str
        Name of the table in DuckDB, or a subquery.
    name : str
        Name of the part in messages.
    asked : mapping of role to str or None
        Column name that the caller gave for each role (user, item, time, rating), or None.
    names : sequence of str, optional
        The original column names; by default those in DuckDB. DuckDB renames a column whose name
        differs from an earlier one only in case.
    halves : sequence of str
        Columns that were 16-bit floats before they were cast to 32 bits for DuckDB.
    """
    rows = con.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
    renamed, types = [str(row[0]) for row in rows], [str(row[1]) for row in rows]
    columns = renamed if names is None else list(names)
    chosen = choose(columns, asked, name)
    picked = {LETTER[role]: named(renamed[place]) for role, place in chosen.items()}
    labels = {role: columns[place] for role, place in chosen.items()}
    kinds = {
        role: "HALFFLOAT" if labels[role] in halves else types[place]
        for role, place in chosen.items()
    }
    if "event" in chosen:
        picked["e"], kinds["event"] = event_value(picked["e"], types[chosen["event"]]), "VARCHAR"
    if "time" in chosen and (kinds["time"] in WIDE or kinds["time"].startswith("DECIMAL")):
        picked["t"], kinds["time"] = f"CAST({picked['t']} AS VARCHAR)", "VARCHAR"
    guessed = rivals(columns, asked, chosen)
    return Part(name, select(picked, table), labels, kinds, len(columns), guessed=guessed)


class FileOpener:
    """Opens the files of one log, and gives its parts: files that one SQL query can read.

    Parameters
    ----------
    con : connection
    options : TextOptions
        The caller's column names and text options.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, options: TextOptions) -> None:
        self.con = con
        self.options = options
        # Inside the database's temporary folder, which is deleted when the reading ends.
        self._folder = Path(tempfile.mkdtemp(dir=spill_folder(con)))
        self._made = 0

    def parts(self, files: Sequence[LogFile]) -> list[Part]:
        """Open the files of a log; adjacent files that one query can read become one part."""
        opened = [self._open(file) for file in files]
        merged = [opened[0]]
        for part in opened[1:]:
            joined = _merged(merged[-1], part)
            merged[-1:] = [merged[-1], part] if joined is None else [joined]
        return merged

    def _place(self) -> Path:
        """Path for a new temporary file."""
        self._made += 1
        return self._folder / f"{self._made}.txt"

    def _open(self, file: LogFile) -> Part:
        name = file.name
        codec = text_encoding(self.options.encoding, name)
        try:
            with file.path.open("rb") as opened:
                magic = opened.read(MAGIC_BYTES)
        except OSError as error:
            raise DataError(f"{name}: cannot be opened: {error.strerror}") from error
        if not magic:
            raise DataError(f"{name}: is empty")
        if magic.startswith(b"PAR1") and _ends_as_parquet(file.path):
            return self._open_parquet(file)
        plain = plain_file(file.path, name, compression_of(magic), codec, self._place())
        with plain.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
            if b"\n" not in head:  # a long first line
                head += opened.read(MOST_LINE_BYTES)
            is_whole = not opened.read(1)
        if not head:
            raise DataError(f"{name}: is empty")
        refuse_binary(head, name)
        return self._open_text(file, plain, sniff(head, name, self.options, whole=is_whole))

    def _open_parquet(self, file: LogFile) -> Part:
        path = quoted(reader_path(file.path))
        schema = f"parquet_schema({path})"
        nodes = self.con.execute(f"SELECT name, num_children FROM {schema}").fetchall()
        names, inside = [], 0  # columns inside a nested column are left out
        for name, children in nodes[1:]:
            if not inside:
                names.append(str(name))
            inside = max(inside - 1, 0) + (children or 0)
        names += file.partition
        query = f"SELECT name FROM {schema} WHERE logical_type ILIKE '%float16%'"
        halves = [str(name) for (name,) in self.con.execute(query).fetchall()]
        partition = "".join(
            f", {quoted(value)} AS {named(key)}" for key, value in file.partition.items()
        )
        table = f"(SELECT *{partition} FROM read_parquet({path}, hive_partitioning=false))"
        part = described(self.con, table, file.name, self.options.columns, names, halves)
        return replace(part, files=(file,))

    def _open_text(self, file: LogFile, plain: Path, text: Format) -> Part:
        name = file.name
        where, asked = name, dict(self.options.columns)
        remarks = list(text.remarks)
        placed: dict[Role, str] = {}
        if text.numbered:
            where = f"{name} (without a header row; columns are numbered)"
            placed = {
                role: column
                for role, column in text.roles.items()
                if asked.get(role) is None and column not in asked.values()
            }
            asked |= placed
            if not placed:
                remarks.append("no header row: its first row was taken as data")
        columns = [*text.columns, *file.partition]
        try:
            chosen = choose(columns, asked, where)
        except NoColumnError as error:
            if "\ufffd" not in "".join(columns):
                raise
            raise NoColumnError(
                f"{error}; the header is not UTF-8: name its encoding with {argument('encoding')}"
            ) from None
        labels = {role: columns[place] for role, place in chosen.items()}
        part = Part(
            name, "", labels, dict.fromkeys(chosen, "VARCHAR"), len(text.columns), (file,),
            text=text, plain=(plain,), remarks=tuple(remarks), cautions=text.cautions,
            guessed=rivals(columns, asked, chosen), placed=placed,
        )  # fmt: skip
        if part.is_json:
            return self._json(part)
        scanned = scan(plain, text.splitter)
        padded = text.splitter.padded
        # DuckDB does not recognise a quote after a blank.
        if scanned is None or (scanned.quoted and padded) or padded == "both":
            return self._careful(part)
        part = replace(part, text=replace(text, line_end=scanned.line_end))
        if scanned.open_quote:
            return self._unquoted(part, scanned) or self._careful(part)
        return self._direct(part, scanned)

    def _direct(self, part: Part, scanned: Scan) -> Part:
        """Complete a part with the query of DuckDB's own CSV reader."""
        rows = scanned.lines - _rows_in_front(part.plain[0], part.text.skip)
        return replace(
            part,
            relation=_direct_relation(part),
            rows=(rows,),
            careful=lambda: [self._careful(part)],
        )

    def _unquoted(self, part: Part, scanned: Scan) -> Part | None:
        """Read the quotes of a large file as text if they clearly are text; otherwise return None.

        Three conditions must hold. Every line has the right number of fields. No id holds a quote.
        A trial on many lines finds quotes as text, but no bad row and no record over several lines.
        """
        splitter, plain = part.text.splitter, part.plain[0]
        if self.options.quote is not None or splitter.padded or splitter.escape:
            return None
        if plain.stat().st_size < LARGE_BYTES:
            return None
        if not all_of_width(plain, splitter.delimiter, part.width):
            return None
        trial = write_clean(
            plain, part.name, part.text, part.file_labels, self._place(), TRIED_LINES,
            events=self.options.events,
        )  # fmt: skip
        if trial.n_literal < SEVERAL or trial.n_joined or trial.count:
            return None
        remark = (
            "quotes do not enclose fields in this file and were taken as text (the first in line "
            f"{scanned.open_quote})"
        )
        text = replace(part.text, splitter=replace(splitter, quote=""))
        unquoted = replace(part, text=text, remarks=(*part.remarks, remark))
        direct = replace(self._direct(unquoted, scanned), careful=lambda: [self._careful(part)])
        in_ids = " OR ".join(
            f"contains({LETTER[role]}, {quoted(splitter.quote)})"
            for role in IDS
            if role in part.file_labels
        )
        query = f"SELECT count(*) FROM (FROM {direct.relation} WHERE {in_ids} LIMIT 1)"
        return None if self.con.execute(query).fetchall()[0][0] else direct

    def _json(self, part: Part) -> Part:
        scanned = scan(part.plain[0], Splitter(DELIMITER, quote=""))
        if scanned is None:
            return self._careful(part)
        # Invalid JSON becomes NULL: a bad row in place of an error that ends the query.
        lines = _reader(part.plain, DELIMITER, "", 0, scanned.line_end, ["line", "beyond"])
        rows = f"(SELECT CASE WHEN json_valid(line) THEN line END AS json FROM {lines} "
        rows += "WHERE trim(line) <> '')"
        fields = {role: _json_text(label, role) for role, label in part.file_labels.items()}
        relation = select(_lettered(part, fields), rows)
        return replace(part, relation=relation, careful=lambda: [self._careful(part)])

    def _careful(self, part: Part) -> Part:
        """Parse a text file line by line in Python, to a copy that DuckDB can read."""
        copy = self._place()
        bad = write_clean(
            part.plain[0], part.name, part.text, part.file_labels, copy, events=self.options.events
        )
        if copy.stat().st_size == 0:
            if not bad.rows:
                raise DataError(f"{part.name}: has no rows")
            line, reason = bad.rows[0]
            raise DataError(f"{part.name}, line {line:,}{reason}; the file has no good row")
        names = {role: f"c{place}" for place, role in enumerate(part.file_labels)}
        fields = {role: decoded(name) if bad.escaped else name for role, name in names.items()}
        reader = _reader((copy,), DELIMITER, "", 0, "\\n", ["line", *names.values()])
        relation = select({"line": "line", **_lettered(part, fields)}, reader)
        cautions = (*part.cautions, *bad.cautions())
        return replace(part, relation=relation, bad=bad, careful=None, rows=None, cautions=cautions)


def _ends_as_parquet(path: Path) -> bool:
    """Whether a file that starts with Parquet's magic number also ends with it, or is binary."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, path.stat().st_size - 4))
        return file.read(4) in (b"PAR1", b"PARE") or any(byte < 9 for byte in head)


def _lettered(part: Part, fields: Mapping[Role, str]) -> dict[str, str]:
    """SQL by column letter (u, i, …): a field of the file, or a value from its folder's name."""
    partition = part.files[0].partition
    return {
        LETTER[role]: fields[role] if role in fields else quoted(partition[label])
        for role, label in part.labels.items()
    }


def _direct_relation(part: Part) -> str:
    """SQL query that reads the delimited files of a part with DuckDB's CSV reader."""
    text = part.text
    fields: dict[Role, str] = {}
    for role, label in part.file_labels.items():
        place = text.columns.index(label)
        padded = text.splitter.padded and place > 0
        fields[role] = f"ltrim(c{place}, ' ')" if padded else f"c{place}"
    columns = _lettered(part, fields)
    # A missing field is NULL, an empty one is not; a surplus field lands in `beyond`.
    shaped = f"c{part.width - 1} IS NOT NULL AND beyond IS NULL"
    for letter in {"u", "e"} & columns.keys():
        columns[letter] = f"CASE WHEN {shaped} THEN {columns[letter]} END"
    names = [f"c{place}" for place in range(part.width)]
    splitter = text.splitter
    reader = _reader(
        part.plain, splitter.delimiter, splitter.quote, text.skip, text.line_end, [*names, "beyond"]
    )
    return select(columns, reader)


def _reader(
    paths: Sequence[Path],
    delimiter: str,
    quote: str,
    skip: int,
    line_end: str,
    columns: Sequence[str],
) -> str:
    """SQL of a CSV reader that gives every line as a row of text, with any number of fields."""
    listed = ", ".join(quoted(reader_path(path)) for path in paths)
    declared = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
    return (
        f"read_csv([{listed}], auto_detect=false, header=false, skip={skip}, "
        f"delim={quoted(delimiter)}, new_line='{line_end}', quote='{quote}', escape='{quote}', "
        f"columns={{{declared}}}, nullstr='{NO_NULL}', null_padding=true, strict_mode=false, "
        "compression='none', hive_partitioning=false)"
    )


def _merged(first: Part, second: Part) -> Part | None:
    """One part with the files of both parts, if one query can read them; otherwise None."""
    if first.rows is None or second.rows is None:
        return None
    if (first.labels, first.text) != (second.labels, second.text):
        return None
    if first.files[0].partition != second.files[0].partition:
        return None
    ways = [part.careful for part in (first, second) if part.careful is not None]
    merged = replace(
        first,
        files=first.files + second.files,
        rows=first.rows + second.rows,
        plain=first.plain + second.plain,
        careful=lambda: [part for way in ways for part in way()],
    )
    return replace(merged, relation=_direct_relation(merged))


def _rows_in_front(path: Path, skip: int) -> int:
    """Number of non-empty lines among the first `skip` lines of a file."""
    with path.open("rb") as file:
        lines = [file.readline() for _ in range(skip)]
    return sum(line.strip(b"\r\n") != b"" for line in lines)


def _json_text(key: str, role: Role) -> str:
    """SQL for the value of a JSON key as text; NULL unless the value is a string or a number.

    Strings and integers stay as they are. In an id, 7.0 becomes 7, and other floats become NULL.
    An event may also be true or false, and is '' if it is missing.
    """
    pointer = quoted("/" + key.replace("~", "~0").replace("/", "~1"))
    value = f"(json ->> {pointer})"
    real = value
    if role in (*IDS, "event"):
        number = f"TRY_CAST({value} AS DOUBLE)"
        # A number at the limit may be rounded: NULL leaves it to the careful parser.
        exact = f"{number} = trunc({number}) AND abs({number}) < {LARGEST_EXACT}"
        other = value if role == "event" else "NULL"
        real = f"CASE WHEN {exact} THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) ELSE {other} END"
    text = (
        f"CASE json_type(json, {pointer}) WHEN 'VARCHAR' THEN {value} WHEN 'UBIGINT' THEN {value} "
        f"WHEN 'BIGINT' THEN {value} WHEN 'DOUBLE' THEN {real}"
    )
    if role != "event":
        return f"{text} END"
    # NULL marks a line that is no JSON object, as in a row of a wrong number of fields.
    event = f"coalesce({text} WHEN 'BOOLEAN' THEN {value} END, '')"
    return f"CASE WHEN json_type(json) = 'OBJECT' THEN {event} END"

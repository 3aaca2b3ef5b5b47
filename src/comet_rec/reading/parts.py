"""Parts of a log, each a piece of SQL that gives the columns u, i and, where known, t and r."""

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
from comet_rec.reading.typed import Kinds

MAGIC_BYTES = 16
LARGE_BYTES = 20 << 20
TRIED_LINES = 100_000
SEVERAL = 20
"""Lines with quotes as text, among `TRIED_LINES`, that speak for a file without quoting."""
NO_NULL = "\x10N"
"""Text that no field holds: an empty field is '', and only a field that is not there is NULL."""
WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT")
"""Types that may hold more than an int64, as hashes do."""


@dataclass(frozen=True)
class Part:
    """Rows of one kind: a frame, or files of one format.

    Parameters
    ----------
    name : str
        Name of the part in messages.
    relation : str
        SQL that gives a row for each record, in order; a record of the wrong shape is a row with
        u = NULL.
    labels, types : mapping of role to str
        The column's own name, and its DuckDB type (`HALFFLOAT` for 16 bits).
    width : int
        Number of columns of the whole part.
    files : tuple of LogFile
        Empty for a frame.
    rows : tuple of int or None
        Records of each file, counted without DuckDB; None where nobody counted.
    text : Format
        The format of text files; of the kind "typed" for frames and Parquet.
    plain : tuple of Path
        Text files, unpacked and recoded; empty for frames and Parquet.
    bad : Bad or None
        Bad rows that the careful way found, when the part was read that way.
    remarks : tuple of str
        Notes for the user about how the part is read.
    cautions : tuple of str
        The same, where the part may not mean what it seems to.
    guessed : mapping of role to str
        A note on each role that could have fallen on another column.
    placed : mapping of role to str
        Columns, by number, that were taken for their place in a file without a header row.
    careful : callable or None
        Gives the same rows as parts that were read in the careful way.
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
        """Whether rows are JSON objects."""
        return self.text.kind == "ndjson"

    @property
    def file_labels(self) -> dict[Role, str]:
        """Labels of the columns that the text files hold; folders may stand for the others."""
        columns = self.text.columns
        return {role: self.labels[role] for role in ROLES if self.labels.get(role) in columns}

    def values(self, kinds: Kinds, roles: Sequence[Role]) -> dict[Role, str]:
        """SQL for the typed values of some roles."""
        return {role: kinds.value(role, self.types[role]) for role in roles}

    def notes(self, roles: Sequence[Role]) -> list[str]:
        """Notes for the user about the columns that are read."""
        placed = [
            f"column {self.placed[role]} is the {role}" for role in roles if role in self.placed
        ]
        notes = [f"no header row: {', '.join(placed)}"] if placed else []
        notes += [self.guessed[role] for role in roles if role in self.guessed]
        notes += self.remarks
        if self.bad:
            notes += self.bad.remarks()
        return [f"{self.name}: {note}" for note in notes]

    def file_of_row(self, row: int) -> tuple[int, int]:
        """Which file a record is in, and its number there."""
        if self.rows is None:
            return 0, row
        ends = np.cumsum(self.rows)
        place = int(np.searchsorted(ends, row, side="right"))
        return place, row - int(ends[place]) + self.rows[place]


def select(columns: Mapping[str, str], table: str) -> str:
    """A relation from SQL for each of its columns."""
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
    """A part whose columns DuckDB knows by name and type.

    Parameters
    ----------
    names : sequence of str, optional
        The columns' names: DuckDB gives another one to a name that differs from an earlier one in
        case alone.
    halves : sequence of str
        Columns that are 16-bit floats by origin, though DuckDB has them in 32 bits.
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
    if "time" in chosen and (kinds["time"] in WIDE or kinds["time"].startswith("DECIMAL")):
        picked["t"], kinds["time"] = f"CAST({picked['t']} AS VARCHAR)", "VARCHAR"
    guessed = rivals(columns, asked, chosen)
    return Part(name, select(picked, table), labels, kinds, len(columns), guessed=guessed)


class FileOpener:
    """Opens the files of one log.

    Parameters
    ----------
    con : connection
    options : TextOptions
        What the caller said of columns and text files.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, options: TextOptions) -> None:
        self.con = con
        self.options = options
        # Within the database's own folder, which goes when the reading ends.
        self._folder = Path(tempfile.mkdtemp(dir=spill_folder(con)))
        self._made = 0

    def parts(self, files: Sequence[LogFile]) -> list[Part]:
        """The parts of a log; neighbouring files of one format are one part."""
        opened = [self._open(file) for file in files]
        merged = [opened[0]]
        for part in opened[1:]:
            together = _merged(merged[-1], part)
            merged[-1:] = [merged[-1], part] if together is None else [together]
        return merged

    def _place(self) -> Path:
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
            whole = not opened.read(1)
        if not head:
            raise DataError(f"{name}: is empty")
        refuse_binary(head, name)
        return self._open_text(file, plain, sniff(head, name, self.options, whole=whole))

    def _open_parquet(self, file: LogFile) -> Part:
        path = quoted(reader_path(file.path))
        schema = f"parquet_schema({path})"
        nodes = self.con.execute(f"SELECT name, num_children FROM {schema}").fetchall()
        names, inside = [], 0  # those inside of others are left out
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
        # DuckDB does not see a quote behind a blank.
        if scanned is None or (scanned.quoted and padded) or padded == "both":
            return self._careful(part)
        part = replace(part, text=replace(text, line_end=scanned.line_end))
        if scanned.open_quote:
            return self._unquoted(part, scanned) or self._careful(part)
        return self._direct(part, scanned)

    def _direct(self, part: Part, scanned: Scan) -> Part:
        """The part as DuckDB reads it."""
        rows = scanned.lines - _rows_in_front(part.plain[0], part.text.skip)
        return replace(
            part,
            relation=_direct_relation(part),
            rows=(rows,),
            careful=lambda: [self._careful(part)],
        )

    def _unquoted(self, part: Part, scanned: Scan) -> Part | None:
        """A large part with quotes as text, when it is plainly so.

        Plainly: every line has the right width, no id holds a quote, and of many lines that were
        read carefully some had quotes as text and none was part of a longer record.
        """
        splitter, plain = part.text.splitter, part.plain[0]
        if self.options.quote is not None or splitter.padded or splitter.escape:
            return None
        if plain.stat().st_size < LARGE_BYTES:
            return None
        if not all_of_width(plain, splitter.delimiter, part.width):
            return None
        trial = write_clean(
            plain, part.name, part.text, part.file_labels, self._place(), TRIED_LINES
        )
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
        # A line that is no JSON becomes NULL here, so that it is a bad row and never an error.
        lines = _reader(part.plain, DELIMITER, "", 0, scanned.line_end, ["line", "beyond"])
        rows = f"(SELECT CASE WHEN json_valid(line) THEN line END AS json FROM {lines} "
        rows += "WHERE trim(line) <> '')"
        fields = {
            role: _json_text(label, is_id=role in IDS) for role, label in part.file_labels.items()
        }
        relation = select(_lettered(part, fields), rows)
        return replace(part, relation=relation, careful=lambda: [self._careful(part)])

    def _careful(self, part: Part) -> Part:
        """The part read line by line into a plain copy of the columns that count."""
        copy = self._place()
        bad = write_clean(part.plain[0], part.name, part.text, part.file_labels, copy)
        if copy.stat().st_size == 0:
            if not bad.rows:
                raise DataError(f"{part.name}: has no rows")
            line, reason = bad.rows[0]
            raise DataError(f"{part.name}, line {line:,}{reason}; and no row is good")
        names = {role: f"c{place}" for place, role in enumerate(part.file_labels)}
        fields = {role: decoded(name) if bad.escaped else name for role, name in names.items()}
        reader = _reader((copy,), DELIMITER, "", 0, "\\n", ["line", *names.values()])
        relation = select({"line": "line", **_lettered(part, fields)}, reader)
        cautions = (*part.cautions, *bad.cautions())
        return replace(part, relation=relation, bad=bad, careful=None, rows=None, cautions=cautions)


def _ends_as_parquet(path: Path) -> bool:
    """Whether a file that begins like Parquet is no text: it ends likewise, or is binary."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, path.stat().st_size - 4))
        return file.read(4) in (b"PAR1", b"PARE") or any(byte < 9 for byte in head)


def _lettered(part: Part, fields: Mapping[Role, str]) -> dict[str, str]:
    """SQL for each column of a part: a field of the file, or what its folders say."""
    partition = part.files[0].partition
    return {
        LETTER[role]: fields[role] if role in fields else quoted(partition[label])
        for role, label in part.labels.items()
    }


def _direct_relation(part: Part) -> str:
    """Delimited files as DuckDB's reader gives them."""
    text = part.text
    fields: dict[Role, str] = {}
    for role, label in part.file_labels.items():
        place = text.columns.index(label)
        padded = text.splitter.padded and place > 0
        fields[role] = f"ltrim(c{place}, ' ')" if padded else f"c{place}"
    columns = _lettered(part, fields)
    # A field that is missing is NULL, an empty one is not; one too many lands in `beyond`.
    shaped = f"c{part.width - 1} IS NOT NULL AND beyond IS NULL"
    columns["u"] = f"CASE WHEN {shaped} THEN {columns['u']} END"
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
    """A CSV reader that gives every line as a row of text, whatever its width."""
    listed = ", ".join(quoted(reader_path(path)) for path in paths)
    declared = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
    return (
        f"read_csv([{listed}], auto_detect=false, header=false, skip={skip}, "
        f"delim={quoted(delimiter)}, new_line='{line_end}', quote='{quote}', escape='{quote}', "
        f"columns={{{declared}}}, nullstr='{NO_NULL}', null_padding=true, strict_mode=false, "
        "compression='none', hive_partitioning=false)"
    )


def _merged(first: Part, second: Part) -> Part | None:
    """Two parts as one, where a single reader can read both."""
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
    """Number of the lines in front of the first row that are not empty."""
    with path.open("rb") as file:
        lines = [file.readline() for _ in range(skip)]
    return sum(line.strip(b"\r\n") != b"" for line in lines)


def _json_text(key: str, *, is_id: bool) -> str:
    """SQL for a member as text: a string or an integer as it is, 7.0 as 7; NULL for all else."""
    pointer = quoted("/" + key.replace("~", "~0").replace("/", "~1"))
    value = f"(json ->> {pointer})"
    real = value
    if is_id:
        number = f"TRY_CAST({value} AS DOUBLE)"
        # What is at the limit may have been rounded to it: the careful way looks at the digits.
        exact = f"{number} = trunc({number}) AND abs({number}) < {LARGEST_EXACT}"
        real = f"CASE WHEN {exact} THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) END"
    return (
        f"CASE json_type(json, {pointer}) WHEN 'VARCHAR' THEN {value} WHEN 'UBIGINT' THEN {value} "
        f"WHEN 'BIGINT' THEN {value} WHEN 'DOUBLE' THEN {real} END"
    )

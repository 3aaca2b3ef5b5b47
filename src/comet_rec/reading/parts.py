"""Parts of a log, each a piece of SQL that gives the columns u, i and, where known, t and r."""

from __future__ import annotations

import re
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
    Wanted,
    decoded,
    write_clean,
)
from comet_rec.reading.columns import ROLES, Role, choose, rivals
from comet_rec.reading.database import named, parquet_columns, quoted, reader_path
from comet_rec.reading.files import LogFile, compression_of, plain_file, text_encoding
from comet_rec.reading.foreign import refuse_binary
from comet_rec.reading.lines import Scan, Splitter, all_of_width, scan
from comet_rec.reading.sniff import HEAD_BYTES, Asked, Format, sniff

LETTER: Mapping[Role, str] = {"user": "u", "item": "i", "time": "t", "rating": "r"}
MAGIC_BYTES = 16
LARGE_BYTES = 20 << 20
TRIED_LINES = 100_000
SEVERAL = 20
"""Lines with quotes as text, among `TRIED_LINES`, that speak for a file without quoting."""
NO_NULL = "\x10N"
"""Text that no field holds: an empty field is '', and only a field that is not there is NULL."""


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
    text : Format or None
        The format of text files; None for frames and Parquet.
    plain : tuple of Path
        The files unpacked and recoded.
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
    text: Format | None = None
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
        return self.text is not None and self.text.kind == "ndjson"

    def notes(self, roles: Sequence[Role]) -> list[str]:
        """Notes for the user about the columns that are read."""
        placed = [
            f"column {self.placed[role]} is the {role}" for role in roles if role in self.placed
        ]
        found = [f"{self.name}: no header row: {', '.join(placed)}"] if placed else []
        found += [f"{self.name}: {self.guessed[role]}" for role in roles if role in self.guessed]
        found += [f"{self.name}: {remark}" for remark in self.remarks]
        return found + ([f"{self.name}: {x}" for x in self.bad.remarks()] if self.bad else [])


def select(columns: Mapping[Role, str], table: str) -> str:
    """A relation from SQL for each role."""
    picked = ", ".join(f"{sql} AS {LETTER[role]}" for role, sql in columns.items())
    return f"(SELECT {picked} FROM {table})"


WIDE = ("UBIGINT", "HUGEINT", "UHUGEINT")
"""Types that may hold more than an int64, as hashes do."""


def described(
    con: duckdb.DuckDBPyConnection,
    table: str,
    name: str,
    asked: Mapping[Role, str | None],
    own: Sequence[str] | None = None,
) -> Part:
    """A part whose columns DuckDB knows by name and type.

    Parameters
    ----------
    own : sequence of str, optional
        The columns' names: DuckDB gives another one to a name that differs from an earlier one in
        case alone.
    """
    rows = con.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
    renamed, types = [str(row[0]) for row in rows], [str(row[1]) for row in rows]
    columns = renamed if own is None else list(own)
    chosen = choose(columns, asked, name)
    picked = {role: named(renamed[place]) for role, place in chosen.items()}
    kinds = {role: types[place] for role, place in chosen.items()}
    if "time" in chosen and (kinds["time"] in WIDE or kinds["time"].startswith("DECIMAL")):
        picked["time"], kinds["time"] = f"CAST({picked['time']} AS VARCHAR)", "VARCHAR"
    labels = {role: columns[place] for role, place in chosen.items()}
    guessed = rivals(columns, asked, chosen)
    return Part(name, select(picked, table), labels, kinds, len(columns), guessed=guessed)


@dataclass
class FileOpener:
    """Opens the files of one log.

    Parameters
    ----------
    con : connection
    columns : mapping of role to str or None
        What the caller named.
    encoding, quote, escape : str or None
        What the caller said of text files.
    """

    con: duckdb.DuckDBPyConnection
    columns: Mapping[Role, str | None]
    encoding: str | None = None
    quote: str | None = None
    escape: str | None = None

    def __post_init__(self) -> None:
        # Within the database's own folder, which goes when the reading ends.
        spill = self.con.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
        self._folder = Path(tempfile.mkdtemp(dir=spill))
        self._made = 0
        asked = [name for name in self.columns.values() if name]
        self._asked = Asked(asked, self.quote, self.escape)
        self._asked.check()

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
        codec = text_encoding(self.encoding, name)
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
        found = sniff(head, name, self._asked, whole=whole)
        return self._open_text(file, plain, found)

    def _open_parquet(self, file: LogFile) -> Part:
        path = quoted(reader_path(file.path))
        partition = "".join(
            f", {quoted(value)} AS {named(key)}" for key, value in file.partition.items()
        )
        table = f"(SELECT *{partition} FROM read_parquet({path}, hive_partitioning=false))"
        own = [*parquet_columns(self.con, path), *file.partition]
        part = described(self.con, table, file.name, self.columns, own)
        halves = self.con.execute(
            f"SELECT name FROM parquet_schema({path}) WHERE logical_type ILIKE '%float16%'"
        ).fetchall()
        types = {
            role: "HALFFLOAT" if (part.labels[role],) in halves else kind
            for role, kind in part.types.items()
        }
        return replace(part, files=(file,), types=types)

    def _open_text(self, file: LogFile, plain: Path, found: Format) -> Part:
        name = file.name
        where, wanted = name, dict(self.columns)
        remarks = list(found.remarks)
        unnamed: dict[Role, str] = {}
        if found.numbered:
            where = f"{name} (without a header row; columns are numbered)"
            taken = {column for column in self.columns.values() if column}
            unnamed = {
                role: column
                for role, column in found.roles.items()
                if wanted.get(role) is None and column not in taken
            }
            wanted |= unnamed
            if not unnamed:
                remarks.append("no header row: its first row was taken as data")
        columns = [*found.columns, *file.partition]
        try:
            chosen = choose(columns, wanted, where)
        except NoColumnError as error:
            if "\ufffd" not in "".join(columns):
                raise
            raise NoColumnError(
                f"{error}; the header is not UTF-8: name its encoding with {argument('encoding')}"
            ) from None
        labels = {role: columns[place] for role, place in chosen.items()}
        part = Part(
            name, "", labels, dict.fromkeys(chosen, "VARCHAR"), len(found.columns), (file,),
            text=found, plain=(plain,), remarks=tuple(remarks),
            cautions=found.cautions,
            guessed=rivals(columns, wanted, chosen), placed=unnamed,
        )  # fmt: skip
        if found.kind == "ndjson":
            return self._json(part)
        splitter = found.splitter
        looked = scan(plain, splitter)
        # DuckDB does not see a quote behind a blank.
        by_hand = (looked.quoted and splitter.padded) or splitter.padded == "both"
        if looked.fault or by_hand:
            return self._careful(part)
        if looked.open_quote:
            return self._unquoted(part, looked) or self._careful(part)
        return self._direct(part, looked)

    def _direct(self, part: Part, looked: Scan) -> Part:
        """The part as DuckDB reads it."""
        assert part.text is not None
        columns = self._columns(part, _fields(part))
        # A field that is missing is NULL, an empty one is not; one too many lands in `beyond`.
        shaped = f"c{part.width - 1} IS NOT NULL AND beyond IS NULL"
        columns["user"] = f"CASE WHEN {shaped} THEN {columns['user']} END"
        relation = select(columns, _csv(part, looked.line_end))
        rows = (looked.lines - _rows_in_front(part.plain[0], part.text.skip),)
        return replace(part, relation=relation, rows=rows, careful=lambda: [self._careful(part)])

    def _unquoted(self, part: Part, looked: Scan) -> Part | None:
        """A large part with quotes as text, when it is plainly so.

        Plainly: every line has the right width, no id holds a quote, and of many lines that were
        read carefully some had quotes as text and none was part of a longer record.
        """
        assert part.text is not None
        splitter = part.text.splitter
        if self.quote is not None or splitter.padded or splitter.escape:
            return None
        if part.plain[0].stat().st_size < LARGE_BYTES:
            return None
        if not all_of_width(part.plain[0], splitter.delimiter, part.width):
            return None
        wanted = self._wanted(part)
        trial = write_clean(part.plain[0], part.name, part.text, wanted, self._place(), TRIED_LINES)
        if trial.n_literal < SEVERAL or trial.n_joined or trial.count:
            return None
        remark = (
            "quotes do not enclose fields in this file and were taken as text (the first in line "
            f"{looked.open_quote})"
        )
        text = replace(part.text, splitter=replace(splitter, quote=""))
        unquoted = replace(part, text=text, remarks=(*part.remarks, remark))
        direct = replace(self._direct(unquoted, looked), careful=lambda: [self._careful(part)])
        in_ids = " OR ".join(
            f"contains({LETTER[role]}, {quoted(splitter.quote)})"
            for role in ROLES[:2]
            if role in _own_roles(part)
        )
        query = f"SELECT count(*) FROM (FROM {direct.relation} WHERE {in_ids} LIMIT 1)"
        return None if self.con.execute(query).fetchall()[0][0] else direct

    def _columns(self, part: Part, fields: Mapping[Role, str]) -> dict[Role, str]:
        """SQL for each role: a field of the file, or what its folders say."""
        partition = part.files[0].partition
        return {
            role: fields[role] if role in fields else quoted(partition[part.labels[role]])
            for role in ROLES
            if role in part.labels
        }

    def _json(self, part: Part) -> Part:
        assert part.text is not None
        fields = {
            role: _json_text(part.labels[role], whole=role in ("user", "item"))
            for role in _own_roles(part)
        }
        looked = scan(part.plain[0], Splitter(DELIMITER, quote=""))
        if looked.fault:
            return self._careful(part)
        # A line that is no JSON becomes NULL here, so that it is a bad row and never an error.
        lines = _reader(part.plain[0], DELIMITER, "", 0, looked.line_end, ["line", "beyond"])
        rows = f"(SELECT CASE WHEN json_valid(line) THEN line END AS json FROM {lines} "
        rows += "WHERE trim(line) <> '')"
        relation = select(self._columns(part, fields), rows)
        return replace(part, relation=relation, careful=lambda: [self._careful(part)])

    def _careful(self, part: Part) -> Part:
        """The part read line by line into a plain copy of the columns that count."""
        assert part.text is not None
        roles = _own_roles(part)
        place = self._place()
        bad = write_clean(part.plain[0], part.name, part.text, self._wanted(part), place)
        fields = {
            role: decoded(f"c{place}") if bad.escaped else f"c{place}"
            for place, role in enumerate(roles)
        }
        if place.stat().st_size == 0:
            raise _no_rows(part.name, bad)
        columns = ["line", *(f"c{place}" for place in range(len(roles)))]
        reader = _reader(place, DELIMITER, "", 0, "\\n", columns)
        picked = select({**self._columns(part, fields)}, reader)
        relation = picked.replace("(SELECT ", "(SELECT line, ", 1)
        cautions = (*part.cautions, *bad.cautions())
        return replace(part, relation=relation, bad=bad, careful=None, rows=None, cautions=cautions)

    def _wanted(self, part: Part) -> list[Wanted]:
        """The columns of the file that play a role."""
        assert part.text is not None
        return [
            Wanted(part.text.columns.index(label), label, role in ("user", "item"))
            for role in _own_roles(part)
            for label in [part.labels[role]]
        ]


def _ends_as_parquet(path: Path) -> bool:
    """Whether a file that begins like Parquet is no text: it ends likewise, or is binary."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, path.stat().st_size - 4))
        return file.read(4) in (b"PAR1", b"PARE") or any(byte < 9 for byte in head)


def _no_rows(name: str, bad: Bad) -> DataError:
    if not bad.rows:
        return DataError(f"{name}: has no rows")
    line, reason = bad.rows[0]
    return DataError(f"{name}, line {line:,}{reason}; and no row is good")


def _own_roles(part: Part) -> list[Role]:
    """Roles of columns that are in the file itself."""
    partition = part.files[0].partition
    return [role for role in ROLES if role in part.labels and part.labels[role] not in partition]


def _fields(part: Part) -> dict[Role, str]:
    """SQL for the fields of a delimited part."""
    assert part.text is not None
    columns, padded = part.text.columns, part.text.splitter.padded
    fields: dict[Role, str] = {}
    for role in _own_roles(part):
        place = columns.index(part.labels[role])
        fields[role] = f"ltrim(c{place}, ' ')" if padded and place > 0 else f"c{place}"
    return fields


def _csv(part: Part, line_end: str) -> str:
    assert part.text is not None
    splitter = part.text.splitter
    names = [f"c{place}" for place in range(len(part.text.columns))]
    columns = [*names, "beyond"]
    return _reader(
        part.plain[0], splitter.delimiter, splitter.quote, part.text.skip, line_end, columns
    )


def _reader(
    path: Path, delimiter: str, quote: str, skip: int, line_end: str, columns: Sequence[str]
) -> str:
    """A CSV reader that gives every line as a row of text, whatever its width.

    The paths are a list, so that `_merged` can add to it.
    """
    declared = ", ".join(f"'{column}': 'VARCHAR'" for column in columns)
    return (
        f"read_csv([{quoted(reader_path(path))}], auto_detect=false, header=false, skip={skip}, "
        f"delim={quoted(delimiter)}, new_line='{line_end}', quote='{quote}', escape='{quote}', "
        f"columns={{{declared}}}, nullstr='{NO_NULL}', null_padding=true, strict_mode=false, "
        "compression='none', hive_partitioning=false)"
    )


def _merged(first: Part, second: Part) -> Part | None:
    """Two parts as one, where a single reader can read both."""
    a, b = first, second
    if a.rows is None or b.rows is None or a.text is None or b.text is None:
        return None
    if (a.labels, a.text, a.files[0].partition) != (b.labels, b.text, b.files[0].partition):
        return None
    paths = re.compile(r"read_csv\(\[(.*?)\], auto_detect", re.DOTALL)
    ours, theirs = paths.search(a.relation), paths.search(b.relation)
    if ours is None or theirs is None:
        return None
    relation = a.relation.replace(ours[1], f"{ours[1]}, {theirs[1]}")
    if b.relation.replace(theirs[1], ours[1]) != a.relation:
        return None
    careful = [way for way in (a.careful, b.careful) if way is not None]
    return replace(
        a,
        relation=relation,
        files=a.files + b.files,
        rows=a.rows + b.rows,
        plain=a.plain + b.plain,
        careful=lambda: [part for way in careful for part in way()],
    )


def _rows_in_front(path: Path, skip: int) -> int:
    """Number of the lines in front of the first row that are not empty."""
    with path.open("rb") as file:
        lines = [file.readline() for _ in range(skip)]
    return sum(line.strip(b"\r\n") != b"" for line in lines)


def _json_text(key: str, *, whole: bool) -> str:
    """SQL for a member as text: a string or an integer as it is, 7.0 as 7; NULL for all else."""
    pointer = quoted("/" + key.replace("~", "~0").replace("/", "~1"))
    value = f"(json ->> {pointer})"
    real = value
    if whole:
        number = f"TRY_CAST({value} AS DOUBLE)"
        # What is at the limit may have been rounded to it: the careful way looks at the digits.
        exact = f"{number} = trunc({number}) AND abs({number}) < {LARGEST_EXACT}"
        real = f"CASE WHEN {exact} THEN CAST(CAST({number} AS BIGINT) AS VARCHAR) END"
    return (
        f"CASE json_type(json, {pointer}) WHEN 'VARCHAR' THEN {value} WHEN 'UBIGINT' THEN {value} "
        f"WHEN 'BIGINT' THEN {value} WHEN 'DOUBLE' THEN {real} END"
    )


def file_of_row(part: Part, row: int) -> tuple[int, int]:
    """Which file of a part a record is in, and its number there."""
    if part.rows is None or len(part.rows) == 1:
        return 0, row
    ends = np.cumsum(part.rows)
    at = int(np.searchsorted(ends, row, side="right"))
    return at, row - (int(ends[at - 1]) if at else 0)

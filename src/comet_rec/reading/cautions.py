"""Notes and doubts of a reading: ids and ratings that may not mean what they seem to."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt

from comet_rec.errors import CometWarning, argument
from comet_rec.reading.bad_rows import line_of_row
from comet_rec.reading.clean import JsonFloat, JsonInteger
from comet_rec.reading.columns import Role
from comet_rec.reading.database import quoted
from comet_rec.reading.foreign import LIST_PATTERN, PAIR_PATTERN, list_error
from comet_rec.reading.parts import LETTER, Part
from comet_rec.reading.stage import Staged
from comet_rec.reading.typed import EXACT_BITS, HASH

MISSING = ("<NA>", "NA", "NULL", "NaN", "None", "\\N", "nan", "null")
"""Words that exports write for a missing id."""

HANDFUL = 5
MANY = 20
LIST_SHARE = 0.8
MOST_LOOKED = 1000
"""Lines of JSON that are parsed for the spelling of a number."""

# Spreadsheets and floats write the sign; a hexadecimal id such as 12345e67 has none.
_EXPONENT = r"[+-]?\d(\.\d+)?[eE]\+\d{1,3}"
_SPELLED = r"[+-]?0*\d+(\.0*)?"


@dataclass
class Remarks:
    """Notes in the order in which they came up.

    Parameters
    ----------
    notes : list of str
        All of them, doubts included.
    doubts : list of str
        Those after which the log may not mean what its owner thinks.
    """

    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something was done."""
        self.notes.append(text)

    def doubt(self, texts: Iterable[str]) -> None:
        """Something may be wrong."""
        for text in texts:
            self.notes.append(text)
            self.doubts.append(text)

    def warn(self, stacklevel: int) -> None:
        """Show the doubts as warnings."""
        for text in self.doubts:
            warnings.warn(text, CometWarning, stacklevel=stacklevel + 1)


@dataclass
class IdCautions:
    """Looks at the distinct text ids of one side, in the table `ids_u` or `ids_i`.

    Parameters
    ----------
    text : str
        The table's column of the ids' text.
    """

    con: duckdb.DuckDBPyConnection
    staged: Staged
    role: Role
    text: str

    @property
    def _table(self) -> str:
        return f"ids_{LETTER[self.role]}"

    @property
    def _label(self) -> str:
        return self.staged.parts[0].labels[self.role]

    def notes(self) -> list[str]:
        """A line for each doubt.

        Raises
        ------
        DataError
            When the ids are lists of ids.
        """
        total, count, example = self._counted()
        if count["list"] >= 3 and count["list"] >= LIST_SHARE * total:
            raise list_error(self.staged.name, self._label, example["list"])
        found = self._missing()
        if count["pair"] >= 3 and count["pair"] + count["list"] >= LIST_SHARE * total:
            found.append(
                f"column {self._label!r} holds pairs ({example['pair']!r}), and each counts as one "
                "id; if they are lists, write a row for each member"
            )
        if count["marked"]:
            found.append(
                f"{self.role} id {example['marked']!r} begins with a byte-order mark, as joined "
                "files have it; remove it"
            )
        if count["exponent"]:
            found.append(
                f"column {self._label!r} holds numbers with an exponent ({example['exponent']!r}), "
                "as spreadsheets round long ids: different ids may have become one; export the "
                "column as text"
            )
        if count["padded"]:
            found.append(
                f"{count['padded']:,} {self.role} ids begin or end with blanks "
                f"({example['padded']!r}) and are kept so; strip them if the blanks mean nothing"
            )
        others = total - count["integer"]
        if count["integer"] >= MANY and 0 < others <= min(HANDFUL, 0.05 * total):
            found.append(self._handful(count["integer"]))
        if count["spelled"] > count["integer"]:
            found += self._spellings()
        return found

    def _counted(self) -> tuple[int, dict[str, int], dict[str, str]]:
        """Number of all ids; of each doubtful form the number of its ids, and one of them."""
        x = self.text
        conditions = {
            "list": f"regexp_full_match({x}, {quoted(LIST_PATTERN)})",
            "pair": f"regexp_full_match({x}, {quoted(PAIR_PATTERN)})",
            "marked": f"starts_with({x}, chr(65279))",
            "exponent": f"regexp_full_match({x}, '{_EXPONENT}')",
            "padded": f"{x} <> trim({x})",
            "integer": f"CAST(TRY_CAST({x} AS BIGINT) AS VARCHAR) = {x}",
            "spelled": f"regexp_full_match({x}, '{_SPELLED}')",
        }
        picked = ["count(*)"]
        for form, condition in conditions.items():
            # The largest number shows best what rounding did.
            one = "max" if form == "exponent" else "min"
            picked += [f"count(*) FILTER ({condition})", f"{one}({x}) FILTER ({condition})"]
        row = self.con.execute(f"SELECT {', '.join(picked)} FROM {self._table}").fetchall()[0]
        counts, examples = row[1::2], row[2::2]
        return (
            row[0],
            dict(zip(conditions, counts, strict=True)),
            dict(zip(conditions, examples, strict=True)),
        )

    def _missing(self) -> list[str]:
        words = ", ".join(map(quoted, MISSING))
        query = (
            f"SELECT {self.text}, n FROM {self._table} WHERE {self.text} IN ({words}) ORDER BY 1"
        )
        return [
            f"'{word}' counts as {self.role} id, with {count:,} rows; if it stands for none, drop "
            "them"
            for word, count in self.con.execute(query).fetchall()
        ]

    def _handful(self, integers: int) -> str:
        """The few values that make a column of integers a column of text, with their lines."""
        x, letter = self.text, LETTER[self.role]
        odd = f"CAST(TRY_CAST({x} AS BIGINT) AS VARCHAR) IS DISTINCT FROM {x}"
        query = f"SELECT {x} FROM {self._table} WHERE {odd} ORDER BY 1 LIMIT {HANDFUL}"
        shown = []
        for (value,) in self.con.execute(query).fetchall():
            key = quoted(value)
            key = HASH.format(key) if letter in self.staged.texts() else key
            row = self.con.execute(f"SELECT min(rowid) FROM log WHERE {letter} = {key}").fetchall()
            shown.append(f"{value!r} ({line_of_row(self.con, self.staged, int(row[0][0]))})")
        return (
            f"the {self.role} ids are text for the sake of {', '.join(shown)}; the other "
            f"{integers:,} are integers: if these rows do not belong, remove them"
        )

    def _spellings(self) -> list[str]:
        """Ids that are the same number, such as 7 and 7.0."""
        x = self.text
        pairs = self.con.execute(
            f"SELECT min({x}), max({x}) FROM {self._table} "
            f"WHERE regexp_full_match({x}, '{_SPELLED}') AND TRY_CAST({x} AS DECIMAL(38, 9)) "
            f"IS NOT NULL GROUP BY TRY_CAST({x} AS DECIMAL(38, 9)) HAVING count(*) > 1 "
            "ORDER BY 1 LIMIT 1"
        ).fetchall()
        return [
            f"column {self._label!r} spells one number in more than one way, {a!r} and {b!r}, and "
            "each counts as an id of its own; make them alike"
            for a, b in pairs
        ]


def rounded_ids(staged: Staged, role: Role, ids: npt.NDArray[np.int64]) -> list[str]:
    """A doubt about float ids at the limit of exactness, to which greater ones are rounded."""
    limits = {
        2 ** EXACT_BITS[kind] for part in staged.parts if (kind := part.types[role]) in EXACT_BITS
    }
    found = sorted(limit for limit in limits if np.isin([limit, -limit], ids).any())
    label = staged.parts[0].labels[role]
    return [
        f"column {label!r} holds {limit}, the largest exact float: greater ids may have been "
        "rounded to it; make ids integers or text"
        for limit in found
    ]


def json_spellings(staged: Staged) -> list[str]:
    """Doubts about JSON ids that are written as 7 in one line and 7.0 in another."""
    found = []
    for part in staged.parts:
        for role in ("user", "item") if part.is_json else ():
            label = part.labels[role]
            spellings = _spellings_of_member(part, label)
            if len(spellings) == 2:
                found.append(
                    f"column {label!r} holds integers and floats ({spellings[False]} and "
                    f"{spellings[True]}), and 7 and 7.0 count as one id"
                )
    return found


def _spellings_of_member(part: Part, label: str) -> dict[bool, str]:
    """An integer (False) and a float (True) that a member is written as, where there are some."""
    name = re.escape(json.dumps(label).encode())
    number = re.compile(rb"[^\n]*" + name + rb"\s*:\s*-?\d+(\.\d+|[eE])?[^\n]*")
    spellings: dict[bool, str] = {}
    looked = 0
    for path in part.plain:
        with path.open("rb") as file:
            while looked < MOST_LOOKED and (block := file.read(1 << 22)):
                block += file.readline(1 << 22)
                for match in number.finditer(block):
                    if (match[1] is not None) in spellings:
                        continue
                    looked += 1  # a name within another member looks the same, so parse the line
                    value = _member(match[0], label)
                    if value is not None:
                        spellings[isinstance(value, JsonFloat)] = str(value)
                    if len(spellings) == 2 or looked >= MOST_LOOKED:
                        return spellings
    return spellings


def _member(line: bytes, label: str) -> str | None:
    """The number that a member of a line is, as it is written."""
    try:
        record = json.loads(line, parse_int=JsonInteger, parse_float=JsonFloat)
    except (ValueError, RecursionError):
        return None
    value = record.get(label) if isinstance(record, dict) else None
    return value if isinstance(value, (JsonInteger, JsonFloat)) else None


def zero_ratings(con: duckdb.DuckDBPyConnection, staged: Staged) -> list[str]:
    """A doubt about rows rated 0, when nobody asked to drop them."""
    if not staged.watches_ratings:
        return []
    zeros, rows, binary = con.execute(
        "SELECT count(*) FILTER (z = 0), count(z), bool_and(z < 2) FROM log"
    ).fetchall()[0]
    if not zeros:
        return []
    label = staged.parts[0].labels["rating"]
    what = "holds only 0 and 1, so it may mark negatives" if binary else "has zeros"
    return [
        f"column {label!r} {what}: {zeros:,} of {rows:,} rows have 0 and count as interactions; "
        f"pass {argument('min_rating', 1)} to leave them out"
    ]

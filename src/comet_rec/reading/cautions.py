"""Notes and warnings about a log: ids and ratings that may not mean what they seem to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from comet_rec.errors import DataError, argument
from comet_rec.reading.bad_rows import place_of_row
from comet_rec.reading.clean import JsonFloat, JsonInteger, json_text
from comet_rec.reading.columns import IDS, LETTER, Role
from comet_rec.reading.database import quoted
from comet_rec.reading.parts import Part
from comet_rec.reading.table import LogTable
from comet_rec.reading.typed import EXACT_BITS, HASH

MISSING = ("<NA>", "NA", "NULL", "NaN", "None", "\\N", "nan", "null")
"""Words that exports write in place of a missing id."""

HANDFUL = 5
MANY = 20
LIST_SHARE = 0.8
MOST_LOOKED = 1000
"""JSON lines that are parsed at most to see how a number is written."""

_MEMBER = r"[A-Za-z_]{0,3}-?\d+(-[01])?"
_ARRAY = r"\[[^\]]*,[^\]]*\]|\[\d*\]"
# Ids that are lists of ids, such as `N5 N6 N7` or `[1, 2]`; two numbers may also be one id.
_PAIR = rf"{_ARRAY}|{_MEMBER}[ ,;|]{_MEMBER}"
_LIST = rf"{_ARRAY}|{_MEMBER}([ ,;|]{_MEMBER}){{2,}}"
# Spreadsheets and floats write the sign; a hexadecimal id such as 12345e67 has none.
_EXPONENT = r"[+-]?\d(\.\d+)?[eE]\+\d{1,3}"
_SPELLED = r"[+-]?0*\d+(\.0*)?"


@dataclass
class Remarks:
    """Notes and warnings for the user that arise while one log is read, in order.

    Parameters
    ----------
    notes : list of str
        All messages, warnings included.
    doubts : list of str
        Warnings: the log may not mean what its owner expects.
    first_bad : str
        Place and fault of the first bad row that was skipped; empty without one.
    """

    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    first_bad: str = ""

    def doubt(self, texts: Iterable[str]) -> None:
        """Add texts to the warnings and to the notes."""
        texts = list(texts)
        self.notes += texts
        self.doubts += texts


class IdCautions:
    """Checks the distinct text ids of users or items for signs of damaged data.

    Parameters
    ----------
    table : LogTable
        The log. Its database holds the ids in the table `ids_u` (users) or `ids_i` (items).
    role : {"user", "item"}
        Whether to check the user ids or the item ids.
    text : str
        Name of the column of `ids_u` or `ids_i` that holds the ids as text.
    """

    def __init__(self, table: LogTable, role: Role, text: str) -> None:
        self.table, self.role, self.text = table, role, text
        self.ids = f"ids_{LETTER[role]}"
        self.label = table.parts[0].labels[role]

    def doubts(self) -> list[str]:
        """Check the ids; return the warnings, one line each.

        Raises
        ------
        DataError
            When most ids are lists of ids, such as `[1, 2]`.
        """
        total, count, example = self._counted()
        if count["list"] >= 3 and count["list"] >= LIST_SHARE * total:
            first = example["list"]
            shown = first if len(first) <= 40 else first[:37] + "..."
            raise DataError(
                f"{self.table.name}: column {self.label!r} holds lists ({shown!r}), and each would "
                f"count as one id; write a row for each member, such as frame[{self.label!r}] = "
                f"frame[{self.label!r}].str.split(); frame.explode({self.label!r})"
            )
        doubts = self._missing()
        if count["pair"] >= 3 and count["pair"] + count["list"] >= LIST_SHARE * total:
            doubts.append(
                f"column {self.label!r} holds pairs ({example['pair']!r}), and each counts as one "
                "id; if they are lists, write a row for each member"
            )
        if count["marked"]:
            doubts.append(
                f"{self.role} id {example['marked']!r} begins with a byte-order mark, as in "
                "joined files; remove it"
            )
        if count["exponent"]:
            doubts.append(
                f"column {self.label!r} holds numbers with an exponent ({example['exponent']!r}), "
                "as spreadsheets write long ids after rounding; different ids may have become "
                "one; export the column as text"
            )
        if count["padded"]:
            doubts.append(
                f"{count['padded']:,} {self.role} ids begin or end with blanks "
                f"({example['padded']!r}) and keep them; strip the blanks if they mean nothing"
            )
        others = total - count["integer"]
        if count["integer"] >= MANY and 0 < others <= min(HANDFUL, 0.05 * total):
            doubts.append(self._handful(count["integer"]))
        if count["spelled"] > count["integer"]:
            doubts += self._spellings()
        return doubts

    def _counted(self) -> tuple[int, dict[str, int], dict[str, str]]:
        """Number of all ids; for each suspicious form, the number of such ids and an example."""
        text = self.text
        conditions = {
            "list": f"regexp_full_match({text}, {quoted(_LIST)})",
            "pair": f"regexp_full_match({text}, {quoted(_PAIR)})",
            "marked": f"starts_with({text}, chr(65279))",
            "exponent": f"regexp_full_match({text}, '{_EXPONENT}')",
            "padded": f"{text} <> trim({text})",
            "integer": f"CAST(TRY_CAST({text} AS BIGINT) AS VARCHAR) = {text}",
            "spelled": f"regexp_full_match({text}, '{_SPELLED}')",
        }
        picked = ["count(*)"]
        for form, condition in conditions.items():
            # The largest number shows the effect of rounding best.
            example = "max" if form == "exponent" else "min"
            picked += [f"count(*) FILTER ({condition})", f"{example}({text}) FILTER ({condition})"]
        query = f"SELECT {', '.join(picked)} FROM {self.ids}"
        total, *pairs = self.table.con.execute(query).fetchall()[0]
        counts = dict(zip(conditions, pairs[0::2], strict=True))
        return total, counts, dict(zip(conditions, pairs[1::2], strict=True))

    def _missing(self) -> list[str]:
        """Warnings about ids such as "NULL" or "nan", which may stand for a missing id."""
        words = ", ".join(map(quoted, MISSING))
        query = f"SELECT {self.text}, n FROM {self.ids} WHERE {self.text} IN ({words}) ORDER BY 1"
        return [
            f"'{word}' counts as {self.role} id, with {count:,} rows; if it means a missing id, "
            "drop these rows"
            for word, count in self.table.con.execute(query).fetchall()
        ]

    def _handful(self, integers: int) -> str:
        """Warning that a few ids are text although the other `integers` ids are integers."""
        text, letter = self.text, LETTER[self.role]
        odd = f"CAST(TRY_CAST({text} AS BIGINT) AS VARCHAR) IS DISTINCT FROM {text}"
        query = f"SELECT {text} FROM {self.ids} WHERE {odd} ORDER BY 1 LIMIT {HANDFUL}"
        shown = []
        for (value,) in self.table.con.execute(query).fetchall():
            key = quoted(value)
            key = HASH.format(key) if letter in self.table.hashed_ids() else key
            row = self.table.count(f"SELECT min(rowid) FROM log WHERE {letter} = {key}")
            shown.append(f"{value!r} ({place_of_row(self.table, row)})")
        return (
            f"the {self.role} ids are read as text because of {', '.join(shown)}; the other "
            f"{integers:,} are integers; remove these rows if they are no interactions"
        )

    def _spellings(self) -> list[str]:
        """Warning about one number that is written as several ids, such as 7 and 7.0."""
        text = self.text
        number = f"TRY_CAST({text} AS DECIMAL(38, 9))"
        pairs = self.table.con.execute(
            f"SELECT min({text}), max({text}) FROM {self.ids} "
            f"WHERE regexp_full_match({text}, '{_SPELLED}') AND {number} IS NOT NULL "
            f"GROUP BY {number} HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
        ).fetchall()
        return [
            f"column {self.label!r} writes one number in several ways, {one!r} and {other!r}, "
            "and each counts as a separate id; write it in one way"
            for one, other in pairs
        ]


def rounded_ids(table: LogTable, role: Role, ids: npt.NDArray[np.int64]) -> list[str]:
    """Warnings about ids that equal the largest exact float of their column's type.

    Larger ids may have been rounded to that value.
    """
    types = {part.types[role] for part in table.parts}
    limits = sorted(2**bits for sql_type, bits in EXACT_BITS.items() if sql_type in types)
    label = table.parts[0].labels[role]
    return [
        f"column {label!r} holds {limit}, the largest exact float: greater ids may have been "
        "rounded to it; make ids integers or text"
        for limit in limits
        if np.isin([limit, -limit], ids).any()
    ]


def json_spellings(table: LogTable) -> list[str]:
    """Warnings about columns of JSON ids that hold integers and floats, such as 7 and 7.0."""
    doubts = []
    for part in table.parts:
        for role in IDS if part.is_json else ():
            label = part.labels[role]
            spellings = _spellings_of_member(part, label, table.events)
            if len(spellings) == 2:
                doubts.append(
                    f"column {label!r} holds integers and floats ({spellings[False]} and "
                    f"{spellings[True]}), and 7 and 7.0 count as one id"
                )
    return doubts


def _spellings_of_member(part: Part, label: str, events: Sequence[str]) -> dict[bool, str]:
    """Examples of the numbers under a JSON key: an integer (False) and a float (True), if any.

    Only rows of these events count; all rows if `events` is empty.
    """
    event_label = part.labels["event"] if events else None
    name = re.escape(json.dumps(label).encode())
    number = re.compile(rb"[^\n]*" + name + rb"\s*:\s*-?\d+(\.\d+|[eE])?[^\n]*")
    spellings: dict[bool, str] = {}
    n_parsed = 0
    for path in part.plain:
        with path.open("rb") as file:
            while n_parsed < MOST_LOOKED and (block := file.read(1 << 22)):
                block += file.readline(1 << 22)
                for match in number.finditer(block):
                    if (match[1] is not None) in spellings:
                        continue
                    n_parsed += 1  # the name may stand inside another member, so parse the line
                    value = _member(match[0], label, event_label, events)
                    if value is not None:
                        spellings[isinstance(value, JsonFloat)] = str(value)
                    if len(spellings) == 2 or n_parsed >= MOST_LOOKED:
                        return spellings
    return spellings


def _member(line: bytes, label: str, event_label: str | None, events: Sequence[str]) -> str | None:
    """The number under a key of a JSON line, as it is written; None if it is no number.

    With `event_label`, the key of the event, a line of another event than `events` gives None.
    """
    try:
        record = json.loads(line, parse_int=JsonInteger, parse_float=JsonFloat)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if event_label is not None and json_text(record.get(event_label), is_event=True) not in events:
        return None
    value = record.get(label)
    return value if isinstance(value, (JsonInteger, JsonFloat)) else None


def zero_ratings(table: LogTable) -> list[str]:
    """A warning about rows with rating 0, if the caller set no `min_rating`; else an empty list."""
    if not table.watches_ratings:
        return []
    zeros, rows, binary = table.con.execute(
        "SELECT count(*) FILTER (z = 0), count(z), bool_and(z < 2) FROM log"
    ).fetchall()[0]
    if not zeros:
        return []
    label = table.parts[0].labels["rating"]
    finding = "holds only 0 and 1, so it may mark negatives" if binary else "has zeros"
    return [
        f"column {label!r} {finding}: {zeros:,} of {rows:,} rows have 0 and count as interactions; "
        f"pass {argument('min_rating', 1)} to leave them out"
    ]

"""Refuse files that are no log, or a log in another layout, and say how to convert them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from comet_rec.errors import DataError, argument
from comet_rec.reading.files import compression_of

_EXPORT = "export the table to CSV or Parquet"
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive (or a workbook, or .npz)", "unpack it, or export it to CSV"),
    (0, b"PK\x05\x06", "an empty zip archive", "unpack it, or export it to CSV"),
    (257, b"ustar", "a tar archive", "unpack it and give the file inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the file inside"),
    (0, b"Rar!\x1a\x07", "a rar archive", "unpack it and give the file inside"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it first"),
    (0, b"\xff\x06\x00\x00sNaPpY", "compressed with snappy", "unpack it first"),
    (0, b"\x1f\x9d", "compressed with compress (.Z)", "unpack it first"),
    (0, b"ARROW1", "an Arrow IPC (Feather) file", "give pyarrow.feather.read_table(path)"),
    (0, b"FEA1", "a Feather file", "give pyarrow.feather.read_table(path)"),
    (0, b"\xff\xff\xff\xff", "an Arrow IPC stream", "give the table that pyarrow reads from it"),
    (0, b"\x93NUMPY", "a NumPy array", "give numpy.load(path).tolist(), rows of user and item"),
    (0, b"SQLite format 3", "an SQLite database", _EXPORT),
    (8, b"DUCK", "a DuckDB database", _EXPORT),
    (0, b"\x89HDF", "an HDF5 file", _EXPORT),
    (0, b"ORC", "an ORC file", "convert it to Parquet"),
    (0, b"Obj\x01", "an Avro file", "convert it to Parquet"),
    (0, b"\xd0\xcf\x11\xe0", "an old Excel workbook", "export the sheet to CSV"),
    (0, b"%PDF", "a PDF", _EXPORT),
    (0, b"\x89PNG", "a picture", "give a log"),
    (0, b"\x7fELF", "a program", "give a log"),
    (0, b"PAR1", "Parquet that is compressed again or damaged", "unpack it"),
    (0, b"version https://git-lfs", "a pointer of Git LFS and not the file", "run `git lfs pull`"),
    (0, b"%%MatrixMarket", "a Matrix Market file", "give scipy.io.mmread(path)"),
)
_PICKLE = re.compile(
    rb"\x80[\x02-\x05].{0,12}[c}\](\x8c\x95]|[}\]]q[\x00-\xff]|\([dl]p\d+\n|c[\w.]+\n\w+\n[p(]",
    re.DOTALL,
)


def refuse_binary(head: bytes, name: str) -> None:
    """Raise an error if the first bytes of a file are not text, as in an archive or a workbook.

    Raises
    ------
    DataError
        When `head` is not text. The message names the format and says what to do.
    """
    binary = any(byte < 9 for byte in head[:4096])
    for offset, magic, file_format, remedy in _MAGIC:
        # A text may also start with a magic number of letters alone.
        if head[offset:].startswith(magic) and (binary or not magic.isalnum()):
            if file_format.startswith("a zip") and b"xl/" in head[:4096]:
                file_format, remedy = "an Excel workbook", "export the sheet to CSV"
            raise DataError(f"{name}: is {file_format}; {remedy}")
    if _PICKLE.match(head):
        raise DataError(
            f"{name}: is a pickle, which can run any program when it is opened; if you trust it, "
            "load it and give the frame"
        )
    if compression_of(head[:16]) != "none":
        raise DataError(f"{name}: is compressed twice; unpack it once")
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        raise DataError(f"{name}: is UTF-32 text; pass {argument('encoding', 'utf-32')}")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name}: is UTF-16 text; pass {argument('encoding', 'utf-16')}")
    even, odd = head[:4096:2], head[1:4096:2]
    for codec, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        # In Latin text as UTF-16 the high bytes are zero and the low bytes are not.
        if high.count(0) > 0.4 * len(high) and low.count(0) < 0.1 * len(low) + 1 and b"\n" in low:
            raise DataError(
                f"{name}: holds NUL bytes, as UTF-16 text does; if it is UTF-16, pass "
                f"{argument('encoding', codec)}"
            )
    if b"\x00" in head:
        raise DataError(f"{name}: holds NUL bytes: binary or UTF-16; give UTF-8 text or Parquet")


def refuse_layout(lines: Sequence[str], name: str, *, numbered: bool = False) -> None:
    """Raise an error if a text does not have one interaction per row.

    Parameters
    ----------
    lines : sequence of str
        The first lines of the file, without blank ones.
    numbered : bool
        Whether the caller named columns by number. Lines of numbers are then a table, not lists of
        items.

    Raises
    ------
    DataError
        When the text has a known layout of another form, such as one user and all items per line.
        The message names the layout and shows a short conversion.
    """
    first = lines[0].strip()
    if first == "[" or first.startswith(("[{", "[ {", "[[")):
        raise DataError(
            f"{name}: is a JSON array; write one object per line, for example with "
            "pandas.read_json(path).to_json(out, orient='records', lines=True)"
        )
    if re.match(r"\{\s*u?'", first):
        raise DataError(
            f"{name}: its lines are Python dicts, not JSON (single quotes, u'…'); convert them "
            "with: import ast, json, sys; for line in open('FILE', encoding='utf-8'): "
            "print(json.dumps(ast.literal_eval(line)))"
        )
    if first.startswith("{") and (nested := _nested_events(first)):
        session, events, item = nested
        raise DataError(
            f"{name}: holds one session per line, its events in the list {events!r} (the layout "
            f"of OTTO); write one event per line: for line in open('FILE'): s = json.loads(line); "
            f"for e in s[{events!r}]: print(json.dumps({{'user_id': s[{session!r}], 'item_id': "
            f"e[{item!r}], 'timestamp': e.get('ts')}}))"
        )
    if re.fullmatch(r"\d+:", first) and any(re.match(r"\d+,", line) for line in lines[1:3]):
        raise DataError(
            f"{name}: holds blocks under lines such as {first!r} (the layout of the Netflix "
            "prize); write one row per rating: for line in open('FILE'): line = line.strip(); "
            "if line.endswith(':'): movie = line[:-1]; else: print(f'{movie},{line}'), under the "
            "header item_id,user_id,rating,date"
        )
    mind = r"\d+\t\S+\t[^\t]*\t(N\d+ ?)*\t(N\d+(-[01])? ?)+"
    if re.fullmatch(mind, lines[0].rstrip("\r\n")):
        raise DataError(
            f"{name}: holds one impression per line, with lists of news (the layout of MIND); "
            "write one row per click: for line in open('FILE'): _, user, time, past, shown = "
            "line.rstrip().split('\\t'); for news in shown.split(): "
            "if news.endswith('-1'): print(user, news[:-2], time, sep='\\t')"
        )
    if not numbered and _is_list_layout(lines):
        raise DataError(
            f"{name}: holds one user per line, with all items (the layout of LightGCN and NGCF); "
            "write one pair per line: for line in open('FILE'): user, *items = line.split(); "
            "for item in items: print(user, item)"
        )


def _is_list_layout(lines: Sequence[str]) -> bool:
    """Whether each line holds a user and then the user's items, as numbers between blanks.

    Lines that could be a table of numbers do not count.
    """
    if any(mark in line for line in lines for mark in "\t,;|"):
        return False
    rows = [line.split() for line in lines]
    if not all(field.isdigit() for row in rows for field in row):
        return False
    widths = {len(row) for row in rows}
    if len(widths) == 1:  # a table, unless it is very wide and its first column has no repeats
        return min(widths) > 5 and len({row[0] for row in rows}) == len(rows)
    return len(rows) > 1 and max(widths) > 3


def _nested_events(line: str) -> tuple[str, str, str] | None:
    """Keys of a JSON line that holds one session: the session id, the events, and an event's item.

    None if the line has another layout.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    lists = [key for key, value in record.items() if isinstance(value, list) and value]
    events = [key for key in lists if all(isinstance(event, dict) for event in record[key])]
    owners = [key for key, value in record.items() if isinstance(value, (int, str))]
    if len(events) != 1 or not owners or len(record) - len(lists) > 2:
        return None
    members = record[events[0]][0]
    items = [key for key in members if key in ("aid", "item", "item_id", "iid", "sku", "product")]
    return owners[0], events[0], items[0] if items else next(iter(members), "item_id")

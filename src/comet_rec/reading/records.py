"""The lines of a text log, walked in Python: only to say where it is bad."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from comet_rec.reading.packed import lines_of
from comet_rec.reading.sniff import Format

BLOCK_BYTES = 1 << 22


def plain_lines(found: Format, most: int) -> tuple[int, int]:
    """How many of the first `most` lines can be passed over, and the bytes they take.

    Each of them is a record, neither blank nor quoted. Counted by large blocks, so usually fewer
    than there are.
    """
    if found.compression != "none" or found.kind != "delimited":
        return 0, 0
    lines = size = 0
    with found.path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            block += file.readline()
            count, returns = block.count(b"\n"), block.count(b"\r")
            blank = block.startswith((b"\n", b"\r")) or b"\n\n" in block or b"\n\r" in block
            quoted = found.quote != "" and b'"' in block
            whole = block.endswith(b"\n") and (not returns or block.count(b"\r\n") == returns)
            if blank or quoted or not whole or lines + count > most:
                break
            lines, size = lines + count, size + len(block)
    return lines, size


def records(found: Format, passed: tuple[int, int] = (0, 0)) -> Iterator[tuple[int, bool]]:
    """First physical line of every record, and whether it is blank.

    Parameters
    ----------
    passed : int, int
        Lines at the beginning to leave out, and their bytes, as `plain_lines` gives them.
    """
    before, size = passed
    lines = lines_of(found.path, found.name, found.compression, size)
    if not found.quote:
        for number, line in enumerate(lines, before + 1):
            yield number, not line.strip(b"\r\n" if found.kind == "delimited" else None)
        return
    reader = csv.reader((line.decode("latin-1") for line in lines), delimiter=found.delimiter)
    first = before
    for fields in reader:
        yield before + 1, not fields
        before = first + reader.line_num


def odd_line_end(found: Format) -> str:
    """Which line ends unlike the first: DuckDB reads only files in which all end alike."""
    first = None
    for number, line in enumerate(lines_of(found.path, found.name, found.compression), 1):
        end = "CRLF" if line.endswith(b"\r\n") else "LF"
        first = first or end
        bare = b"\r" in line.removesuffix(b"\r\n")
        if (end != first and line.endswith(b"\n")) or (bare and b'"' not in line):
            what = "holds a bare CR" if bare else f"ends in {end}, others in {first}"
            return f"line {number} {what}; save it with one kind of line end"
    return "its line ends or quotes are broken; save it with one kind of line end"

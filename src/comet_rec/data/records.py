"""The lines of a text log, walked in Python: only to say where it is bad."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from comet_rec.data.packed import lines_of
from comet_rec.data.sniff import Format


def records(found: Format) -> Iterator[tuple[int, bool]]:
    """First physical line of every record, and whether it is blank."""
    lines = lines_of(found.path, found.name, found.compression)
    if not found.quote:
        for number, line in enumerate(lines, 1):
            yield number, not line.strip(b"\r\n" if found.kind == "delimited" else None)
        return
    reader = csv.reader((line.decode("latin-1") for line in lines), delimiter=found.delimiter)
    before = 0
    for fields in reader:
        yield before + 1, not fields
        before = reader.line_num


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

"""One fast pass over the bytes of a text log, which tells whether DuckDB may read it.

DuckDB reads clean text much faster than Python could, but it loses rows, or gives up, where quotes,
line ends or encodings are broken. So every file is looked at first. Clean files go to DuckDB,
and the number of lines found here is held against the number of rows it returns; anything else
goes through `clean`.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from comet_rec.reading.fields import Splitter

BLOCK_BYTES = 1 << 20
LONG_LINE = BLOCK_BYTES
"""Lines of more bytes are left to `clean`: DuckDB drops, in silence, those over 32 MB."""

_LF, _CR = 10, 13


@dataclass(frozen=True)
class Scan:
    """Result of a scan of a text file.

    Parameters
    ----------
    lines : int
        Lines that are not empty.
    line_end : str
        As SQL writes it.
    quoted : bool
        Whether there is a quote character at all.
    fault : str
        Why DuckDB should not read the file; empty when it may.
    open_quote : int
        The line of the first quote that does not enclose a field; 0 when all do.
    """

    lines: int
    line_end: str
    quoted: bool
    fault: str
    open_quote: int = 0


def scan(path: Path, splitter: Splitter) -> Scan:
    """Look at every byte of a plain file."""
    delimiter, quote = splitter.delimiter, splitter.quote
    lines = returns = ends = open_quote = 0
    quoted, fault = False, ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    # Only a quote after one of these bytes opens a field, only one before them closes it.
    fences = np.zeros(256, dtype=np.bool_)
    fences[[_LF, _CR, *delimiter.encode()[-1:], *delimiter.encode()[:1]]] = True
    mark = quote.encode()
    for block in _whole_lines(path):
        if block is None:
            return Scan(0, "\\n", False, "a very long line")
        if not block.isascii():
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                fault = fault or "bytes that are not UTF-8"
            if b"\n\xef\xbb\xbf" in block:
                fault = fault or "a byte-order mark within"
        if b"\0" in block:
            fault = fault or "NUL bytes"
        if delimiter == " " and _has_runs_of_blanks(block):
            fault = fault or "runs of blanks"
        if splitter.escape and splitter.escape.encode() in block:
            fault = fault or "escapes"
        data = np.frombuffer(block, dtype=np.uint8)
        is_end = data == _LF  # numpy counts and pairs bytes ten times as fast as bytes.count
        count = int(np.count_nonzero(is_end))
        ends += count
        lines += count + (not is_end[-1])
        if b"\r" in block:
            returns += block.count(b"\r")
            if block.count(b"\r\n") != block.count(b"\r"):
                fault = fault or "a CR that ends no line"
        if block[0] in (_LF, _CR) or bool(np.any(is_end[1:] & is_end[:-1])) or b"\r" in block:
            lines -= _empty_lines(data)
        if mark and mark in block:
            quoted = True
            if not open_quote and not _is_regular(data, mark[0], fences):
                open_quote = ends - count + _first_open(block, splitter)
    if returns not in (0, ends):
        fault = fault or "more than one kind of line end"
    return Scan(lines, "\\r\\n" if returns else "\\n", quoted, fault, open_quote)


def all_of_width(path: Path, delimiter: str, width: int) -> bool:
    """Whether every line that is not empty has that many fields when quotes are text."""
    mark = delimiter.encode()
    if len(mark) != 1:
        return False
    for block in _whole_lines(path):
        if block is None:
            return False
        data = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", dtype=np.uint8)
        ends = np.flatnonzero(data == _LF)
        before = np.searchsorted(np.flatnonzero(data == mark[0]), ends)
        empty = np.diff(ends, prepend=-1) <= 2  # perhaps a CR; one field of one letter is no row
        if bool(np.any((np.diff(before, prepend=0) != width - 1) & ~empty)):
            return False
    return True


def _whole_lines(path: Path) -> Iterator[bytes | None]:
    """Blocks that end where a line ends; None in place of one with a line that is too long."""
    with path.open("rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        rest = b""
        while block := file.read(BLOCK_BYTES):
            end = block.rfind(b"\n") + 1
            if end == 0 or len(rest) + block.find(b"\n") > LONG_LINE:
                if len(rest) + len(block) > LONG_LINE:
                    yield None
                    return
                rest += block
                continue
            yield rest + block[:end]
            rest = block[end:]
        if rest:
            yield rest


def _empty_lines(data: npt.NDArray[np.uint8]) -> int:
    """Number of lines of no byte, or of a CR alone."""
    ends = np.flatnonzero(data == _LF)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts
    empty = (lengths == 0) | ((lengths == 1) & (data[starts] == _CR))
    return int(np.count_nonzero(empty))


def _has_runs_of_blanks(block: bytes) -> bool:
    """Whether blanks are more than one between two fields, at a line's ends, or tabs."""
    odd = (b"  ", b"\n ", b" \n", b" \r", b"\t")
    return block[:1] == b" " or block[-1:] == b" " or any(mark in block for mark in odd)


def _first_open(block: bytes, splitter: Splitter) -> int:
    """Number, from 1, of the first line of a block whose quotes do not enclose its fields."""
    for number, line in enumerate(block.decode("utf-8", errors="replace").split("\n"), 1):
        if splitter.quote in line and not _encloses(splitter, line.rstrip("\r")):
            return number
    return 1


def _encloses(splitter: Splitter, line: str) -> bool:
    fields = splitter.fields(line)
    return fields is not None and all(
        splitter.quote not in bare for bare in line.split(splitter.delimiter) if bare in fields
    )


def _is_regular(data: npt.NDArray[np.uint8], mark: int, fences: npt.NDArray[np.bool_]) -> bool:
    """Whether quotes come in pairs around whole fields, on one line, doubled within (RFC 4180)."""
    at = np.flatnonzero(data == mark)
    if len(at) % 2:
        return False
    # An even number of quotes lies before every line end, so none is open there.
    before = np.searchsorted(at, np.flatnonzero(data == _LF))
    if bool(np.any(before % 2)):
        return False
    opening, closing = at[0::2], at[1::2]
    left = fences[data[opening - 1]] | (opening == 0)
    left[1:] |= opening[1:] == closing[:-1] + 1  # the second half of a doubled quote
    right = fences[data[np.minimum(closing + 1, len(data) - 1)]] | (closing == len(data) - 1)
    right[:-1] |= closing[:-1] + 1 == opening[1:]
    return bool(np.all(left) and np.all(right))

"""Lines of delimited text: splitting a line into fields, and a fast check of a whole file.

DuckDB reads clean text much faster than Python, but it loses rows or fails if quotes, line ends or
encodings are broken. So `scan` checks every file first. DuckDB reads the clean files, and its
number of rows must equal the number of lines that `scan` counted. Python reads all other files,
with the parser in `clean`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Padding = Literal["", "left", "both"]


@dataclass(frozen=True)
class Splitter:
    """Splits the lines of a delimited text file into fields.

    Parameters
    ----------
    delimiter : str
        Text between two fields. A blank stands for any run of blanks and tabs.
    quote : str
        Character that encloses a field; "" if quotes are plain text.
    escape : str
        Character that makes the next one plain text; "" if a quote inside a field is doubled.
    padded : {"", "left", "both"}
        Sides of a field on which blanks are padding and are removed.
    """

    delimiter: str
    quote: str = '"'
    escape: str = ""
    padded: Padding = ""

    def plain(self, line: str) -> list[str]:
        """Split a line at every delimiter, with quotes as plain text."""
        if self.delimiter == " ":
            return line.split()
        fields = line.split(self.delimiter)
        if self.padded == "left":
            return [fields[0], *(field.lstrip(" ") for field in fields[1:])]
        return [field.strip(" ") for field in fields] if self.padded else fields

    def needs_care(self, line: str) -> bool:
        """Whether a line holds a quote or escape character, which `plain` may split wrongly."""
        if self.escape and self.escape in line:
            return True
        return bool(self.quote) and self.quote in line

    def fields(self, line: str) -> list[str] | None:
        """Split a line with regard to quotes; None if the quotes are broken.

        A delimiter inside quotes is text. Quotes are broken if one is not closed, or closes before
        the end of its field. If a field does not start with a quote, a quote in its middle is text.
        """
        fields: list[str] = []
        if self.padded == "both":
            line = line.strip(" ")
        at = 0
        while True:
            match = self._field.match(line, at)
            if match is None:
                return None
            quoted, bare = match.groups()
            if quoted is not None:
                fields.append(self._unescaped(quoted.replace(self.quote * 2, self.quote)))
            else:
                fields.append(self._unescaped(bare))
            at = match.end()
            if at == len(line):
                return fields
            at += self._step.match(line, at).end() - at  # type: ignore[union-attr]

    def is_open(self, text: str) -> bool:
        """Whether `text` ends inside quotes, which a later line may close."""
        at = 0
        while match := self._field.match(text, at):
            if match.end() == len(text):
                return False
            at = self._step.match(text, match.end()).end()  # type: ignore[union-attr]
        return self._unclosed.match(text, at) is not None

    def _unescaped(self, field: str) -> str:
        """The field without escape characters."""
        if not self.escape or self.escape not in field:
            return field
        return re.sub(re.escape(self.escape) + r"(.)", r"\1", field, flags=re.DOTALL)

    @cached_property
    def _between(self) -> str:
        """Regular expression for the separator between two fields."""
        if self.delimiter == " ":
            return r"[ \t]+"
        before, behind = {"": ("", ""), "left": ("", " *"), "both": (" *", " *")}[self.padded]
        return before + re.escape(self.delimiter) + behind

    @cached_property
    def _inside(self) -> str:
        """Regular expression for the text between two quotes.

        Its quantifiers are possessive: it can match in one way only, and backtracking takes memory.
        """
        quote = re.escape(self.quote)
        if not self.escape:
            return f"[^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+"
        escape = re.escape(self.escape)
        other = f"[^{quote}{escape}]*+"
        return f"{other}(?:(?:{escape}.|{quote}{quote}){other})*+"

    @cached_property
    def _field(self) -> re.Pattern[str]:
        """Regular expression for one field: group 1 if it is quoted, else group 2."""
        end = f"(?={self._between}|\\Z)"
        escape = re.escape(self.escape)
        if len(self.delimiter) == 1 and self.delimiter != " " and self.padded != "both":
            other = f"[^{re.escape(self.delimiter)}{escape}]*+"
            bare = f"{other}(?:{escape}.{other})*+" if escape else other
        else:
            char = f"(?:(?!{self._between}).)"
            bare = f"(?:{escape}.|{char})*" if escape else f"{char}*"
        if not self.quote:
            return re.compile(f"(?!)()|({bare}){end}", re.DOTALL)
        quote = re.escape(self.quote)
        return re.compile(
            f"{quote}({self._inside}){quote}{end}|((?!{quote}){bare}){end}", re.DOTALL
        )

    @cached_property
    def _step(self) -> re.Pattern[str]:
        """Regular expression that skips one separator."""
        return re.compile(self._between)

    @cached_property
    def _unclosed(self) -> re.Pattern[str]:
        """Regular expression for a quoted field that is open at the end of the text."""
        quote = re.escape(self.quote) if self.quote else "(?!)"
        return re.compile(f"{quote}{self._inside}\\Z", re.DOTALL)


BLOCK_BYTES = 1 << 20
LONG_LINE = BLOCK_BYTES
"""Longer lines are left to the parser in `clean`: DuckDB silently drops lines over 32 MB."""

_LF, _CR = 10, 13


@dataclass(frozen=True)
class Scan:
    """Result of `scan`, the fast check of a whole text file.

    Parameters
    ----------
    lines : int
        Number of non-empty lines.
    line_end : str
        Line ending, in the escaped form that DuckDB expects.
    quoted : bool
        Whether the file holds a quote character.
    open_quote : int
        Number of the first line with a quote that does not enclose a field; 0 without one.
    """

    lines: int
    line_end: str
    quoted: bool
    open_quote: int


def scan(path: Path, splitter: Splitter) -> Scan | None:
    """Check every byte of an uncompressed file; None if DuckDB's CSV reader might misread it."""
    delimiter, quote = splitter.delimiter, splitter.quote
    lines = returns = ends = open_quote = 0
    quoted = False
    decoder = codecs.getincrementaldecoder("utf-8")()
    # A quote opens a field only after one of these bytes, and closes it only before one.
    fences = np.zeros(256, dtype=np.bool_)
    fences[[_LF, _CR, *delimiter.encode()[-1:], *delimiter.encode()[:1]]] = True
    mark = quote.encode()
    for block in _whole_lines(path):
        if block is None or b"\0" in block:
            return None
        if not block.isascii():
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                return None
            if b"\n\xef\xbb\xbf" in block:  # a byte-order mark inside a joined file
                return None
        if delimiter == " " and _has_runs_of_blanks(block):
            return None
        if splitter.escape and splitter.escape.encode() in block:
            return None
        data = np.frombuffer(block, dtype=np.uint8)
        is_end = data == _LF  # numpy counts bytes ten times as fast as bytes.count
        count = int(np.count_nonzero(is_end))
        ends += count
        lines += count + (not is_end[-1])
        if b"\r" in block:
            returns += block.count(b"\r")
            if block.count(b"\r\n") != block.count(b"\r"):
                return None
        if block[0] in (_LF, _CR) or bool(np.any(is_end[1:] & is_end[:-1])) or b"\r" in block:
            lines -= _empty_lines(data)
        if mark and mark in block:
            quoted = True
            if not open_quote and not _is_regular(data, mark[0], fences):
                open_quote = ends - count + _first_open(block, splitter)
    if returns not in (0, ends):  # more than one kind of line end
        return None
    return Scan(lines, "\\r\\n" if returns else "\\n", quoted, open_quote)


def all_of_width(path: Path, delimiter: str, width: int) -> bool:
    """Whether every non-empty line has `width` fields if quotes count as text."""
    mark = delimiter.encode()
    if len(mark) != 1:
        return False
    for block in _whole_lines(path):
        if block is None:
            return False
        data = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", dtype=np.uint8)
        ends = np.flatnonzero(data == _LF)
        # Delimiters before each line end; their differences are the delimiters per line.
        before = np.searchsorted(np.flatnonzero(data == mark[0]), ends)
        empty = np.diff(ends, prepend=-1) <= 2  # at most one byte, perhaps a CR: no row
        if bool(np.any((np.diff(before, prepend=0) != width - 1) & ~empty)):
            return False
    return True


def _whole_lines(path: Path) -> Iterator[bytes | None]:
    """Yield a file in blocks of complete lines.

    If a line is too long, None is yielded in place of its block, and reading stops.
    """
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
    """Number of lines in a block that are empty or hold only a CR."""
    ends = np.flatnonzero(data == _LF)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts
    empty = (lengths == 0) | ((lengths == 1) & (data[starts] == _CR))
    return int(np.count_nonzero(empty))


def _has_runs_of_blanks(block: bytes) -> bool:
    """Whether a block has tabs, adjacent blanks, or blanks at the start or end of a line."""
    odd = (b"  ", b"\n ", b" \n", b" \r", b"\t")
    return block[:1] == b" " or block[-1:] == b" " or any(mark in block for mark in odd)


def _first_open(block: bytes, splitter: Splitter) -> int:
    """Number (from 1) of the first line in a block with a quote that does not enclose a field."""
    for number, line in enumerate(block.decode("utf-8", errors="replace").split("\n"), 1):
        if splitter.quote in line and not _encloses(splitter, line.rstrip("\r")):
            return number
    return 1


def _encloses(splitter: Splitter, line: str) -> bool:
    """Whether every quote of a line belongs to a field that is enclosed in quotes."""
    fields = splitter.fields(line)
    return fields is not None and all(
        splitter.quote not in bare for bare in line.split(splitter.delimiter) if bare in fields
    )


def _is_regular(data: npt.NDArray[np.uint8], mark: int, fences: npt.NDArray[np.bool_]) -> bool:
    """Whether all quotes in a block of bytes enclose complete fields of one line (RFC 4180).

    Quotes inside such a field are doubled. `mark` is the byte of the quote. `fences` (bool [256])
    is true for bytes that may stand next to a quoted field.
    """
    at = np.flatnonzero(data == mark)
    if len(at) % 2:
        return False
    # With an even number of quotes before every line end, no quote is open there.
    before = np.searchsorted(at, np.flatnonzero(data == _LF))
    if bool(np.any(before % 2)):
        return False
    opening, closing = at[0::2], at[1::2]
    left = fences[data[opening - 1]] | (opening == 0)
    left[1:] |= opening[1:] == closing[:-1] + 1  # the second half of a doubled quote
    right = fences[data[np.minimum(closing + 1, len(data) - 1)]] | (closing == len(data) - 1)
    right[:-1] |= closing[:-1] + 1 == opening[1:]
    return bool(np.all(left) and np.all(right))

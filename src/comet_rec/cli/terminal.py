"""Output of commands: results on stdout, notes on stderr, tables within the terminal's width."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from typing import Any

from comet_rec.text import printable

NARROWEST = 40
"""Columns below which a terminal is written to as if it had as many."""


def show(text: str) -> None:
    """Lines of a result, on stdout; what a terminal would obey is escaped."""
    write("\n".join(map(printable, text.split("\n"))) + "\n")


def write(text: str | bytes) -> None:
    """Text on stdout as it is, in UTF-8 whatever the locale; nowhere where there is no stdout."""
    if sys.stdout is None:
        return
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text if isinstance(text, str) else text.decode())
    else:
        sys.stdout.flush()  # what was written before stays before
        stream.write(text.encode() if isinstance(text, str) else text)
    sys.stdout.flush()


_said: set[str] = set()


def begin() -> None:
    """A new command: nothing was said yet."""
    _said.clear()


def say(line: str, *, again: bool = True) -> None:
    """One line for the user, on stderr; a terminal gets it in as many as it takes.

    With `again=False` a line that this command has said before is left out.
    """
    if sys.stderr is None or (line in _said and not again):
        return
    _said.add(line)
    shown = printable(line)
    if sys.stderr.isatty():
        shown = folded(shown, 2, max(shutil.get_terminal_size().columns, NARROWEST))
    sys.stderr.write(shown + "\n")
    sys.stderr.flush()


def width() -> int | None:
    """Columns that a table may take; None for as many as it needs.

    A file or a pipe has a width only where the environment variable COLUMNS gives one.
    """
    given = os.environ.get("COLUMNS", "")
    if on_terminal() or (given.isdecimal() and len(given) < 5):
        return max(shutil.get_terminal_size().columns, NARROWEST)
    return None


def on_terminal() -> bool:
    """Whether a person is looking at stdout."""
    return sys.stdout is not None and sys.stdout.isatty()


def folded(text: str, indent: int = 0, columns: int | None = None) -> str:
    """A line in so many columns, further lines indented; default: the terminal's, if any."""
    if columns is None and on_terminal():
        columns = width()
    if columns is None:
        return text
    # A word that is longer than a line stays whole: it may be a path or an id.
    return textwrap.fill(
        printable(text),
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Lenient:
    """A stream that loses what cannot be written to it: nobody ends a training for a note."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or lose the text: the device is full, or its reader has gone."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, where that is possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        with contextlib.suppress(OSError, ValueError):
            return bool(self._stream.isatty())
        return False


def open_descriptors() -> None:
    """Give closed standard streams the null device.

    Else the next file that is opened takes the number of a closed one, and what a library
    writes to its stderr would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free

"""Output of commands: results on stdout, notes on stderr, tables within the terminal's width."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from typing import Any

from comet_rec.cli import launched
from comet_rec.text import printable

NARROWEST = 40
"""A narrower terminal is treated as if it had this many columns."""


def show(text: str) -> None:
    """Print a result to stdout; control characters are escaped."""
    write("\n".join(map(printable, text.split("\n"))) + "\n")


def write(text: str | bytes) -> None:
    """Write text to stdout unchanged, always in UTF-8.

    Without a stdout, and in all processes of ``torchrun`` but the first, do nothing.
    """
    if sys.stdout is None or launched.rank() > 0:
        return
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(text if isinstance(text, str) else text.decode())
    else:
        sys.stdout.flush()  # keep the order of earlier text
        stream.write(text.encode() if isinstance(text, str) else text)
    sys.stdout.flush()


_printed: set[str] = set()


def begin() -> None:
    """Start a new command: forget which lines `say` has printed."""
    _printed.clear()


def say(line: str, *, again: bool = True) -> None:
    """Print one line for the user to stderr; on a terminal it is wrapped.

    With `again=False`, the line is left out if this command has already printed it. Only the first
    process of ``torchrun`` prints.
    """
    if sys.stderr is None or launched.rank() > 0 or (line in _printed and not again):
        return
    _printed.add(line)
    shown = printable(line)
    if sys.stderr.isatty():
        shown = folded(shown, 2, max(shutil.get_terminal_size().columns, NARROWEST))
    sys.stderr.write(shown + "\n")
    sys.stderr.flush()


def width() -> int | None:
    """Greatest width of a table in columns; None if there is no limit.

    If stdout is a file or a pipe, only the environment variable COLUMNS sets a limit.
    """
    columns = os.environ.get("COLUMNS", "")
    if on_terminal() or (columns.isdecimal() and len(columns) < 5):
        return max(shutil.get_terminal_size().columns, NARROWEST)
    return None


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def folded(text: str, indent: int = 0, columns: int | None = None) -> str:
    """Wrap a line, by default at the terminal's width; indent all lines but the first."""
    if columns is None and on_terminal():
        columns = width()
    if columns is None:
        return text
    # Do not break a word that is longer than a line: it may be a path or an id.
    return textwrap.fill(
        printable(text),
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Lenient:
    """A text stream that ignores write errors, so that a lost message cannot end a training."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; ignore errors such as a full disk or a closed pipe."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream was closed
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, and ignore errors."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal that still exists."""
        with contextlib.suppress(OSError, ValueError):
            return bool(self._stream.isatty())
        return False


def open_descriptors() -> None:
    """Connect closed standard streams to the null device.

    Otherwise the next opened file would take the number of a closed stream. A library's output to
    stderr would then go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number

"""Tables on stdout, within the terminal's width; elsewhere plain text of any width."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Literal

from comet_rec.cli import terminal
from comet_rec.text import printable, width_of

NARROW = 8
"""Least width of a folded text column."""
GAP = 2

Cell = object | tuple[str, ...]
"""A value, or the lines of a text."""


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, left: int = 1) -> None:
    """Print a table to stdout; control characters in its cells are escaped.

    On a terminal the header is bold and has a rule below. Long texts are folded. Numbers are never
    folded or cut: columns that find no room continue below, where the text columns are repeated.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequences
        One cell for each column. A tuple holds the lines of a text.
    left : int
        Number of text columns, from the first. The other columns are right-aligned numbers.
    """
    cells = [[_lines(cell) for cell in row] for row in rows]
    limit = terminal.width()
    bodies = [_widest([row[place] for row in cells]) for place in range(len(columns))]
    full = [max(pair) for pair in zip(bodies, map(width_of, columns), strict=True)]
    widths, blocks = full, [list(range(len(columns)))]
    if limit is not None and _total(full) > limit:
        # The words of a header go below one another before a column moves below the others.
        words = [max(map(width_of, header.split()), default=0) for header in columns]
        narrow = [max(pair) for pair in zip(bodies, words, strict=True)]
        texts, blocks = _fitted([*full[:left], *narrow[left:]], left, limit)
        widths = [*texts, *narrow[left:]]
    for number, block in enumerate(blocks):
        wide = [*widths[:left], *(full[place] for place in block[left:])]
        fits = limit is None or _total(wide) <= limit
        text = _drawn(
            [columns[place] for place in block],
            [[row[place] for place in block] for row in cells],
            wide if fits else [widths[place] for place in block],
            left,
        )
        terminal.write("\n" * (number > 0) + text)


def _lines(cell: Cell) -> str:
    """The printable text of a cell."""
    return "\n".join(map(printable, cell)) if isinstance(cell, tuple) else printable(cell)


def _widest(texts: Sequence[str]) -> int:
    """Width of the widest line of some texts."""
    return max((width_of(line) for text in texts for line in text.split("\n")), default=0)


def _total(widths: Sequence[int]) -> int:
    """Width of a table with columns of these widths."""
    return sum(widths) + GAP * (len(widths) - 1)


def _fitted(widths: Sequence[int], left: int, limit: int) -> tuple[list[int], list[list[int]]]:
    """Widths of the text columns within `limit`, and the columns of each block of the table.

    The last text column takes the room that the others leave, at least a third of `limit`.
    """
    *texts, last = widths[:left]
    numbers = [width + GAP for width in widths[left:]]
    if sum(texts) + GAP * len(texts) > limit - limit // 3:
        texts = [min(width, limit // (3 * len(texts))) for width in texts]
    room = limit - sum(texts) - GAP * len(texts)
    # All numbers beside the texts, or else as many as find room beside a third of the width.
    folded = room - sum(numbers)
    if folded < min(last, limit // 3):
        folded = min(limit // 3, room - max(numbers, default=0))
    last = min(last, max(folded, NARROW))
    blocks = [list(range(left))]
    for place in range(left, len(widths)):
        taken = sum(numbers[p - left] for p in blocks[-1][left:])
        if last + taken + numbers[place - left] > room and len(blocks[-1]) > left:
            blocks.append(list(range(left)))
        blocks[-1].append(place)
    return [*texts, last], blocks


def _drawn(
    columns: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int], left: int
) -> str:
    """Text of a table whose columns have these widths."""
    from rich.align import Align  # slow to import, and not every command shows a table
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styled = terminal.on_terminal() and os.environ.get("TERM") not in ("dumb", "unknown")
    table = Table(
        box=SIMPLE_HEAD if styled else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, GAP - 1 if styled else GAP),  # the box adds a column of its own
        header_style="bold",
    )
    for place, (header, width) in enumerate(zip(columns, widths, strict=True)):
        side: Literal["left", "right"] = "left" if place < left else "right"
        name = Align(Text(header, justify=side), side, vertical="bottom")
        table.add_column(name, justify=side, width=width, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    drawn = io.StringIO()
    console = Console(
        file=drawn,
        width=_total(widths),
        force_terminal=styled,
        force_jupyter=False,
        color_system="standard" if styled else None,
        legacy_windows=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in drawn.getvalue().split("\n"))

"""Text of others as it may be shown: ids, titles and file names on a terminal and in Markdown.

A terminal obeys escape codes, and a reader is deceived by characters without a width. So all that
prints goes through `printable`. Files of data (CSV, JSON, Parquet) hold the text as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_INVISIBLE = re.compile(
    # Fillers and variation selectors, which Unicode counts among letters and marks.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0d\U000e0100-\U000e01ef]"
    # Selectors of text and emoji style, except behind a symbol that has the two.
    "|(?<![\u00a9\u00ae\u2122\u2190-\u2bff\u3030\u3297\u3299\U0001f000-\U0001faff])"
    "[\ufe0e\ufe0f](?!\u20e3)"
)
_PUNCTUATION = r"[!-/:-@\[-`{-~]"
_MARKDOWN = re.compile(
    # What CommonMark, or a table of GitHub's, would take for its own.
    rf"(?P<mark>\\(?={_PUNCTUATION}|$)|[|`*~]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_]))"
    r"|(?P<tag><(?=[A-Za-z/!?]))|(?P<entity>&(?=#?\w+;))"
)


def printable(value: object) -> str:
    r"""Text that a terminal shows as it is: one line, no escape codes, nothing invisible.

    Control characters, line ends, marks of writing direction, characters without a width and what
    cannot be encoded are written as Python writes them: ``\x1b``, ``\n``, ``\u202e``. A text that
    went through once is left as it is.
    """
    text = value if isinstance(value, str) else str(value)
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() or _is_space(c) else _escaped(c) for c in text)
    return _INVISIBLE.sub(lambda match: _escaped(match[0]), shown)


def _is_space(character: str) -> bool:
    """Whether a character is a blank with a width, such as the one between Japanese words."""
    return unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shortened(value: object, most: int = 60) -> str:
    """Text for a message, its middle left out where it is longer."""
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def markdown(value: object) -> str:
    """Text of others within a line or a table's cell of Markdown, where it marks nothing up."""
    return _MARKDOWN.sub(_unmarked, printable(value))


def _unmarked(match: re.Match[str]) -> str:
    if match["tag"]:
        return "&lt;"
    return "&amp;" if match["entity"] else f"\\{match[0]}"


def paragraph(text: str) -> str:
    """A paragraph of ours that names of others may be part of: its marks stay, no tag does."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text))


def code(value: object) -> str:
    """Text as a code span of Markdown, between more backticks than it has in a row."""
    text = printable(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    blank = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def width_of(text: str) -> int:
    """Columns of a terminal that a text takes; Chinese letters and emoji take two each."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cropped(text: str, most: int) -> str:
    """Text of at most so many columns; an ellipsis stands for what is cut off."""
    if width_of(text) <= most:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, max(most - 1, 0)).rstrip() + "…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Text with blanks up to a width, on its left if it is to stand at the right."""
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None,
    *, left: int = 1,
) -> list[str]:  # fmt: skip
    """Lines of a table; one that is too wide goes on below, its first column once more.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequences
        A cell a column; shown `printable`.
    width : int, optional
        Columns of the terminal; default: as wide as the table is.
    left : int
        Number of columns, from the first, whose cells stand at the left.
    """
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    if width is not None:
        cells = [[cropped(row[0], width // 3), *(cropped(c, width * 2 // 3 - 2) for c in row[1:])]
                 for row in cells]  # fmt: skip
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    blocks = [[0]]
    for place in range(1, len(widths)):
        taken = sum(widths[p] + 2 for p in blocks[-1])
        if width is not None and taken + widths[place] > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(place)
    lines: list[str] = []
    for block in blocks:
        lines += [""] * bool(lines)
        for row in cells:
            shown = [padded(row[p], widths[p], right=p >= left) for p in block]
            lines.append("  ".join(shown).rstrip())
    return lines

"""Safe display of ids, titles and file names on a terminal and in Markdown.

Such text may hold escape codes that a terminal would obey, or invisible characters that deceive a
reader. So `printable` escapes text before it is printed. Data files (CSV, JSON, Parquet) hold the
text unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_INVISIBLE = re.compile(
    # Fillers and variation selectors: Unicode classifies them as letters and marks.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0d\U000e0100-\U000e01ef]"
    # Selectors of text and emoji style, except after a symbol that has both styles.
    "|(?<![\u00a9\u00ae\u2122\u2190-\u2bff\u3030\u3297\u3299\U0001f000-\U0001faff])"
    "[\ufe0e\ufe0f](?!\u20e3)"
)
_PUNCTUATION = r"[!-/:-@\[-`{-~]"
_MARKDOWN = re.compile(
    # Characters with a meaning in CommonMark or in GitHub's tables.
    rf"(?P<mark>\\(?={_PUNCTUATION}|$)|[|`*~]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_]))"
    r"|(?P<tag><(?=[A-Za-z/!?]))|(?P<entity>&(?=#?\w+;))"
)


def printable(value: object) -> str:
    r"""Text in one line, without escape codes and invisible characters.

    Control characters, line ends, direction marks, invisible and unencodable characters become
    Python escapes: ``\x1b``, ``\n``, ``\u202e``. Applying the function twice changes nothing more.
    """
    text = value if isinstance(value, str) else str(value)
    if text.isascii() and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() or _is_space(c) else _escaped(c) for c in text)
    return _INVISIBLE.sub(lambda match: _escaped(match[0]), shown)


def _is_space(character: str) -> bool:
    """Whether a character is a visible space, such as the wide space of Japanese text."""
    return unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shortened(value: object, most: int = 60) -> str:
    """The value as text of at most `most` characters; a longer text loses its middle."""
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def markdown(value: object) -> str:
    """The value as text with escaped Markdown, for a paragraph or the cell of a table."""
    return _MARKDOWN.sub(_unmarked, printable(value))


def _unmarked(match: re.Match[str]) -> str:
    if match["tag"]:
        return "&lt;"
    return "&amp;" if match["entity"] else f"\\{match[0]}"


def paragraph(text: str) -> str:
    """Escape HTML tags in a Markdown paragraph.

    The paragraph is our own text, but may contain names from the user.
    """
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text))


def code(value: object) -> str:
    """The value as a code span of Markdown."""
    text = printable(value)
    # The fence must be longer than the longest row of backticks in the text.
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    blank = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def width_of(text: str) -> int:
    """Number of terminal columns that `text` takes; a Chinese character or an emoji takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cropped(text: str, most: int) -> str:
    """The text, cut to at most `most` terminal columns; a cut text ends with an ellipsis."""
    if width_of(text) <= most:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, max(most - 1, 0)).rstrip() + "…"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text, filled with spaces to `width` terminal columns; `right` aligns it to the right."""
    blanks = " " * (width - width_of(text))
    return blanks + text if right else text + blanks


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> list[str]:
    """Lines of a plain table of any width; `cli.tables` fits a table to a terminal.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequences
        One value for each column; `printable` escapes it.
    left : int
        Number of left-aligned columns, from the first. The other columns are right-aligned.
    """
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        aligned = [
            padded(cell, width, right=place >= left)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines

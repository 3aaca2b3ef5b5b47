"""Suggestions for unknown ids: the known id with the most similar spelling."""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from comet_rec.data.ids import Ids

NEIGHBOURS = 50
"""Number of known ids to compare with an unknown id on each side of its place in sorted order."""
LONGEST = 100
"""Longer texts, in characters, are not compared letter by letter."""
WIDEST = 24
"""Largest number of characters in a padded spelling that is tried."""


def shown(value: Any) -> str:
    """Text of a value for an error message: its `repr` on one line, shortened."""
    if (
        isinstance(value, (np.generic, np.ndarray))
        and value.ndim == 0
        and value is not np.ma.masked
    ):
        value = value.item()  # 7.0, not np.float32(7.0)
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python refuses to write an integer of more than 4,300 digits
        text = f"an integer of {value.bit_length()} bits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def other_spellings(text: str) -> Iterator[str]:
    """Other spellings of an id: without quotes or hyphens, in another case, padded, as a float."""
    bare = text.strip().strip("\"'").strip()
    yield bare
    yield re.sub(r"(?<![0-9])0+(?=[0-9])", "", bare)
    yield from (bare.lower(), bare.upper(), bare.title())
    if bare.isdecimal():
        yield from (bare.zfill(width) for width in range(len(bare) + 1, WIDEST + 1))
        yield bare.lstrip("0") or "0"
        yield f"{bare}.0"
    if re.fullmatch(r"-?[0-9]+\.0+", bare):
        yield bare.split(".")[0]
    yield bare.replace("-", "")
    for width in range(len(bare) + 1, WIDEST + 1):
        yield bare.rjust(width)
        yield bare.ljust(width)


def nearest(ids: Ids, value: Any) -> Any | None:
    """The known id whose spelling is most similar to `value`; None if no known id is similar.

    Other spellings of `value` are looked up first. Then `value` is compared with the known ids that
    come just before and after it in sorted order.
    """
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    # Similar numbers are different ids, hardly ever misprints of each other.
    if not isinstance(value, str if ids.kind == "int" else (str, int)) or isinstance(value, bool):
        return None
    text = str(value)
    if len(text) > LONGEST:
        return None
    spellings = list(dict.fromkeys([text, *other_spellings(text)]))
    known = [spelling for spelling in spellings if ids.index([spelling])[0] >= 0]
    if known:
        return ids.external(ids.index(known[:1])).tolist()[0]
    return _alike(ids, text, spellings[:5]) if ids.kind == "text" else None


def _alike(ids: Ids, text: str, spellings: list[str]) -> str | None:
    """Known id near `text` in sorted order with the most letters in common; None without one."""
    neighbours: dict[str, str] = {}
    for spelling in spellings:
        place = bisect.bisect_left(ids.values, spelling)
        around = ids.values[max(0, place - NEIGHBOURS) : place + NEIGHBOURS].tolist()
        neighbours |= {_folded(known): known for known in around if len(known) <= LONGEST}
    if _folded(text) in neighbours:
        return neighbours[_folded(text)]
    matches = difflib.get_close_matches(_folded(text), neighbours, n=1, cutoff=0.75)
    return neighbours[matches[0]] if matches else None


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())

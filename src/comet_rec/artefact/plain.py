"""Plain data of a run (JSON): parsed within bounds, and compared with a form given as data."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_BYTES = 1 << 26
"""Longest text that is parsed."""
MOST_CONTAINERS, MOST_VALUES = 250_000, 5_000_000
"""Lists and objects, and values in all: a container takes up to 240 bytes, a text 60 and more."""
MOST_DIGITS = 77
"""Longest whole number: 256 bits."""


def parsed(data: bytes, most_bytes: int = MOST_BYTES) -> Any:
    """Parse a JSON text at a bounded cost.

    Raises
    ------
    ValueError
        When it is no JSON, is too large, or holds NaN or infinity.
    RecursionError
        When it is too deep.
    """
    if len(data) > most_bytes:
        raise ValueError(f"longer than {most_bytes:,} bytes")
    # Each value but the first stands behind one of these, so this is never too low a count.
    containers = data.count(b"{") + data.count(b"[")
    if containers > MOST_CONTAINERS or data.count(b",") + data.count(b":") > MOST_VALUES:
        raise ValueError("more values than a run has")
    return json.loads(data.decode("utf-8"), parse_constant=_refused, parse_int=_whole)


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits")
    return int(digits)


def check_form(value: Any, form: Any, where: str = "it") -> None:
    """Compare plain data with a form.

    Parameters
    ----------
    value : plain data
    form
        A type (`int`: a whole number from 0 on; `float`: a finite number; `object`: anything);
        None; a tuple of alternatives; a list with the form of each element; a dict with the form
        under each key (``"key?"`` may be missing, other keys may be there), or with the form of
        all values under `str`.
    where : str
        Name of the value in an error.

    Raises
    ------
    ValueError
    """
    if isinstance(form, tuple):
        if value is not None or None not in form:
            check_form(value, next(one for one in form if one is not None), where)
    elif isinstance(form, list):
        _check_type(value, list, where)
        for place, one in enumerate(value):
            check_form(one, form[0], f"{where}[{place}]")
    elif isinstance(form, dict):
        _check_type(value, dict, where)
        if str in form:
            for key, one in value.items():
                check_form(one, form[str], f"{where}.{key}")
            return
        for key, inner in form.items():
            name = key.removesuffix("?")
            if name in value:
                check_form(value[name], inner, f"{where}.{name}")
            elif name == key:
                raise ValueError(f"{where} has no {name}")
    else:
        _check_type(value, form, where)


def _check_type(value: Any, kind: type, where: str) -> None:
    if kind is object:
        return
    fits = isinstance(value, (int, float) if kind is float else kind)
    if fits and kind in (int, float):
        fits = (
            not isinstance(value, bool) and math.isfinite(value) and (kind is float or value >= 0)
        )
    if not fits:
        raise ValueError(f"{where} is {type(value).__name__}, or out of range; not {kind.__name__}")


def one_line(text: str, most: int = 300) -> str:
    """The first line of a text, in characters that a terminal prints, cut where it is long."""
    line = next(iter(text.splitlines()), "")[:most]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)

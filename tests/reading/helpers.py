"""Helpers of the reader's tests: files, refusals, and the rows that a log must give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import comet_rec as cr
from comet_rec.errors import DataError

Row = tuple[str, str, int | None]
INT64 = range(-(2**63), 2**63)


def write(path: Path, data: str | bytes) -> Path:
    """A file of this content, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refusal(source: Any, **options: Any) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(DataError) as caught:
        cr.read(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_integer(text: str) -> bool:
    """Whether a text survives the way through an int64 and back."""
    try:
        return text.isascii() and int(text) in INT64 and str(int(text)) == text
    except ValueError:
        return False


def canonical(rows: list[Row]) -> list[tuple[Any, Any, int | None]]:
    """The rows in canonical order, by the rules and nothing else."""
    kinds: list[Any] = [
        int if all(is_integer(row[side]) for row in rows) else str for side in (0, 1)
    ]
    order = sorted(
        (kinds[0](user), 0 if time is None else time, place, kinds[1](item), time)
        for place, (user, item, time) in enumerate(rows)
    )
    first: dict[tuple[Any, Any], int | None] = {}
    for user, _, _, item, time in order:
        first.setdefault((user, item), time)
    return [(user, item, time) for (user, item), time in first.items()]

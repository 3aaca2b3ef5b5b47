"""Numbers that describe items: from columns of categories, numbers and texts.

- A column of numbers or dates becomes one feature with mean 0 and variance 1; a missing number
  is 0.
- A column of texts becomes `HASHED` features. The tokens of a text are the text itself, its words,
  and the runs of four letters in its words. Each token is hashed to a feature and a sign (feature
  hashing, Weinberger et al. 2009). The features of a text are scaled to length 1.

So a category is a text of one token, and "Comedy|Drama" shares its words with "Drama".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.ids import is_missing

Float64 = npt.NDArray[np.float64]

HASHED = 1024
"""Number of features of all columns of texts together."""
LETTERS = 4


def item_features(columns: Mapping[str, npt.NDArray[Any]]) -> Float64:
    """Features of items, [n, F + `HASHED`] for F columns of numbers.

    Parameters
    ----------
    columns : mapping of str to array [n]
        Columns by name: numbers, truth values, dates, or objects. None and NaN are missing.
    """
    count = len(next(iter(columns.values())))
    numbers, texts = [], {}
    for name, values in columns.items():
        floats = _floats(values)
        if floats is None:
            texts[name] = values
        else:
            numbers.append(_standardised(floats))
    hashed = np.zeros((count, HASHED if texts else 0))
    for name, values in texts.items():
        hashed += _hashed(name, values)
    return np.column_stack([*numbers, hashed]) if numbers else hashed


def _floats(values: npt.NDArray[Any]) -> Float64 | None:
    """A column of numbers or dates as floats, NaN where a value is missing; None for texts."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind in "mM":
        return np.where(np.isnat(values), np.nan, values.astype(np.int64).astype(np.float64))
    objects = values.tolist()
    known = [value for value in objects if not _missing(value)]
    if known and all(isinstance(value, date) for value in known):
        days = [np.nan if _missing(value) else value.toordinal() for value in objects]
        return np.array(days, dtype=np.float64)
    # True and False among objects are a category.
    number = (Real, Decimal)
    if not all(isinstance(value, number) and not isinstance(value, bool) for value in known):
        return None
    return np.array([np.nan if _missing(value) else float(value) for value in objects])


def _missing(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, (float, np.floating)) and bool(value != value))


def _standardised(values: Float64) -> Float64:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    centred = np.where(known, values - values[known].mean(), 0.0)
    scale = np.sqrt((centred[known] ** 2).mean())
    return np.asarray(centred / scale if scale > 0 else centred)


def _hashed(name: str, values: npt.NDArray[Any]) -> Float64:
    """Hashed tokens of one column of texts, [n, HASHED], each row of length 1 or 0."""
    out = np.zeros((len(values), HASHED))
    for row, value in enumerate(values.tolist()):
        if _missing(value):
            continue
        for token in tokens(str(value)):
            number = zlib.crc32(f"{name}\0{token}".encode("utf-8", "surrogatepass"))
            out[row, number // 2 % HASHED] += 1 if number % 2 else -1
    lengths = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(np.divide(out, lengths, out=out, where=lengths > 0))


def tokens(text: str) -> Iterator[str]:
    """Tokens of a text: the text, its words, and the runs of `LETTERS` letters in its words."""
    text = text.casefold()
    yield text
    for word in re.findall(r"\w+", text):
        yield f"word {word}"
        padded = f"<{word}>"
        for start in range(len(padded) - LETTERS + 1):
            yield f"letters {padded[start : start + LETTERS]}"

"""Which places of padded rows are kept: by chance, in number, to the right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


def hidden_number(
    counts: Int64, targets: Int64, share: npt.NDArray[np.float64], rng: np.random.Generator
) -> Int64:
    """How many rows of each history stay hidden, int64 [U]: at least one, targets or not.

    The targets count into a number drawn without regard to them, so how many rows are shown
    does not tell whether there was a target (only items with a positive have one).
    """
    drawn = 1 + np.floor(counts * share + rng.random(len(counts))).astype(np.int64)
    return np.maximum(targets, drawn)


def right_aligned(values: Int32, keep: Bool, length: int, pad: int) -> Int32:
    """Last `length` kept values of each row at the row's end, `pad` in front."""
    from_end = np.cumsum(keep[:, ::-1], axis=1)[:, ::-1]
    row, column = np.nonzero(keep & (from_end <= length))
    out = np.full((len(values), length), pad, dtype=np.int32)
    out[row, length - from_end[row, column]] = values[row, column]
    return out


def shuffled(rows: Int32, pad: int, rng: np.random.Generator) -> Int32:
    """Members of each row in a random order, the padding still in front."""
    keys = rng.random(rows.shape, dtype=np.float32)
    keys[rows == pad] = -1
    return np.asarray(np.take_along_axis(rows, np.argsort(keys, axis=1, kind="stable"), axis=1))


def random_subset(keep: Bool, sizes: Int64, rng: np.random.Generator) -> Bool:
    """Random `sizes[r]` of the kept places of row r (all of them where fewer are kept)."""
    keys = rng.random(keep.shape, dtype=np.float32)
    keys[~keep] = 2.0
    ordered = np.sort(keys, axis=1)
    last = np.take_along_axis(ordered, np.maximum(sizes - 1, 0)[:, None], axis=1)
    return np.asarray(keep & (keys <= last) & (sizes > 0)[:, None])

"""Blocks of rows that fit the cache of a CPU, or suit an accelerator."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

ACCELERATOR_BYTES = 1 << 26
"""Size of a block on an accelerator: few kernel launches, bounded memory."""


def block_bytes(like: Tensor, cached: int) -> int:
    """Bytes of a block on this tensor's device; `cached` on a CPU."""
    return cached if like.device.type == "cpu" else ACCELERATOR_BYTES


def blocks(part: slice, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover `part`."""
    for first in range(part.start, part.stop, size):
        yield slice(first, min(first + size, part.stop))

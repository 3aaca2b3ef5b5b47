"""Random numbers as a pure function of (seed, stream, counters): there is no state to save."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Generator that depends on its arguments alone.

    Parameters
    ----------
    seed : int
        The seed of the run, or of the protocol.
    stream : str
        The use of the numbers, e.g. ``"order"``. Streams are independent. Their names decide the
        numbers: never rename one.
    counters : int
        The position in the run, e.g. epoch and batch.
    """
    key = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counters])
    return np.random.Generator(np.random.Philox(key))


def torch_seed(seed: int, stream: str, *counters: int) -> int:
    """Seed for a torch generator of the same stream."""
    return int(generator(seed, stream, *counters).integers(2**63))

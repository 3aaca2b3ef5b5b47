"""Random numbers as a pure function of (seed, stream, counters): no state to save or lose."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Generator that depends on nothing but its arguments.

    Parameters
    ----------
    seed : int
        The run's seed, or the protocol's.
    stream : str
        Name of the stream, e.g. ``"negatives"``; streams are independent.
    counters : int
        Where the run stands, e.g. epoch and batch.
    """
    key = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counters])
    return np.random.Generator(np.random.Philox(key))


def torch_seed(seed: int, stream: str, *counters: int) -> int:
    """Seed for a torch generator of the same stream."""
    return int(generator(seed, stream, *counters).integers(2**63))

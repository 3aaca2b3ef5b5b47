"""Random numbers as a pure function of (seed, stream, counters), without a global state."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Generator that depends only on these arguments.

    Parameters
    ----------
    seed : int
        The seed of the run, or of the protocol.
    stream : str
        The purpose of the numbers, e.g. ``"order"``. Different streams are independent. Never
        rename a stream, because its name determines the numbers.
    counters : int
        The position in the run, e.g. epoch and batch.
    """
    key = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counters])
    return np.random.Generator(np.random.Philox(key))


def torch_seed(seed: int, stream: str, *counters: int) -> int:
    """Seed for a torch generator, from the same seed, stream and counters as `generator`."""
    return int(generator(seed, stream, *counters).integers(2**63))

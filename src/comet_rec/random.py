"""Random generators that depend only on (seed, stream, counters), without a global state."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Random generator that depends only on the arguments.

    Parameters
    ----------
    seed : int
        The seed of the training or of the evaluation protocol.
    stream : str
        The purpose of the numbers, e.g. ``"order"``. Different streams are independent. Never
        rename a stream, because its name determines the numbers.
    counters : int
        Further numbers that distinguish generators of a stream, e.g. epoch and batch.
    """
    key = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counters])
    return np.random.Generator(np.random.Philox(key))


def torch_seed(seed: int, stream: str, *counters: int) -> int:
    """Seed for a torch generator, from the same seed, stream and counters as `generator`."""
    return int(generator(seed, stream, *counters).integers(2**63))

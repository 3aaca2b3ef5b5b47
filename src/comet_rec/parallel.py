"""Blocks of rows that fit the CPU's cache, and threads that each compute a part of the rows.

Work in cache-sized blocks is a long series of small operations. If all threads share each
operation, they wait for each other thousands of times per step. If each thread has its own part of
the rows, they wait once. So PyTorch uses one thread inside a part.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from comet_rec import verify

T = TypeVar("T")

ACCELERATOR_BYTES = 1 << 26
"""Size in bytes of a block on an accelerator. Large blocks need few kernel launches, and the limit
bounds the memory."""


def block_bytes(like: Tensor, cached: int) -> int:
    """Size of a block in bytes for tensors on the device of `like`: `cached` on a CPU."""
    return cached if like.device.type == "cpu" else ACCELERATOR_BYTES


def blocks(part: slice, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover `part`."""
    size = 1 if verify.slow() else size
    for first in range(part.start, part.stop, size):
        yield slice(first, min(first + size, part.stop))


def in_parts(count: int, least: int, run: Callable[[slice], T]) -> list[T]:
    """Compute `run` on consecutive parts of ``range(count)`` in parallel threads.

    The result lists the results of the parts in order. There are as many parts as PyTorch has
    threads, but no part is shorter than `least`. So rounding depends on the number of threads.

    Parameters
    ----------
    count : int
        Number of rows.
    least : int
        Smallest number of rows in a part.
    run : callable
        Called with a slice. If there are several parts, each call has a thread of its own,
        without gradients.
    """
    threads = torch.get_num_threads()
    parts = 1 if verify.slow() else max(1, min(threads, count // max(least, 1)))
    if parts == 1:
        return [run(slice(0, count))]
    bounds = [part * count // parts for part in range(parts + 1)]
    slices = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
    return list(_workers(threads, os.getpid()).map(torch.no_grad()(run), slices))


@cache
def _workers(threads: int, pid: int) -> ThreadPoolExecutor:
    """Pool with `threads` threads for the process `pid`.

    A forked process needs a new pool, because it lacks the threads of its parent.
    """
    pool = ThreadPoolExecutor(threads, initializer=_use_one_thread)
    all_started = threading.Barrier(threads)
    list(pool.map(lambda _: all_started.wait(), range(threads)))
    # The workers' calls have also changed the process-wide default for new threads: restore it.
    torch.set_num_threads(threads)
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # the first call in a thread resets the number, so it comes first
    torch.set_num_threads(1)

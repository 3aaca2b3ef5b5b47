"""Blocks of rows that fit a cache, and threads that each compute their own blocks.

Work in cache-sized blocks is a long series of small operations. If all cores share each
operation, they wait for one another thousands of times a step. If each core has blocks of its
own, they wait once. So PyTorch's own threading is off inside a part.
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

T = TypeVar("T")

ACCELERATOR_BYTES = 1 << 26
"""Size of a block on an accelerator: few kernel launches, bounded memory."""


def block_bytes(like: Tensor, cached: int) -> int:
    """Bytes of a block on this tensor's device; `cached` on a CPU."""
    return cached if like.device.type == "cpu" else ACCELERATOR_BYTES


def blocks(part: slice, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows that cover `part`."""
    for first in range(part.start, part.stop, size):
        yield slice(first, min(first + size, part.stop))


def in_parts(count: int, least: int, run: Callable[[slice], T]) -> list[T]:
    """Results of `run` on consecutive parts of ``range(count)``, in their order.

    There are as many parts as PyTorch has threads, unless a part would be shorter than `least`.
    So the results depend on the number of threads, and on nothing else.

    Parameters
    ----------
    count, least : int
    run : callable
        Called with a slice, without gradients, in a thread of its own.
    """
    threads = torch.get_num_threads()
    parts = max(1, min(threads, count // max(least, 1)))
    if parts == 1:
        return [run(slice(0, count))]
    bounds = [part * count // parts for part in range(parts + 1)]
    slices = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
    return list(_workers(threads, os.getpid()).map(torch.no_grad()(run), slices))


@cache
def _workers(threads: int, pid: int) -> ThreadPoolExecutor:
    """Pool of that many threads. `pid` is a key: a forked process has no thread of its parent."""
    pool = ThreadPoolExecutor(threads, initializer=_use_one_thread)
    all_started = threading.Barrier(threads)
    list(pool.map(lambda _: all_started.wait(), range(threads)))
    # The workers' calls have set the default of threads that do not exist yet, which is common to
    # the process: put it back.
    torch.set_num_threads(threads)
    return pool


def _use_one_thread() -> None:
    torch.get_num_threads()  # the first call in a thread resets the number: make it now
    torch.set_num_threads(1)

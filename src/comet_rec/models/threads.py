"""A part of a batch for each thread, with PyTorch's own threading off inside.

Work in cache-sized blocks is a long row of small operations. Where each of them is divided among
the cores, the cores wait for one another thousands of times a step; where each core takes blocks
of its own, once.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


def in_parts(count: int, least: int, run: Callable[[slice], T]) -> list[T]:
    """Results of `run` on consecutive parts of ``range(count)``, in their order.

    As many parts as PyTorch has threads, none shorter than `least`, so the results depend on
    that number alone.

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
    slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    return list(_workers(threads, os.getpid()).map(torch.no_grad()(run), slices))


@cache
def _workers(threads: int, pid: int) -> ThreadPoolExecutor:
    """Pool of that many threads; a forked process has none of its parent's."""
    pool = ThreadPoolExecutor(threads, initializer=_alone)
    all_started = threading.Barrier(threads)
    list(pool.map(lambda _: all_started.wait(), range(threads)))
    torch.set_num_threads(threads)  # the number for threads still to come is process-wide
    return pool


def _alone() -> None:
    torch.get_num_threads()  # a thread's first question resets the answer
    torch.set_num_threads(1)

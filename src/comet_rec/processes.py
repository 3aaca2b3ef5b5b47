"""Several processes that train one model, as ``torchrun`` starts them.

All processes run the same program. They differ only in their rank: each computes its part of a step
or of a ranking, and rank 0 writes. So all of them must call `fit`, `evaluate` and `save`. The
command line connects the processes. Other programs call `torch.distributed.init_process_group`
before they train. With one process the functions here change nothing, so callers need no case of
their own.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

BLOCK_BYTES = 1 << 26
"""Largest number of bytes that a process sends at a time when it shows a table to the others."""


def size() -> int:
    """Number of connected processes, P."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0 to P − 1."""
    return dist.get_rank() if size() > 1 else 0


def local_rank() -> int:
    """Number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank()))


def any_of(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is true in at least one process."""
    if size() == 1:
        return flags
    numbers = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return tuple(bool(number) for number in numbers)


def from_first(value: T) -> T:
    """The value that the first process has."""
    if size() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    first: T = values[0]
    return first


def wait() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        dist.barrier()


def add_up(tensors: list[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place, with one message."""
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, values in zip(tensors, torch.split(flat, sizes), strict=True):
        tensor.copy_(values.view_as(tensor))


def share(count: int, process: int | None = None) -> slice:
    """The part of 0 … count − 1 that a process works on, by default this one."""
    number = rank() if process is None else process
    return slice(number * count // size(), (number + 1) * count // size())


def gathered(part: Tensor, count: int) -> Tensor:
    """The rows that the processes have computed, each its `share` of `count` rows; [count, …]."""
    if size() == 1:
        return part
    sizes = [len(range(count)[share(count, other)]) for other in range(size())]
    padded = part.new_zeros((max(sizes), *part.shape[1:]))
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded.contiguous())
    return torch.cat([rows[:n] for rows, n in zip(parts, sizes, strict=True)])


def gathered_array(part: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """As `gathered`, for an array."""
    if size() == 1:
        return part
    return np.asarray(gathered(torch.from_numpy(np.ascontiguousarray(part)), count).numpy())

"""Commands that ``torchrun`` starts as several processes, of which rank 0 prints and writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

from comet_rec.errors import ConfigError

CONNECT_SECONDS = 60
"""Seconds in which the processes must have found each other."""
LONGEST_HOURS = 6
"""Hours that a process waits for another one, which may write a large run."""


def size() -> int:
    """Number of processes that ``torchrun`` has started; 1 without it."""
    text = os.environ.get("WORLD_SIZE", "1")
    set_by_torchrun = {"MASTER_ADDR", "RANK", "LOCAL_RANK"} <= os.environ.keys()
    return int(text) if text.isdecimal() and set_by_torchrun else 1


def rank() -> int:
    """Number of this process, from 0; 0 without ``torchrun``."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def local_rank() -> int:
    """Number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size() > 1 else 0


def restarted() -> bool:
    """Whether ``torchrun`` has started the processes again, because one of them failed."""
    return size() > 1 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Connect the processes inside the ``with`` block; without ``torchrun`` do nothing.

    Tensors on a CPU go through gloo, and tensors on a GPU through NCCL.

    Raises
    ------
    ConfigError
        When the processes cannot be connected.
    """
    if size() == 1:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if torch.cuda.is_available():  # "cuda" then means the GPU of this process
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    try:
        limit = timedelta(seconds=CONNECT_SECONDS)
        store, _, _ = next(rendezvous("env://", timeout=limit))
        # After a restart the store of torchrun still has the addresses of the processes before.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=dist.PrefixStore(f"attempt {attempt}", store),  # type: ignore[attr-defined]
            rank=rank(),
            world_size=size(),
            timeout=limit,
        )
        assert dist.group.WORLD is not None
        dist.group.WORLD.set_timeout(timedelta(hours=LONGEST_HOURS))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{size()} processes cannot be connected: {reason}") from None
    yield
    dist.barrier()
    dist.destroy_process_group()  # not after an error: the others would be waited for

"""Processes that run functions of tests together, as `torchrun` would run a program."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 300


def _work(connection: Any, rank: int, size: int, store: str) -> None:
    """Join the group, and run what comes through the connection until it says None."""
    os.environ["LOCAL_RANK"] = str(rank)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    while (task := connection.recv()) is not None:
        function, arguments = task
        try:
            connection.send((True, function(*arguments)))
        except BaseException:
            connection.send((False, traceback.format_exc()))
    dist.destroy_process_group()


class Group:
    """Connected processes; a call runs a function in all of them and returns their results."""

    def __init__(self, size: int, store: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connections, self.members = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            member = context.Process(target=_work, args=(theirs, rank, size, str(store)))
            member.start()
            self.connections.append(ours)
            self.members.append(member)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        for connection in self.connections:
            connection.send((function, arguments))
        results: dict[Any, Any] = {}
        while len(results) < len(self.connections):
            waiting = [each for each in self.connections if each not in results]
            answered = multiprocessing.connection.wait(waiting, SECONDS)
            if not answered:
                raise TimeoutError(f"{function.__name__} does not end")
            for connection in answered:
                fine, results[connection] = connection.recv()
                if not fine:  # now: the others may wait for this one for ever
                    raise AssertionError(results[connection])
        return [results[connection] for connection in self.connections]


@contextlib.contextmanager
def group(size: int, folder: Path) -> Iterator[Group]:
    """A group of processes, which ends with the ``with`` block."""
    members = Group(size, folder / f"store-{size}")
    try:
        yield members
        for connection in members.connections:
            connection.send(None)
        for member in members.members:
            member.join(20)
    finally:
        for member in members.members:
            member.kill()

"""Processes of tests: programs on their own, and functions in groups as `torchrun` makes them.

They are forked from a server that has imported the package and has no threads, because a process
that imports PyTorch itself takes seconds to start.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 300
HOME = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(HOME), str(HOME / "src")]),
}  # fmt: skip
SERVER = multiprocessing.get_context("forkserver")
# The first optimizer of a process imports PyTorch's compiler.
SERVER.set_forkserver_preload(["torch._dynamo", "comet_rec.estimators.registry"])


def start_program(
    module: str, *words: str, stdout: Path, stderr: Path, where: Path = HOME, warns: bool = True
) -> Any:
    """A started process that does what ``python -m MODULE WORDS`` does in the folder `where`.

    The caller must see to its end: the session of the tests waits for it.
    """
    program = SERVER.Process(target=_program, args=(module, words, where, (stdout, stderr), warns))
    program.start()
    return program


def run_program(
    module: str, *words: str, where: Path = HOME, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``python -W ignore -m MODULE WORDS`` in `where` ends with and has written.

    Raises
    ------
    subprocess.TimeoutExpired
        When it takes longer than `seconds`; it is killed then.
    """
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        program = start_program(
            module, *words, stdout=stdout, stderr=stderr, where=where, warns=False
        )
        program.join(seconds)
        if late := program.is_alive():
            program.kill()
            program.join()
        output, errors = (path.read_text() if path.exists() else "" for path in (stdout, stderr))
        if late:
            raise subprocess.TimeoutExpired(module, seconds, output, errors)
        return subprocess.CompletedProcess(module, program.exitcode, output, errors)


def _program(
    module: str, words: tuple[str, ...], where: Path, written: tuple[Path, Path], warns: bool
) -> None:
    """Run a module as a program that writes to two files."""
    import torch

    for descriptor, path in enumerate(written, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(where)
    os.environ |= ENVIRONMENT
    sys.argv = [module, *words]
    torch.set_num_threads(1)
    if not warns:
        warnings.simplefilter("ignore")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _work(connection: Any, rank: int, size: int, store: str) -> None:
    """Join the group, and run what comes through the connection until it says None."""
    os.environ["LOCAL_RANK"] = str(rank)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # as for all tests
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
        self.connections, self.members = [], []
        for rank in range(size):
            ours, theirs = SERVER.Pipe()
            member = SERVER.Process(target=_work, args=(theirs, rank, size, str(store)))
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

"""Parts of large tables in a checkpoint, of which each process writes and reads its own.

PyTorch's distributed checkpoints store the tables as safetensors files, one for each process. A
training with another number of processes loads the rows that it needs from them. The usual form of
such checkpoints has a metadata file that is a pickle, and loading a pickle can execute anything.
The form here needs no such file, and never reads one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from comet_rec import processes
from comet_rec.artefact.folder import digest, sync
from comet_rec.artefact.untrusted import one_line
from comet_rec.errors import ArtefactError

SUFFIX = ".safetensors"
LONGEST_HEADER = 1 << 20


def save_parts(folder: Path, parts: Mapping[str, Tensor], rows: Mapping[str, int]) -> None:
    """Write the part of this process of each tensor; all processes must call this.

    Parameters
    ----------
    folder : Path
        A new folder.
    parts : mapping of str to Tensor [S, …]
        The rows of this process, as `torch.chunk` divides a tensor among the processes.
    rows : mapping of str to int
        Number of rows of each whole tensor.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        if processes.rank() == 0:
            folder.mkdir(parents=True)
        processes.wait()
        with _quiet():
            save(
                _whole(parts, rows),
                storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
                no_dist=processes.size() == 1,
            )
        processes.wait()
        if processes.rank() == 0:
            for path in folder.iterdir():
                sync(path)
    except (CheckpointException, OSError) as error:
        raise ArtefactError(f"{folder}: cannot be written: {_reason(error)}") from None
    processes.wait()


def load_parts(
    folder: Path, parts: Mapping[str, Tensor], rows: Mapping[str, int], files: Mapping[str, str]
) -> None:
    """Fill the parts of this process from a checkpoint of any number of processes.

    Parameters
    ----------
    folder, parts, rows
        As for `save_parts`. The tensors are filled in place.
    files : mapping of str to str
        SHA-256 of each file.

    Raises
    ------
    ValueError
        When a file is missing, differs or has other tensors than `parts`.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    found = {path.name for path in folder.glob("*" + SUFFIX)}
    if found != set(files):
        raise ValueError(f"{folder.name} has other files than when it was written")
    for name, sha in files.items():
        if digest(folder / name) != sha:
            raise ValueError(f"{folder.name}/{name} differs from what was written")
        if _names(folder / name) - parts.keys():
            raise ValueError(f"{folder.name}/{name} has unknown tensors")
    for part in parts.values():  # a file with a hole must not leave what was in memory before
        part.fill_(torch.nan if part.is_floating_point() else -1)
    whole = _whole(parts, rows)
    try:
        with _quiet():
            load(
                whole,
                storage_reader=HuggingFaceStorageReader(str(folder)),
                no_dist=processes.size() == 1,
            )
    except (CheckpointException, Exception) as error:  # the first one is no `Exception`
        _raise_interrupt(error)
        raise ValueError(f"{folder.name} does not fit this training") from error
    for name, part in parts.items():
        if part.dtype == torch.int32 and bool((part < 0).any()):
            raise ValueError(f"{folder.name}: {name} has negative values")
        if part.is_floating_point() and not bool(torch.isfinite(part).all()):
            raise ValueError(f"{folder.name}: {name} is not finite")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what PyTorch says about checkpoints of one process, and what it logs of each."""
    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
    for name in list(logging.Logger.manager.loggerDict):
        if name.endswith("dcp_logger"):
            logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _raise_interrupt(error: BaseException) -> None:
    """Raise an interrupt by the user that PyTorch has wrapped."""
    for failure in _failures(error):
        if isinstance(failure, KeyboardInterrupt):
            raise failure


def _reason(error: BaseException) -> str:
    """One line of an error; of several processes, that of the first one."""
    _raise_interrupt(error)
    return one_line(str((*_failures(error), error)[0]))


def _failures(error: BaseException) -> list[BaseException]:
    """Errors of the processes, which PyTorch has wrapped into one."""
    from torch.distributed.checkpoint.api import CheckpointException

    if not isinstance(error, CheckpointException):
        return []
    return [failure for failure, _ in error.failures.values()]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder of parts."""
    return {path.name: digest(path) for path in sorted(folder.glob("*" + SUFFIX))}


def _names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"{path.name}: its header is too long")
        header: Any = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name}: its header is no object")
    return header.keys() - {"__metadata__"}


def _whole(parts: Mapping[str, Tensor], rows: Mapping[str, int]) -> dict[str, Any]:
    """The whole tensors, of which this process has a part; with one process, the parts."""
    if processes.size() == 1:
        return dict(parts)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole = {}
    for name, part in parts.items():
        shape = torch.Size((rows[name], *part.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        whole[name] = DTensor.from_local(
            part, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )
    return whole

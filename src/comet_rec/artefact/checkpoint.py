"""An unfinished training on disk: parameters, optimizer, and where it stood."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from comet_rec.artefact.folder import digest, digest_of, reason
from comet_rec.errors import ArtefactError

NAME = "last"
COMPANIONS = "companions"
"""Folder beside the checkpoint: models that are trained before (`estimators.companions`)."""


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a checkpoint under `folder`; the earlier one stays until the new one is whole.

    Parameters
    ----------
    folder : Path
        The run's `checkpoints` folder.
    tensors : dict of Tensor
    about : dict
        Plain data: step, stage, config, fingerprint of the data.

    Raises
    ------
    ArtefactError
        When the place cannot be written.
    """
    try:
        _write(folder, tensors, about)
    except (OSError, SafetensorError) as error:
        stays = "; --resume goes on from what was saved before" if has_checkpoint(folder) else ""
        raise ArtefactError(f"{folder}: cannot be written: {reason(error)}{stays}") from None


def _write(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{NAME}-{about['stage']}-{about['step']}.safetensors"
    fresh = folder / f".{name}.tmp"
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, fresh)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(folder / name)
    entry = {"about": about, "file": name, "tensors": digest(folder / name)}
    entry["sha256"] = digest_of(entry)
    pointer = folder / f".{NAME}.json.tmp"
    with pointer.open("w", encoding="utf-8") as out:
        out.write(json.dumps(entry))
        out.flush()
        os.fsync(out.fileno())
    pointer.replace(folder / f"{NAME}.json")
    killed = *folder.glob(".tmp*"), *folder.glob(f".{NAME}-*.tmp")  # safetensors' own, and ours
    for old in (*folder.glob("*.safetensors"), *killed):
        if old.name != name:
            old.unlink()


def has_checkpoint(folder: Path) -> bool:
    """Whether an unfinished training can be gone on with."""
    return has_own_checkpoint(folder) or (folder / COMPANIONS).is_dir()


def has_own_checkpoint(folder: Path) -> bool:
    """Whether the model's own training had begun, not that of its companions alone."""
    return (folder / f"{NAME}.json").is_file()


def forget(folder: Path) -> None:
    """Remove what an unfinished training left, so that nobody goes on from it."""
    (folder / f"{NAME}.json").unlink(missing_ok=True)
    shutil.rmtree(folder / COMPANIONS, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and plain data of the last checkpoint; None where there is none.

    Raises
    ------
    ArtefactError
        When it is damaged.
    """
    pointer = folder / f"{NAME}.json"
    if not pointer.is_file():
        return None
    try:
        entry: dict[str, Any] = json.loads(pointer.read_text(encoding="utf-8"))
        if entry.pop("sha256") != digest_of(entry):
            raise ValueError("its SHA-256 differs")
        path = folder / Path(entry["file"]).name
        if digest(path) != entry["tensors"]:
            raise ValueError(f"SHA-256 of {path.name} differs")
        return load_file(path), entry["about"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        why = str(error).splitlines()[0] if isinstance(error, (OSError, ValueError)) else "its form"
        raise ArtefactError(
            f"{pointer}: damaged checkpoint ({why}); remove the folder and train anew"
        ) from None

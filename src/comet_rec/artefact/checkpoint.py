"""Checkpoints of an unfinished training: parameters, optimizer state and the step reached."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from comet_rec.artefact.folder import TRIES, digest, digest_of, reason, sync
from comet_rec.artefact.run import LOG
from comet_rec.artefact.untrusted import Members, check_form, one_line, parsed
from comet_rec.data.arrays import Array
from comet_rec.errors import ArtefactError, InputError

NAME = "last"
POINTER = f"{NAME}.json"
"""JSON file of a checkpoint: it names the tensor file, and holds all data but the tensors."""
PARTS = "tables-"
"""Beginning of the name of a folder with parts of tables (`artefact.parts`)."""
BLEND = "blend"
"""Subfolder for the second model of a blend, which is trained before the main model.

In a blend, the scores of a second model are added to those of the main model.
"""
MEASURED, FINAL = "measured", "final"
"""Subfolders of a training that measures a model and then trains it once more on all rows.

The first is the measured run, which is complete. The second has the checkpoints of the final
training.
"""
REMEDY = "remove the folder and train again"
"""Advice in the error for a damaged checkpoint."""

STAGES = ("validation", "refit", "all")
"""Stages of a training that can leave a checkpoint.

"validation" chooses the number of epochs, "refit" also trains on validation rows, and "all" trains
on a log without held-out rows.
"""
_POINTER = {"about": {str: object}, "file": str, "tensors": str, "sha256": str}
_ABOUT = {
    "stage": str,
    "step": int,
    "state?": {
        "epoch": int,
        "batch": int,
        "loss_sum": float,
        "positives": int,
        "seconds": float,
        "best_epoch": int,
        "best_validation": {str: float},
    },
    "lines?": LOG,
    "weights?": [float],
    "chosen_epochs?": int,
    "identity?": str,
    "tables?": {"folder": str, "steps": int, "files": {str: str}},
}


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a checkpoint to `folder`; remove the earlier one only after the new one is complete.

    Parameters
    ----------
    folder : Path
        The run's `checkpoints` folder.
    tensors : dict of Tensor
        Parameters and optimizer state, by name.
    about : dict
        Further data that JSON can hold: stage, step, state of the trainer, lines of the training
        log, and a fingerprint of the training.

    Raises
    ------
    ArtefactError
        When the folder cannot be written.
    """
    try:
        _write(folder, tensors, about)
    except (OSError, SafetensorError) as error:
        stays = "; --resume goes on from the last checkpoint" if has_checkpoint(folder) else ""
        raise ArtefactError(f"{folder}: cannot be written: {reason(error)}{stays}") from None


def _write(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{NAME}-{about['stage']}-{about['step']}.safetensors"
    # A checkpoint of the same step has the same name. Its file must stay until the JSON file is
    # replaced, so the new file gets another name.
    if name == _pointed(folder):
        name = f"{NAME}-{about['stage']}_-{about['step']}.safetensors"
    fresh = folder / f".{name}.tmp"
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, fresh)
    sync(fresh)
    entry = {"about": about, "file": name, "tensors": digest(fresh)}
    entry["sha256"] = digest_of(entry)
    pointer = folder / f".{POINTER}.tmp"
    pointer.write_text(json.dumps(entry), encoding="utf-8")
    sync(pointer)
    fresh.replace(folder / name)
    pointer.replace(folder / POINTER)
    # The new checkpoint is complete. If cleaning up fails, the next checkpoint cleans up again.
    with contextlib.suppress(OSError):
        sync(folder)
        # A killed process leaves temporary files: of safetensors, and of this function.
        leftovers = *folder.glob(".tmp*"), *folder.glob(f".{NAME}-*.tmp")
        for old in (*folder.glob("*.safetensors"), *leftovers):
            if old.name != name:
                old.unlink()
        kept = about.get("tables", {}).get("folder")
        for old in folder.glob(f"{PARTS}*"):
            if old.name != kept:
                shutil.rmtree(old)


def new_parts_folder(folder: Path, stage: str, step: int) -> Path:
    """Path for the parts of tables of a new checkpoint; what a killed process left is removed."""
    path = folder / f"{PARTS}{stage}-{step}"
    if path.name == _pointed_parts(folder):  # must stay until the JSON file is replaced
        path = folder / f"{PARTS}{stage}_-{step}"
    shutil.rmtree(path, ignore_errors=True)
    return path


def parts_folder(folder: Path, name: str) -> Path:
    """Path of the parts of tables that a checkpoint names.

    Raises
    ------
    ValueError
        When it is no name of such a folder, or a link.
    """
    path = folder / name
    if not name.startswith(PARTS) or Path(name).name != name or path.is_symlink():
        raise ValueError(f"{one_line(name, 40)!r} is no folder of tables")
    if not path.is_dir():
        raise ValueError(f"{one_line(name, 40)} is missing")
    return path


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint from which a training can resume."""
    return has_own_checkpoint(folder) or any((folder / n).is_dir() for n in (BLEND, MEASURED))


def has_own_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a checkpoint of the main model, not only of a blended second model."""
    return (folder / POINTER).is_file()


def forget(folder: Path) -> None:
    """Make the checkpoint in `folder` unusable, so that no training resumes from it.

    Its tensor file stays until the next checkpoint is written.

    Raises
    ------
    ArtefactError
        When the folder cannot be written.
    """
    try:
        (folder / POINTER).unlink(missing_ok=True)
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be cleared: {error.strerror}") from None
    for name in (BLEND, MEASURED, FINAL, "companions"):  # companions: the name of `BLEND` until 0.1
        shutil.rmtree(folder / name, ignore_errors=True)


def load_checkpoint(
    folder: Path, declare: Callable[[Mapping[str, Any]], Mapping[str, Array]]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Load the tensors and the plain data of a checkpoint; None if there is no checkpoint.

    Parameters
    ----------
    folder : Path
        The run's `checkpoints` folder.
    declare : callable
        Takes the plain data, and returns the required type and shape of each tensor by name. It
        may raise an `InputError`.

    Raises
    ------
    ArtefactError
        When the checkpoint is damaged, or a tensor has another type or shape.
    """
    try:
        for _ in range(TRIES):
            if not has_own_checkpoint(folder):
                return None
            with Members(folder, REMEDY) as members:
                entry = _entry(members)
                declared = declare(entry["about"])
                name = Path(entry["file"]).name
                try:
                    members.open({name: entry["tensors"]})
                except FileNotFoundError:
                    if _pointed(folder) != name:
                        continue  # a newer checkpoint has replaced this file
                    raise ValueError(f"{one_line(name, 100)} is missing") from None
                arrays = members[name].arrays(declared, {})
                tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
                return tensors, entry["about"]
        raise ValueError("it was replaced each time it was read")
    except InputError:
        raise
    except Exception as error:
        # As in `load_run`: any error that an untrusted file causes becomes one line.
        expected = isinstance(error, (OSError, ValueError, RecursionError))
        fault = one_line(str(error)) if expected else "unexpected content"
        raise ArtefactError(f"{folder / POINTER}: damaged checkpoint ({fault}); {REMEDY}") from (
            None if expected else error
        )


def _pointed(folder: Path) -> str | None:
    """Name of the checkpoint's tensor file in `folder`; None without a readable checkpoint."""
    try:
        with Members(folder) as members:
            return Path(_entry(members)["file"]).name
    except (OSError, ValueError, RecursionError):
        return None


def _pointed_parts(folder: Path) -> str | None:
    """Name of the folder of tables of the checkpoint in `folder`; None without one."""
    try:
        with Members(folder) as members:
            tables = _entry(members)["about"].get("tables", {})
            return str(tables["folder"]) if "folder" in tables else None
    except (OSError, ValueError, RecursionError):
        return None


def _entry(members: Members) -> dict[str, Any]:
    """Read the JSON file of a checkpoint, and check its SHA-256 and the types of its entries."""
    members.open({POINTER: None})
    entry: dict[str, Any] = parsed(members[POINTER].text())
    check_form(entry, _POINTER)
    if entry.pop("sha256") != digest_of(entry):
        raise ValueError("its SHA-256 differs")
    check_form(entry["about"], _ABOUT)
    if entry["about"]["stage"] not in STAGES:
        raise ValueError(f"unknown stage {one_line(entry['about']['stage'], 40)!r}")
    return entry

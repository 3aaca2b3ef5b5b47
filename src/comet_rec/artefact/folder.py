"""Folders that appear whole: a temporary sibling, synced, renamed; every file has its SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from comet_rec.errors import ArtefactError

MANIFEST = "manifest.json"
SCHEMA = 1
CHECKPOINTS = "checkpoints"
PASSING = (".tmp", ".nfs", ".DS_Store")
"""How names begin that a killed writer or an operating system leaves."""
_KEPT = re.compile(r"last\.json|last-\w+-\d+\.safetensors|companions|\..*")
"""Names in the folder of checkpoints (`checkpoint`)."""


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(target: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Make `target` hold exactly what `write` puts into a fresh folder, and a manifest of it.

    Parameters
    ----------
    target : Path
        An earlier folder of this kind there, or an unfinished training, is replaced; never seen
        half written.
    write : callable
        Fills the folder that it is given and returns the manifest's other entries.

    Raises
    ------
    ArtefactError
        When the place cannot be written, or holds anything else.
    """
    try:
        refuse_foreign(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        around = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise ArtefactError(f"{target}: cannot be written: {error.strerror}") from None
    fresh = around / "fresh"
    try:
        fresh.mkdir()  # unlike mkdtemp's, as open to others as the user lets it be
        readable = fresh.stat().st_mode & 0o666
        about = write(fresh)
        files = {p.name: digest(p) for p in sorted(fresh.iterdir()) if p.is_file()}
        manifest = {"schema": SCHEMA, "files": files, **about}
        manifest["sha256"] = digest_of(manifest)
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in fresh.iterdir():
            path.chmod(readable)
            _sync(path)
        _sync(fresh)
        _swap(fresh, target)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{target}: cannot be written: {reason(error)}") from None
    finally:
        shutil.rmtree(around, ignore_errors=True)


def refuse_foreign(target: Path) -> None:
    """Refuse a place that holds anything but a folder of ours or an unfinished training.

    Raises
    ------
    ArtefactError
    """
    if not target.exists():
        return
    why = "exists and is not a run"
    if target.is_dir():
        try:
            manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
            ours = {MANIFEST, *manifest["files"]} if "sha256" in manifest else set()
        except (OSError, ValueError, KeyError, TypeError):
            ours = set()
        ours = {name for name in ours if (target / name).is_file()}
        inside = target / CHECKPOINTS
        if inside.is_dir() and all(_KEPT.fullmatch(path.name) for path in inside.iterdir()):
            ours.add(CHECKPOINTS)
        others = {path.name for path in target.iterdir()} - ours
        others = {name for name in others if not name.startswith(PASSING)}
        if not others:
            return
        why = f"holds {min(others)}, no part of a run" if ours else why
    raise ArtefactError(f"{target}: {why}; remove it or name another place")


def write_text(path: Path, text: str) -> None:
    """Write a file that is seen whole or not at all.

    Raises
    ------
    ArtefactError
        When the place cannot be written.
    """
    path = path.resolve()  # a link stays one
    fresh = path.with_name(f".{path.name}.new")
    try:
        if path.exists() and not path.is_file():  # a pipe or a device
            path.write_text(text, encoding="utf-8")
            return
        with fresh.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise ArtefactError(f"{path}: cannot be written: {error.strerror}") from None


def reason(error: Exception) -> str:
    """Why something could not be written; safetensors has errors of its own."""
    return str(getattr(error, "strerror", None) or error)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Manifest of a complete folder whose files all have their recorded digests.

    Raises
    ------
    ArtefactError
        When the folder is missing, incomplete, damaged or of another schema.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: no such run; give the folder that `train --out` wrote")
    if not path.is_file():
        what = "holds an unfinished training; go on with `train … --resume`"
        what = what if (folder / CHECKPOINTS).is_dir() else "is not a run: no manifest.json"
        raise ArtefactError(f"{folder}: {what}")
    damaged = ArtefactError(f"{path}: damaged; train again or copy the run anew")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema, stated, files = manifest["schema"], manifest.pop("sha256"), manifest["files"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged from None
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}") from None
    if schema != SCHEMA:
        raise ArtefactError(f"{path}: schema {schema!r}, this version reads {SCHEMA}; train again")
    if stated != digest_of(manifest):
        raise damaged
    for name, expected in files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise ArtefactError(f"{folder}: {name} is missing; copy the run anew")
        try:
            found = digest(file)
        except OSError as error:
            raise ArtefactError(f"{file}: cannot be read: {error.strerror}") from None
        if found != expected:
            raise ArtefactError(f"{file}: damaged, its SHA-256 differs; copy the run anew")
    return manifest


def digest_of(entries: dict[str, Any]) -> str:
    """SHA-256 of plain data as JSON, hexadecimal: of a manifest without that entry."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _swap(fresh: Path, target: Path) -> None:
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old / "run")
        try:
            fresh.rename(target)
        except BaseException:
            (old / "run").rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        fresh.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

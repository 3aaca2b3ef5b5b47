"""Folders that appear whole: a temporary sibling, synced, exchanged; every file has its SHA-256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from comet_rec.artefact.lock import is_trained_into, locked
from comet_rec.artefact.untrusted import Members, check_form, one_line, parsed, staging_of
from comet_rec.errors import ArtefactError, CometWarning, DamagedError

MANIFEST = "manifest.json"
SCHEMA = 1
CHECKPOINTS = "checkpoints"
PASSING = (".tmp", ".nfs", ".DS_Store")
"""How names begin that a killed writer or an operating system leaves."""
MOST_FILES = 64
MOST_MANIFEST = 1 << 24
"""Longest manifest."""
TRIES = 1000
"""Openings of a folder, or a checkpoint, that is replaced again and again."""
_KEPT = re.compile(r"last\.json|last-\w+-\d+\.safetensors|blend|companions|\..*")
"""Names in the folder of checkpoints (`checkpoint`)."""
_MANIFEST = {"schema": object, "files": {str: str}, "sha256": str}
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""Error numbers of systems that cannot exchange two names at once."""


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(target: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Make `target` hold exactly what `write` puts into a fresh folder, and a manifest of it.

    At no moment is there nothing where something was. Leftovers of killed writers are removed.

    Parameters
    ----------
    target : Path
        An earlier folder of this kind there, or an unfinished training, is replaced; never seen
        half written. A link to one stays a link.
    write : callable
        Fills the folder that it is given and returns the manifest's other entries.

    Raises
    ------
    ArtefactError
        When the place cannot be written, holds anything else, or another process trains into it.
    """
    place = Path(os.path.realpath(target))
    with locked(target, "save") as alone:
        try:
            if alone:
                sweep(place)
            refuse_foreign(target)
            place.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{place.name}.saving-", dir=place.parent))
            try:
                _fill(staging / "fresh", write)
                _take_place(staging, place)
                _confirm(place, target)
            finally:
                if place.exists() or not (staging / "replaced").exists():
                    shutil.rmtree(staging, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise ArtefactError(f"{target}: cannot be written: {reason(error)}") from None
    if staging.exists():
        warnings.warn(
            f"{target}: written, but {staging} could not be removed; remove it",
            CometWarning,
            stacklevel=3,
        )


def _fill(fresh: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    fresh.mkdir()  # unlike mkdtemp's, as open to others as the user lets it be
    readable = fresh.stat().st_mode & 0o666
    about = write(fresh)
    files = {p.name: digest(p) for p in sorted(fresh.iterdir()) if p.is_file()}
    manifest = {"schema": SCHEMA, "files": files, **about}
    manifest["sha256"] = digest_of(manifest)
    (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in fresh.iterdir():
        path.chmod(readable)
        sync(path)
    sync(fresh)


def _take_place(staging: Path, place: Path) -> None:
    """Give the fresh folder the place's name; what stood there is in `staging` then.

    Where two names cannot be exchanged at once, two renames do it. Between them a reader finds
    the old folder under its other name (`untrusted.Members`), and so does the next writer.
    """
    fresh, replaced = staging / "fresh", staging / "replaced"
    if not place.exists():
        fresh.rename(place)
        return
    try:
        exchange(fresh, place)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        place.rename(replaced)
        try:
            fresh.rename(place)
        except BaseException:
            replaced.rename(place)
            raise


def _confirm(place: Path, target: Path) -> None:
    """Put the new name on the disk before the old folder goes; the new one stands either way."""
    try:
        sync(place.parent)
    except OSError as error:
        warnings.warn(
            f"{target}: written, but the disk does not confirm it: {error.strerror}",
            CometWarning,
            stacklevel=4,
        )


def exchange(one: Path, other: Path) -> None:
    """Exchange two names at once.

    Raises
    ------
    OSError
        With ENOSYS where the system cannot.
    """
    import ctypes  # no command but one that saves needs it

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(here, os.fsencode(one), here, os.fsencode(other), both) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def sweep(place: Path) -> None:
    """Remove what killed saves to a place left; if they had put its folder aside, it comes back.

    For holders of the lock: all other savers are dead.
    """
    for staging in staging_of(place):
        if (staging / "replaced").exists() and not place.exists():
            (staging / "replaced").rename(place)
        shutil.rmtree(staging, ignore_errors=True)


def refuse_foreign(target: Path) -> None:
    """Refuse a place that holds anything but a folder of ours or an unfinished training.

    Raises
    ------
    ArtefactError
    """
    if not target.exists():
        return
    fault = "exists and is not a run"
    if target.is_dir():
        ours = {name for name in _named(target) if (target / name).is_file()}
        inside = target / CHECKPOINTS
        if inside.is_dir() and all(_KEPT.fullmatch(path.name) for path in inside.iterdir()):
            ours.add(CHECKPOINTS)
        others = {path.name for path in target.iterdir()} - ours
        others = {name for name in others if not name.startswith(PASSING)}
        if not others:
            return
        if ours:
            fault = f"holds {one_line(min(others))}, no part of a run"
    raise ArtefactError(f"{target}: {fault}; remove it or name another place")


def _named(folder: Path) -> set[str]:
    """The manifest and the files that it names; empty without a manifest of ours."""
    try:
        with Members(folder) as members:
            members.open({MANIFEST: None})
            manifest = parsed(members[MANIFEST].text(MOST_MANIFEST))
        check_form(manifest, _MANIFEST)
    except (OSError, ValueError, RecursionError):
        return set()
    return {MANIFEST, *manifest["files"]}


def reason(error: Exception) -> str:
    """Why something could not be written; safetensors has errors of its own."""
    return str(getattr(error, "strerror", None) or error)


@contextlib.contextmanager
def opened(
    folder: Path, names: Container[str] | None = None
) -> Iterator[tuple[Members, dict[str, Any]]]:
    """Open a complete folder: its manifest, verified, and the files that the manifest names.

    Parameters
    ----------
    folder : Path
    names : container of str, optional
        Names of the files that are opened, where the manifest has them; default: all.

    Raises
    ------
    ArtefactError
        When the folder is missing, incomplete or of another schema, or its manifest is damaged;
        also for any OSError of the reader.
    """
    try:
        members, manifest = _opened(folder, names)
        with members:
            yield members, manifest
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be read: {error.strerror}") from None


def _opened(folder: Path, names: Container[str] | None) -> tuple[Members, dict[str, Any]]:
    """As `opened`; anew where the folder was replaced before all of its files were open."""
    for _ in range(TRIES):
        with contextlib.ExitStack() as stack:
            try:
                members = stack.enter_context(Members(folder))
            except (FileNotFoundError, NotADirectoryError, ValueError):  # a NUL is no name
                raise _no_run(folder) from None
            try:
                members.open({MANIFEST: None})
                manifest = _manifest(folder, members)
                digests = manifest["files"].items()
                members.open({n: digest for n, digest in digests if names is None or n in names})
            except FileNotFoundError as error:
                if not members.is_current():
                    continue
                if error.filename == MANIFEST:
                    raise _no_run(folder) from None
                missing = one_line(str(error.filename))
                raise DamagedError(f"{folder}: {missing} is missing; copy the run anew") from None
            stack.pop_all()
            return members, manifest
    raise ArtefactError(f"{folder}: is replaced again and again; read it later")


def _manifest(folder: Path, members: Members) -> dict[str, Any]:
    """The manifest, if it is the one that was written, for this schema."""
    path = folder / MANIFEST
    damaged = DamagedError(f"{path}: damaged; train again or copy the run anew")
    try:
        manifest: dict[str, Any] = parsed(members[MANIFEST].text(MOST_MANIFEST))
        check_form(manifest, _MANIFEST)
        stated = manifest.pop("sha256")
        computed = digest_of(manifest)
    except (ValueError, RecursionError):
        raise damaged from None
    if manifest["schema"] != SCHEMA:
        schema = one_line(repr(manifest["schema"]), 40)
        raise ArtefactError(f"{path}: schema {schema}, this version reads {SCHEMA}; train again")
    if stated != computed or len(manifest["files"]) > MOST_FILES:
        raise damaged
    return manifest


def _no_run(folder: Path) -> ArtefactError:
    """Error for a place without a finished run, which says what is there instead."""
    if is_trained_into(folder):
        what = "a training writes there; wait for its end"
    elif (folder / CHECKPOINTS).is_dir():
        what = "holds an unfinished training; go on with `train … --resume`"
    elif folder.is_dir():
        what = "is not a run: no manifest.json"
    else:
        what = "no such run; give the folder that `train --out` wrote"
    return ArtefactError(f"{folder}: {what}")


def digest_of(entries: dict[str, Any]) -> str:
    """SHA-256 of plain data as JSON, hexadecimal: of a manifest without that entry."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

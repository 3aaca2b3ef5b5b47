"""Atomic writing of a run's folder: written beside its target, synced to disk, swapped in.

A manifest in the folder lists the SHA-256 of each file.
"""

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
"""Version of the folder format; folders of another version are refused."""
CHECKPOINTS = "checkpoints"
"""Subfolder of a run for the checkpoints of an unfinished training."""
PASSING = (".tmp", ".nfs", ".DS_Store")
"""Prefixes of file names that a killed writer or the operating system leaves behind."""
MOST_FILES = 64
"""Largest number of files that a manifest may name."""
MOST_MANIFEST = 1 << 24
"""Largest manifest, in bytes (16 MiB)."""
TRIES = 1000
"""Attempts to open a folder or checkpoint that other processes keep replacing."""
_KEPT = re.compile(
    r"last\.json|last-\w+-\d+\.safetensors|tables-\w+-\d+|blend|companions|measured|final|\..*"
)
"""File names that the `checkpoints` folder of a run may hold; see `artefact.checkpoint`."""
_MANIFEST = {"schema": object, "files": {str: str}, "sha256": str}
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
"""Error numbers of systems that cannot swap two names atomically."""


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_folder(target: Path, write: Callable[[Path], dict[str, Any]]) -> None:
    """Replace `target` atomically by a new folder with a manifest.

    Readers see the old folder or the new one, never a partial one. Leftovers of killed writers are
    removed.

    Parameters
    ----------
    target : Path
        An earlier run or an unfinished training in this place is replaced. If `target` is a
        symbolic link, the folder behind the link is replaced.
    write : callable
        Function that fills an empty folder, and returns further entries for the manifest.

    Raises
    ------
    ArtefactError
        When the target cannot be written or holds files that no run has, or another process is
        training there.
    """
    place = Path(os.path.realpath(target))
    with locked(target, "save") as has_lock:
        try:
            if has_lock:
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
    fresh.mkdir()  # has the permissions of the user's umask; mkdtemp's folder is private
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
    """Move the new folder from `staging` to `place`, and the old folder into `staging`.

    If the system cannot swap two names atomically, two renames do it. Between the renames, readers
    (`untrusted.Members`) and the next writer find the old folder in `staging`.
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
    """Sync the parent folder of `place` to disk; warn if that fails, naming `target`."""
    try:
        sync(place.parent)
    except OSError as error:
        warnings.warn(
            f"{target}: written, but the disk does not confirm it: {error.strerror}",
            CometWarning,
            stacklevel=4,
        )


def exchange(one: Path, other: Path) -> None:
    """Swap the names of two files or folders atomically.

    Raises
    ------
    OSError
        When the names cannot be swapped. The error number is ENOSYS if the system cannot swap
        names at all.
    """
    import ctypes  # imported here because only saving needs it

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_fdcwd, rename_exchange = -100, 2  # constants of the Linux system call
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def sweep(place: Path) -> None:
    """Clean up after killed saves to `place`: restore the old folder, remove temporary folders.

    The caller must hold the lock, so that no other process is still saving.
    """
    for staging in staging_of(place):
        if (staging / "replaced").exists() and not place.exists():
            (staging / "replaced").rename(place)
        shutil.rmtree(staging, ignore_errors=True)


def refuse_foreign(target: Path) -> None:
    """Check that `target` holds no files but those of a run or of an unfinished training.

    Raises
    ------
    ArtefactError
        When it holds other files, which saving would delete.
    """
    if not target.exists():
        return
    fault = "exists and is not a run"
    if target.is_dir():
        run_files = {name for name in _named(target) if (target / name).is_file()}
        inside = target / CHECKPOINTS
        if inside.is_dir() and all(_KEPT.fullmatch(path.name) for path in inside.iterdir()):
            run_files.add(CHECKPOINTS)
        others = {path.name for path in target.iterdir()} - run_files
        others = {name for name in others if not name.startswith(PASSING)}
        if not others:
            return
        if run_files:
            fault = f"holds {one_line(min(others))}, which is not part of a run"
    raise ArtefactError(f"{target}: {fault}; remove it, or name another folder")


def _named(folder: Path) -> set[str]:
    """Names of the manifest in `folder` and of the files that it lists; empty if it is invalid.

    Raises
    ------
    ArtefactError
        When the disk fails, which says nothing about the folder.
    """
    try:
        with Members(folder) as members:
            members.open({MANIFEST: None})
            manifest = parsed(members[MANIFEST].text(MOST_MANIFEST))
        check_form(manifest, _MANIFEST)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return set()
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be read: {error.strerror}") from None
    return {MANIFEST, *manifest["files"]}


def reason(error: Exception) -> str:
    """Text of the `OSError` or the safetensors error that made a write fail."""
    return str(getattr(error, "strerror", None) or error)


@contextlib.contextmanager
def opened(
    folder: Path, names: Container[str] | None = None
) -> Iterator[tuple[Members, dict[str, Any]]]:
    """Open the folder of a run: verify its manifest, and open the files that the manifest names.

    Parameters
    ----------
    folder : Path
    names : container of str, optional
        File names to open, if the manifest has them. Default: all files of the manifest.

    Yields
    ------
    Members
        The open files.
    dict
        The verified manifest.

    Raises
    ------
    ArtefactError
        When the folder is missing, incomplete or in another format, or its manifest is damaged.
        An `OSError` inside the block is raised as an `ArtefactError` too.
    """
    try:
        members, manifest = _opened(folder, names)
        with members:
            yield members, manifest
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be read: {error.strerror}") from None


def _opened(folder: Path, names: Container[str] | None) -> tuple[Members, dict[str, Any]]:
    """Open as `opened` does; retry if a process replaced the folder before all files were open."""
    for _ in range(TRIES):
        with contextlib.ExitStack() as stack:
            try:
                members = stack.enter_context(Members(folder))
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in path
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
                raise DamagedError(f"{folder}: {missing} is missing; copy the run again") from None
            stack.pop_all()
            return members, manifest
    raise ArtefactError(f"{folder}: other processes keep replacing it; try again later")


def _manifest(folder: Path, members: Members) -> dict[str, Any]:
    """Read the manifest of a run, and check its SHA-256 and the version of its format."""
    path = folder / MANIFEST
    damaged = DamagedError(f"{path}: damaged; train again or copy the run again")
    try:
        manifest: dict[str, Any] = parsed(members[MANIFEST].text(MOST_MANIFEST))
        check_form(manifest, _MANIFEST)
        stated = manifest.pop("sha256")
        computed = digest_of(manifest)
    except (ValueError, RecursionError):
        raise damaged from None
    if manifest["schema"] != SCHEMA:
        schema = one_line(repr(manifest["schema"]), 40)
        raise ArtefactError(
            f"{path}: folder format {schema}, but this version reads format {SCHEMA}; train again"
        )
    if stated != computed or len(manifest["files"]) > MOST_FILES:
        raise damaged
    return manifest


def _no_run(folder: Path) -> ArtefactError:
    """Error for a folder without a finished run; the message tells what `folder` is instead."""
    if is_trained_into(folder):
        content = "a training is writing there; wait until it ends"
    elif (folder / CHECKPOINTS).is_dir():
        content = "holds an unfinished training; go on with `train … --resume`"
    elif folder.is_dir():
        content = "is not a run: no manifest.json"
    else:
        content = "no such run; give the folder that `train --out` wrote"
    return ArtefactError(f"{folder}: {content}")


def digest_of(entries: dict[str, Any]) -> str:
    """SHA-256 of `entries` as JSON with sorted keys, hexadecimal."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk (`fsync`)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Records of finished trainings: one zip file for each log, in the folder `records` of a study.

A record holds the metrics of one training as JSON and the ranks of every test user. The record of a
COMET also holds some of its convolution kernels. A training is a job, and the key of the job is the
name of the record within the zip file:

    records/ml-1m.zip
        ml-1m-comet-best-0-14ed5452bf85/record.json
        ml-1m-comet-best-0-14ed5452bf85/better.npy          also tied, full_better, full_tied
        ml-1m-comet-best-0-14ed5452bf85/kernels/width 8, filter 1.npy

The zip format stores a checksum of every file within it. Equal records give equal bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.artefact.folder import opened
from comet_rec.artefact.lock import locked
from comet_rec.artefact.untrusted import parsed
from comet_rec.errors import ArtefactError
from comet_rec.evaluation.metrics import hit_rate, ndcg
from comet_rec.evaluation.ranking import Ranks
from comet_rec.files import written_whole

RANKS = ("better", "tied", "full_better", "full_tied")
KERNELS = "kernels/"
VALUES = "record.json"

Kernel = npt.NDArray[np.floating[Any]]

Members = dict[str, bytes]
"""Files of one record in the zip file: name below the record's key → content."""


@dataclass(frozen=True)
class Record:
    """Metrics and ranks of a finished training.

    Parameters
    ----------
    values : dict
        Plain data: metrics, seconds, epochs, metrics for other samples of candidates, and metrics
        by popularity stratum.
    key : str
        Key of the job, that is, of the training.
    arrays : dict of str to ndarray
        Ranks of each test user, and kernels, whose names begin with ``kernels/``.
    """

    values: Mapping[str, Any]
    key: str
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def kernels(self) -> dict[str, Kernel]:
        """Convolution kernels of a COMET's user tower by title, float16; empty for other models."""
        return {
            name.removeprefix(KERNELS): array
            for name, array in self.arrays.items()
            if name.startswith(KERNELS)
        }

    @cached_property
    def ranks(self) -> dict[str, npt.NDArray[np.int64]]:
        """Arrays ``better``, ``tied``, ``full_better`` and ``full_tied`` by name, int64.

        For each test user, they count the candidates with a higher score than the positive, and
        with an equal score. The full counts may be missing, or cover only a sample of the users.
        """
        return {name: self.arrays[name].astype(np.int64) for name in RANKS if name in self.arrays}

    def full_ranks(self, n_users: int) -> Ranks | None:
        """Ranks among all items; None unless all `n_users` test users have them."""
        ranks = self.ranks
        if len(ranks.get("full_better", ())) != n_users:
            return None
        return Ranks(ranks["full_better"], ranks["full_tied"])

    def user_values(self, metric: str, *, full: bool = False) -> npt.NDArray[np.float64]:
        """Value of `metric`, such as "HR@10", for each test user, float64 [T].

        If `full` is True, the array holds the full metric. It is then empty for a model without
        full ranks, and shorter if only a sample of users has full ranks.
        """
        measure = hit_rate if metric.startswith("HR") else ndcg
        prefix, k = "full_" if full else "", int(metric.split("@")[1])
        if f"{prefix}better" not in self.ranks:
            return np.empty(0)
        return measure(self.ranks[f"{prefix}better"], self.ranks[f"{prefix}tied"], k)


def file_of(folder: Path, log: str) -> Path:
    """Path of the zip file in `folder` that holds the records of a log."""
    return folder / f"{log}.zip"


def find(folder: Path, log: str, key: str) -> Record | None:
    """Read the record of a job; None if it is missing or damaged.

    Parameters
    ----------
    folder : Path
        Folder ``records`` of a study.
    log, key : str
        Name of the log, and key of the job.

    Raises
    ------
    ArtefactError
        If the log's file is not a zip file.
    """
    members = _members(file_of(folder, log), key) or _members_of_folder(folder / key)
    if members is None:
        return None
    try:
        values = parsed(members.pop(VALUES))
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(data), allow_pickle=False)
            for name, data in members.items()
        }
    except (KeyError, ValueError, RecursionError, EOFError):
        return None
    return Record(values, key, arrays)


def keep(
    folder: Path,
    log: str,
    key: str,
    values: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write a record into the zip file of its log, and replace a record with the same key.

    Parameters
    ----------
    folder : Path
        Folder ``records`` of a study.
    log, key : str
        Name of the log, and key of the job.
    values : dict
        Metrics and settings as plain data.
    arrays : dict of str to ndarray
        Ranks and kernels, as in `Record`.

    Raises
    ------
    ArtefactError
        If the file cannot be read or written.
    """
    members = {VALUES: json.dumps(values, indent=1).encode()}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        members[f"{name}.npy"] = buffer.getvalue()
    rewrite(file_of(folder, log), add={key: members})


def keys(file: Path) -> list[str]:
    """Keys of the records in a zip file, sorted; empty if the file does not exist.

    Raises
    ------
    ArtefactError
        If the file is not a zip file.
    """
    if not file.exists():
        return []
    with _opened(file) as archive:
        return sorted({name.split("/")[0] for name in archive.namelist()})


def merge(source: Path, target: Path) -> int:
    """Copy the records in `source` that `target` lacks; both are ``records`` folders of a study.

    Versions before 0.1 wrote each record into a folder of its own. Such folders are copied too.

    Returns
    -------
    int
        Number of records that were copied.
    """
    by_log: dict[str, dict[str, Members]] = {}
    for file in sorted(source.glob("*.zip")):
        for key in keys(file):
            if (members := _members(file, key)) is not None:
                by_log.setdefault(file.stem, {})[key] = members
    for place in sorted(path for path in source.iterdir() if path.is_dir()):
        if (members := _members_of_folder(place)) is not None:
            log = parsed(members[VALUES])["log"]
            by_log.setdefault(log, {})[place.name] = members
    copied = 0
    for log, records in by_log.items():
        file = file_of(target, log)
        missing = {key: records[key] for key in sorted(set(records) - set(keys(file)))}
        if missing:
            rewrite(file, add=missing)
        copied += len(missing)
    return copied


def rewrite(
    file: Path, *, add: Mapping[str, Members] | None = None, remove: Collection[str] = ()
) -> None:
    """Write a zip file of records again, with some records added and others removed.

    `add` maps the key of a record to its files. The new file replaces the old one at once, so a
    reader never sees half a file. A record with a damaged file is dropped.

    Raises
    ------
    ArtefactError
        If the file cannot be read or written.
    """
    added = add or {}
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file, "save"):  # two studies may share a folder
        kept = (key for key in keys(file) if key not in added and key not in remove)
        records = {key: members for key in kept if (members := _members(file, key))} | dict(added)
        with (
            written_whole(file) as fresh,
            zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        ):
            for key, members in sorted(records.items()):
                for name, content in members.items():
                    # A fixed date, so that equal records give equal bytes.
                    entry = zipfile.ZipInfo(f"{key}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, content)


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise ArtefactError(
            f"{file}: damaged; copy it again, or remove it to train its models again"
        ) from None
    except OSError as error:
        raise ArtefactError(f"{file}: cannot be read: {error.strerror}") from None


def _members(file: Path, key: str) -> Members | None:
    """Files of a record in a zip file; None if it has none, or if a checksum is wrong."""
    if not file.exists():
        return None
    with _opened(file) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{key}/")]
        try:
            members = {name.removeprefix(f"{key}/"): archive.read(name) for name in names}
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
            return None
    return members or None


def _members_of_folder(folder: Path) -> Members | None:
    """Files of a record that a version before 0.1 wrote into a folder of its own.

    None if the folder holds no such record.
    """
    try:
        with opened(folder) as (files, manifest):
            expected = manifest["files"]
            packed = {
                name: files[name].text(1 << 30)
                for name in ("ranks.npz", "kernels.npz")
                if name in expected
            }
        values = manifest["record"]
    except (ArtefactError, KeyError):
        return None
    members = {VALUES: json.dumps(values, indent=1).encode()}
    for name, data in packed.items():
        prefix = KERNELS if name == "kernels.npz" else ""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members |= {f"{prefix}{member}": archive.read(member) for member in archive.namelist()}
    return members

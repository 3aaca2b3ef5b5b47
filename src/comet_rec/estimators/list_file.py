"""Lists of many users in one Parquet file, written block by block in bounded memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from comet_rec.artefact.run import Run
from comet_rec.config import is_whole
from comet_rec.data.tables import join_parquet, parquet_note
from comet_rec.errors import InputError
from comet_rec.estimators.lists import known_users
from comet_rec.estimators.ranker import Ranker
from comet_rec.estimators.rules import Rules

ROWS = 1 << 17
"""Largest number of rows of lists that are held in memory, unless one list is longer."""


def write_lists(run: Run, path: Path, rules: Rules, shard: tuple[int, int] | None) -> bool:
    """Write lists of all users, or of one part of them, to a file; see `Estimator.write_lists`."""
    number, shards = (1, 1) if shard is None else _pair(shard)
    if not (is_whole(number) and is_whole(shards) and 1 <= number <= shards):
        raise InputError(f"shard = {shard!r}: must be (i, n) with 1 ≤ i ≤ n, such as (1, 8)")
    n_users = run.interactions.n_users
    first, last = (number - 1) * n_users // shards, number * n_users // shards
    note = _note(run, rules, first, last)
    if shard is not None and path.exists():
        if parquet_note(path) == note:
            return False
        raise InputError(
            f"{path}: holds something else than these lists of this run; delete the file, or give "
            "another path"
        )
    ranker = Ranker(run, rules)
    size = max(1, ROWS // rules.k)
    # The parts stand beside the file, because a system's temporary folder may be small. A pipe or
    # device has no such place.
    beside = path.parent if path.is_file() or not path.exists() else None
    try:
        with TemporaryDirectory(dir=beside, prefix=".comet-rec-") as folder:
            parts = []
            # A shard without users has one empty part, so that its file has the columns.
            for start in range(first, max(last, first + 1), size):
                parts.append(str(Path(folder) / f"{start}.parquet"))
                users = np.arange(start, min(start + size, last))
                known_users(ranker, users).write(parts[-1], "parquet")
            join_parquet(parts, path, note)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return True


def _pair(shard: Any) -> tuple[Any, Any]:
    """The two entries of `shard`; zeros, which are no shard, if it is no pair."""
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        return 0, 0
    return shard[0], shard[1]


def _note(run: Run, rules: Rules, first: int, last: int) -> str:
    """Digest of all that decides the lists, which the file carries.

    These are the parameters, the rules, the users, and the rows that the lists leave out.
    """
    state = hashlib.sha256(f"{first} {last} {rules.text()} {run.known.fingerprint}".encode())
    for name, tensor in sorted(run.tensors.items()):
        state.update(name.encode())
        state.update(np.ascontiguousarray(tensor.numpy(force=True)).data)
    return state.hexdigest()

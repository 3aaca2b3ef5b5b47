"""A folder with vectors and an approximate index over the item vectors, written and read."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np

from comet_rec.artefact.folder import opened
from comet_rec.artefact.run import Run
from comet_rec.errors import ArtefactError, ConfigError
from comet_rec.export.vectors import check_vectors, write_vectors
from comet_rec.retrieval.approximate import (
    BUILD_WIDTH,
    LINKS,
    ApproximateIndex,
    best_index,
    library,
)

INDEX, ITEMS = "index.faiss", "item_vectors.npy"
K, USERS = 10, 1000
"""Length of the lists, and largest number of users, that the recall is measured with."""
LEAST, AIM = 0.95, 0.99
"""An index with a recall below `LEAST` is refused; searches are widened until it is `AIM`."""


def write_index(run: Run, version: str, folder: Path) -> dict[str, Any]:
    """Write the vectors of a run and an HNSW index; returns what `about.json` says.

    Raises
    ------
    ConfigError
        When the run has no vectors, faiss is missing, or the recall is too low.
    """
    check_vectors(run)
    assert run.user_vectors is not None
    assert run.item_vectors is not None
    faiss = library()
    users = sample(run)
    seen = run.known.interacted_items(users)
    items = np.ascontiguousarray(run.item_vectors.numpy())
    began = time.perf_counter()
    index, reached = best_index(items, run.user_vectors.numpy()[users], K, seen, AIM)
    seconds = time.perf_counter() - began
    if reached < LEAST:
        raise ConfigError(
            f"the index finds {reached:.3f} of the exact lists' items (recall@{K} over "
            f"{len(users):,} users, efSearch {index.width}), and {LEAST} are needed; search "
            "exactly: export to npy, or use `recommend`"
        )
    faiss.write_index(index.graph, str(folder / INDEX))
    about = {
        "kind": "HNSW",
        "metric": "L2 of equally long vectors" if index.equal_lengths else "inner product",
        "links": LINKS,
        "efConstruction": BUILD_WIDTH,
        "efSearch": index.width,
        f"recall@{K}": round(reached, 4),
        "users measured": len(users),
        "seconds": round(seconds, 2),
    }
    return write_vectors(run, version, folder, {"index": about})


def sample(run: Run) -> Any:
    """Users to check an export with: at most `USERS`, evenly spaced, int64 [Q]."""
    n = run.interactions.n_users
    return np.unique(np.linspace(0, n - 1, min(n, USERS)).astype(np.int64))


def load_index(folder: str | Path) -> ApproximateIndex:
    """Read the index of a folder that ``export --to faiss`` wrote, and verify its digests.

    Raises
    ------
    ArtefactError
        When the folder is missing, damaged, or no such export.
    ConfigError
        When faiss is not installed.
    """
    faiss = library()
    folder = Path(folder)
    with opened(folder, (INDEX, ITEMS)) as (members, manifest):
        if manifest.get("export") != "faiss":
            raise ArtefactError(f"{folder}: holds no index; write one with `export --to faiss`")
        stored = [members[name].text(members[name].size) for name in (INDEX, ITEMS)]
    graph = faiss.deserialize_index(np.frombuffer(stored[0], dtype=np.uint8))
    return ApproximateIndex(graph, np.load(io.BytesIO(stored[1]), allow_pickle=False))

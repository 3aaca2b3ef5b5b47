"""User and item vectors, ids and seen items as plain NumPy and JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from comet_rec import __version__
from comet_rec.artefact.run import Run
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import row_starts
from comet_rec.errors import ConfigError

ABOUT = "about.json"
SCORE = (
    "The score of a user and an item is the inner product of their vectors, a logit: higher is "
    "better. Equal scores are in the order of the items. A list leaves out the seen items."
)


def check_vectors(run: Run) -> None:
    """Refuse a run whose scores are not inner products of vectors.

    Raises
    ------
    ConfigError
    """
    if run.user_vectors is None or run.item_vectors is None:
        raise ConfigError(
            f"{run.config.name} has no vectors to export: its scores are not inner products; use a "
            "model with vectors, e.g. comet or mf, or export to hub"
        )


def write_vectors(run: Run, version: str, folder: Path, more: dict[str, Any]) -> dict[str, Any]:
    """Write the vectors, ids and seen items of a run, and `about.json` with the entries `more`.

    | file | holds |
    |---|---|
    | `user_vectors.npy`, `item_vectors.npy` | float32 [U, W] and [I, W] |
    | `user_ids.npy`, `item_ids.npy` | int64 [U] and [I], if the ids are integers |
    | `user_ids.json`, `item_ids.json` | a list of texts in UTF-8, for other ids |
    | `seen_starts.npy`, `seen_items.npy` | int64 [U + 1] and [M] |

    The seen items of user u are ``seen_items[seen_starts[u]:seen_starts[u + 1]]``.

    Raises
    ------
    ConfigError
        When the run has no vectors.
    """
    check_vectors(run)
    assert run.user_vectors is not None
    assert run.item_vectors is not None
    users, items = run.user_vectors.numpy(), run.item_vectors.numpy()
    log = run.interactions
    np.save(folder / "user_vectors.npy", users)
    np.save(folder / "item_vectors.npy", items)
    rows, seen = run.known.interacted_items(np.arange(log.n_users))
    np.save(folder / "seen_starts.npy", row_starts(np.bincount(rows, minlength=log.n_users)))
    np.save(folder / "seen_items.npy", seen)
    about = {
        "comet_rec": __version__,
        "version": version,
        "model": run.config.name,
        "preset": run.config.preset,
        "users": log.n_users,
        "items": log.n_items,
        "width": users.shape[1],
        "dtype": str(users.dtype),
        "user_ids": _write_ids(log.user_ids, folder, "user_ids"),
        "item_ids": _write_ids(log.item_ids, folder, "item_ids"),
        "seen": len(seen),
        "score": SCORE,
        **more,
    }
    write_json(folder / ABOUT, about)
    return about


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON in UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_ids(ids: Ids, folder: Path, name: str) -> dict[str, str]:
    """Write ids in the order of their indices; returns the name of the file and the type."""
    if ids.kind == "int":
        np.save(folder / f"{name}.npy", ids.values)
        return {"file": f"{name}.npy", "type": "int"}
    write_json(folder / f"{name}.json", ids.values.tolist())
    return {"file": f"{name}.json", "type": ids.kind}

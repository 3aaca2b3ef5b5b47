"""Popularity and two linear models on the same candidates, in plain numpy: how far one can get.

    python benchmarks/linear.py --data ml-100k --out results/linear-ml-100k.json

The item-item matrix is dense, so this is for small catalogues.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import comet_rec as cr
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import HeldOut
from comet_rec.datasets import catalog
from comet_rec.evaluation.metrics import figures
from comet_rec.evaluation.ranking import sampled_ranks
from machine import command, machine, write

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Dense:
    """Scores that are there already, [m, n]."""

    scores: Scores

    @property
    def n_items(self) -> int:
        """Number of items."""
        return int(self.scores.shape[1])

    def score_all(self, users: npt.NDArray[np.int64]) -> Scores:
        """Scores of all items."""
        return self.scores[users]

    def score_pairs(self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> Scores:
        """Scores of each user's own items."""
        return self.scores[users[:, None], items]


def models(log: Interactions) -> dict[str, Scores]:
    """Scores [m, n] of each model, trained on these rows."""
    x = np.zeros((log.n_users, log.n_items), dtype=np.float32)
    x[log.users, log.items] = 1
    found = {"popularity": np.broadcast_to(x.sum(axis=0), x.shape)}
    for penalty in (100, 300, 1000):
        inverse = np.linalg.inv(x.T @ x + penalty * np.eye(log.n_items))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        found[f"EASE {penalty}"] = (x @ weights).astype(np.float32)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    for rank in (10, 20, 40):
        found[f"SVD {rank}"] = (u[:, :rank] * s[:rank]) @ v[:rank]
    return found


def measured(scores: Scores, held: HeldOut) -> dict[str, float]:
    """HR and NDCG among the drawn candidates."""
    ranks = sampled_ranks(Dense(scores), held)
    return figures(ranks.better, ranks.tied)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="a catalog name or a file")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    log = cr.load(given.data) if catalog.is_name(given.data) else cr.read(given.data)
    split = cr.leave_one_out(log)
    result: dict[str, Any] = {
        "command": command(),
        "protocol": split.hash,
        "validation": {n: measured(s, split.validation) for n, s in models(split.train).items()},
        "test": {n: measured(s, split.test) for n, s in models(split.known).items()},
        "machine": machine(),
    }
    write(result, given.out)


if __name__ == "__main__":
    main()

"""The battery of `comet_rec.testing` on recommenders of the library implicit → one JSON file.

    make bench-peers                      # once, for the environment
    .venv-peers/bin/python benchmarks/battery_peers.py --out results/bench/battery-peers.json

The adapter translates ids to indices and back, and calls implicit as its documentation shows. It
checks no argument and repairs no result, so a check fails where implicit, or implicit behind so
thin a layer, does not do what the check asks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.cpu.als import AlternatingLeastSquares as StoredALS
from implicit.cpu.bpr import BayesianPersonalizedRanking as StoredBPR
from implicit.nearest_neighbours import CosineRecommender
from scipy.sparse import csr_matrix, load_npz, save_npz

from comet_rec.artefact.provenance import machine, versions
from comet_rec.testing import checks

SECONDS = 60
"""Seconds that a check may take."""
STORED = {"als": StoredALS, "bpr": StoredBPR, "cosine": CosineRecommender}


class Implicit:
    """Recommender of implicit, with the ids of a log."""

    users = items = np.zeros(0, dtype=str)

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.model = name, model

    def fit(self, log: Any) -> Implicit:
        """Train on the matrix of a log."""
        self.matrix = csr_matrix(log.matrix)
        self.users, self.items = plain_ids(log.user_ids), plain_ids(log.item_ids)
        self.model.fit(self.matrix, show_progress=False)
        return self

    def recommend(
        self, users: Any = None, k: int = 10, *, include_seen: bool = False, allow: Any = None,
        block: Any = None, **others: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Lists of known users."""
        self._refuse(others)
        users = self.users if users is None else list(users)
        rows = self._places(self.users, users)
        found = self.model.recommend(
            rows, self.matrix[rows], N=k, filter_already_liked_items=not include_seen,
            items=None if allow is None else self._places(self.items, allow),
            filter_items=None if block is None else self._places(self.items, block),
        )  # fmt: skip
        return self._table(users, *found)

    def recommend_for_history(
        self, histories: Any, k: int = 10, *, include_seen: bool = False, block: Any = None,
        **others: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Lists of new users, whose factors implicit computes from their items."""
        self._refuse(others)
        lists = [self._places(self.items, history) for history in histories]
        rows = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
        columns = np.concatenate([np.zeros(0, dtype=np.int64), *lists])
        shape = (len(lists), len(self.items))
        matrix = csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
        found = self.model.recommend(
            np.arange(len(lists)), matrix, N=k, filter_already_liked_items=not include_seen,
            recalculate_user=True,
            filter_items=None if block is None else self._places(self.items, block),
        )  # fmt: skip
        return self._table(list(range(len(lists))), *found)

    def score(self, users: Any, items: Any) -> Any:
        """Inner products of the factors of pairs."""
        if self.name == "cosine":
            raise NotImplementedError("implicit's neighbour models score lists, not pairs")
        of_users = self.model.user_factors[self._places(self.users, users)]
        of_items = self.model.item_factors[self._places(self.items, items)]
        return (of_users * of_items).sum(axis=1)

    def save(self, folder: Any) -> None:
        """Write the model with implicit's own function, and ids and matrix beside it."""
        folder = Path(folder)
        folder.mkdir(exist_ok=True)
        self.model.save(str(folder / "model.npz"))
        np.savez(folder / "ids.npz", users=self.users, items=self.items, name=self.name)
        save_npz(folder / "matrix.npz", self.matrix)

    @staticmethod
    def _refuse(others: dict[str, Any]) -> None:
        if others:
            raise NotImplementedError(f"implicit has no {', '.join(others)}")

    @staticmethod
    def _places(known: Any, ids: Any) -> Any:
        place = {value: number for number, value in enumerate(known.tolist())}
        return np.array([place[value] for value in ids], dtype=np.int64)

    def _table(self, users: Any, items: Any, scores: Any) -> dict[str, Any]:
        count = items.shape[1]
        return {
            "user_id": np.repeat(np.array(users, dtype=object), count),
            "item_id": self.items[items.ravel()],
            "score": scores.ravel(),
            "rank": np.tile(np.arange(1, count + 1), len(items)),
        }


def plain_ids(ids: Any) -> Any:
    """Ids of a log as an array of integers or of text, which NumPy can save."""
    return ids.values if ids.values.dtype.kind == "i" else ids.values.astype(str)


def load(folder: Any) -> Implicit:
    """What `Implicit.save` wrote."""
    ids = np.load(Path(folder) / "ids.npz")
    name = str(ids["name"])
    found = Implicit(name, STORED[name].load(str(Path(folder) / "model.npz")))
    found.users, found.items = ids["users"], ids["items"]
    found.matrix = load_npz(Path(folder) / "matrix.npz")
    return found


def limited(check: Any) -> tuple[str, str]:
    """Result of a check in a forked process, which may hang or die."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(check.result()))
    process.start()
    theirs.close()  # so that a process that dies ends the wait
    try:
        return ours.recv() if ours.poll(SECONDS) else ("failed", f"no answer in {SECONDS} s")
    except EOFError:
        process.join()
        return "failed", f"the process died (exit status {process.exitcode})"
    finally:
        process.kill()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    common = {"use_gpu": False, "num_threads": 1, "random_state": 0}
    models = {
        "als": AlternatingLeastSquares(factors=16, iterations=15, **common),
        "bpr": BayesianPersonalizedRanking(
            factors=16, iterations=200, learning_rate=0.05, **common
        ),
        "cosine": CosineRecommender(K=20, num_threads=1),
    }
    results = {}
    for name, model in models.items():
        found = [(check, *limited(check)) for check in checks(Implicit(name, model), load=load)]
        results[name] = {
            "passed": sum(outcome == "passed" for _, outcome, _ in found),
            "not offered": [check.name for check, outcome, _ in found if outcome == "not offered"],
            "failed": {
                check.name: {"asks": check.about, "reason": reason}
                for check, outcome, reason in found
                if outcome == "failed"
            },
        }
        print(name, results[name]["passed"], "passed,", len(results[name]["failed"]), "failed")
        for check, about in results[name]["failed"].items():
            print("  ", check, "·", about["reason"])
    about = {
        "command": f"python benchmarks/battery_peers.py --out {given.out}",
        "versions": {**versions(), "implicit": sys.modules["implicit"].__version__},
        "machine": machine(),
    }
    given.out.write_text(json.dumps({**about, "battery": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

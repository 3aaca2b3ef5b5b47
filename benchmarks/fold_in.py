r"""How good lists of new users are: folded in from a history, beside the same users trained on.

    python benchmarks/fold_in.py --data ml-1m.parquet --python .venv-peers/bin/python \
        --out results/bench/fold-in.json

Each model is trained twice on all rows but each user's latest item: with all users, and without a
random 20 % of the users. These users are then folded in from all but their latest item, and that
item is ranked, among 99 sampled negatives and among all items. So both trainings are measured on
the same users, items and candidates. implicit's ALS runs in an environment of its own, which
`make bench-peers` builds; its fold-in is `recalculate_user`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ALS: dict[str, Any] = {"factors": 64, "alpha": 5.0, "regularization": 10.0, "iterations": 30}
"""Settings of implicit's ALS, as in `contestants.py`, with enough iterations to settle."""


def als(folder: Path) -> None:
    """Train implicit's ALS on all users and without the new ones, and fold the new ones in."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # implicit asks for this: it has its own threads
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    rows = np.load(folder / "rows.npz")
    n_users, n_items = rows["shape"].tolist()
    ones = np.ones(len(rows["users"]), dtype=np.float32)
    every = csr_matrix((ones, (rows["users"], rows["items"])), shape=(n_users, n_items))
    is_new = np.zeros(n_users, dtype=bool)
    is_new[rows["new_users"]] = True
    vectors: dict[str, np.ndarray] = {}
    for way, matrix in (("trained", every), ("folded_in", every[~is_new])):
        start = time.perf_counter()
        model = AlternatingLeastSquares(random_state=0, use_gpu=False, num_threads=1, **ALS)
        model.fit(matrix, show_progress=False)
        vectors[f"{way}.seconds"] = np.array(time.perf_counter() - start)
        if way == "trained":
            users = model.user_factors[rows["new_users"]]
        else:
            users = model.recalculate_user(np.arange(is_new.sum()), every[is_new])
        vectors[f"{way}.users"], vectors[f"{way}.items"] = users, model.item_factors
    np.savez(folder / "vectors.npz", **vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="Parquet: user_id, item_id, timestamp")
    parser.add_argument("--share", type=float, default=0.2, help="share of the users left out")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=NUMBER", help="settings of COMET"
    )
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv-peers/bin/python", help="with implicit"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--als", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.als:
        als(given.als)
        return

    import torch

    import comet_rec as cr
    from comet_rec.data.split import HeldOut
    from comet_rec.estimators.lists import folded_in
    from comet_rec.evaluation.ranking import full_ranks, sampled_ranks
    from comet_rec.evaluation.scoring import VectorScores
    from machine import command, machine, write

    settings: dict[str, Any] = {}
    for each in given.set:
        name, number = each.split("=")
        settings[name] = int(number)
    split = cr.leave_one_out(cr.read(given.data))
    log, known = split.interactions, split.known
    rng = np.random.default_rng(0)
    test = split.test
    places = np.sort(rng.permutation(len(test))[: round(given.share * len(test))])
    new_users = test.users[places]  # [T]
    held = HeldOut(new_users, test.positives[places], test.candidates[places])
    starts = known.user_starts
    histories = [known.items[starts[u] : starts[u + 1]].astype(np.int64) for u in new_users]

    def measured(users: torch.Tensor, items: torch.Tensor, seconds: float) -> dict[str, float]:
        """Figures of the new users, from their vectors [T, W] and all item vectors [n, W]."""
        every = torch.zeros(log.n_users, users.shape[1])
        every[torch.from_numpy(new_users)] = users
        scores = VectorScores(every, items)
        ranks = {"sampled": sampled_ranks(scores, held), "full": full_ranks(scores, held, known)}
        figures = {
            f"{kind} {name}": float(ranks[kind].figure(name, "expected").mean())
            for kind in ranks
            for name in ("HR@10", "NDCG@10")
        }
        return {**figures, "training_seconds": seconds}

    def of_comet() -> dict[str, dict[str, float]]:
        figures = {}
        others = known.select(~np.isin(known.users, new_users))
        for way, rows in (("trained", known), ("folded_in", others)):
            start = time.perf_counter()
            run = cr.COMET(seed=0, **settings).fit(rows, progress=True).run
            seconds = time.perf_counter() - start
            assert run.user_vectors is not None
            assert run.item_vectors is not None
            users = run.user_vectors[torch.from_numpy(new_users)]
            if way == "folded_in":
                found = folded_in(run, histories, torch.device("cpu"))
                assert isinstance(found, torch.Tensor)
                users = found
            figures[way] = measured(users, run.item_vectors, seconds)
            print(way, json.dumps(figures[way]), flush=True)
        return figures

    def of_als() -> dict[str, dict[str, float]]:
        with tempfile.TemporaryDirectory() as place:
            shape = np.array([log.n_users, log.n_items])
            rows = {"users": known.users, "items": known.items, "new_users": new_users}
            np.savez(Path(place) / "rows.npz", shape=shape, **rows)
            program = [str(given.python.absolute()), str(Path(__file__).absolute())]
            subprocess.run([*program, "--data", "", "--als", place], check=True)
            found = dict(np.load(Path(place) / "vectors.npz"))
        vectors = {name: torch.from_numpy(array) for name, array in found.items()}
        return {
            way: measured(
                vectors[f"{way}.users"], vectors[f"{way}.items"], float(vectors[f"{way}.seconds"])
            )
            for way in ("trained", "folded_in")
        }

    result: dict[str, Any] = {
        "command": command(), "users": log.n_users, "new_users": len(new_users),
        "settings": {"COMET": {"preset": "auto", **settings}, "implicit ALS": ALS},
        "models": {}, "machine": machine(),
    }  # fmt: skip
    for name, both in (("implicit ALS", of_als), ("COMET", of_comet)):
        figures: dict[str, Any] = dict(both())
        figures["lost"] = {
            key: figures["trained"][key] - figures["folded_in"][key]
            for key in figures["trained"]
            if key != "training_seconds"
        }
        result["models"][name] = figures
        write(result, given.out)


if __name__ == "__main__":
    main()

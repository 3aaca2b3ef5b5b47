"""Items that were left out of training, placed by their titles and genres alone.

    python benchmarks/cold_items.py ratings.dat --columns 1 2 4 --most-user 500 --films movies.dat \
        --out results/bench/cold-items.json

A fifth of the items is left out of the log, at random, and COMET is trained on the rest. Then the
left-out items join the catalogue with their features, without a row. For each user who took some of
them, all left-out items are ranked. The area under the ROC curve is the share of (taken, not taken)
pairs in the right order: 0.5 by chance. `films` has lines ID::TITLE::GENRES, in Latin-1.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

import comet_rec as cr
from machine import command, machine, write
from updates import interval, joined, log_of, rows_of


def films(path: Path, ids: list[int]) -> dict[str, list[object]]:
    """Title, year and genres of the films with these ids."""
    lines = path.read_text("latin-1").splitlines()
    found = {int(line.split("::")[0]): line.split("::")[1:] for line in lines}
    texts = [found[item] for item in ids]
    return {
        "item": ids,
        "title": [title[:-7] for title, _ in texts],
        "year": [float(title[-5:-1]) for title, _ in texts],
        "genres": [genres for _, genres in texts],
    }


def areas(model: cr.COMET, users: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each user, [U].

    Parameters
    ----------
    users : array [U]
        User ids.
    taken : bool [U, C]
        Which of the left-out items each user took.
    """
    scores = np.stack([model.score([user] * taken.shape[1], model_items(model)) for user in users])
    out = []
    for line, mask in zip(scores, taken, strict=True):
        positive, negative = line[mask][:, None], line[~mask][None, :]
        out.append(((positive > negative) + 0.5 * (positive == negative)).mean())
    return np.array(out)


def model_items(model: cr.COMET) -> list[int]:
    """Items of the model's log without rows."""
    log = model.run.interactions
    cold = np.bincount(log.items, minlength=log.n_items) == 0
    return log.item_ids.values[cold].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log")
    parser.add_argument("--columns", nargs=3, required=True, help="columns: user item time")
    parser.add_argument("--most-user", type=int, help="keep only users up to this number")
    parser.add_argument("--films", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    log = log_of(given.log, given.columns, given.most_user)
    rng = np.random.default_rng(0)
    cold = np.sort(rng.permutation(log.n_items)[: log.n_items // 5])
    is_cold = np.isin(log.items, cold)
    model = cr.COMET(seed=0).fit(joined([rows_of(log, np.flatnonzero(~is_cold))]))

    known = model.run.interactions.user_ids
    pairs = np.zeros((log.n_users, log.n_items), dtype=bool)
    pairs[log.users[is_cold], log.items[is_cold]] = True
    usable = pairs.any(axis=1) & (known.index(log.user_ids.values) >= 0)
    users, taken = log.user_ids.values[usable], pairs[usable][:, cold]
    ids = log.item_ids.values
    found = {}
    for name, columns in {
        "title, year, genres": ("title", "year", "genres"),
        "genres": ("genres",),
        "title": ("title",),
        "nothing (one vector for all)": (),
    }.items():
        table = films(given.films, ids.tolist())
        kept = {key: table[key] for key in ("item", *columns)}
        if not columns:
            kept["same"] = [1.0] * len(ids)
        fresh = type(model)(seed=0)
        fresh._run = model.run
        of_users = areas(fresh.update(None, items=kept), users, taken)
        found[name] = {
            "area": round(float(of_users.mean()), 4),
            "interval": interval(of_users, np.arange(len(users))),
        }
        print(name, found[name], flush=True)
    write(
        {
            "command": command(),
            "machine": machine(),
            "items left out": len(cold),
            "users": len(users),
            "rows": int(taken.sum()),
            "features": found,
        },
        given.out,
    )


if __name__ == "__main__":
    main()

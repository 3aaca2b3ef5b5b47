"""Updates of a trained model beside trainings from the start, on the last tenth of a log by time.

    python benchmarks/updates.py ml-100k --keep kept --out results/bench/updates.json
    python benchmarks/updates.py ratings.dat --columns 1 2 4 --most-user 1000 --keep kept --out …

The last 10 % of the rows are cut into eleven parts. The model knows the rows before them. It learns
ten parts, one after another: by `update`, or by a training from the start on all rows so far. After
each part, the rows of the next one are predicted. NDCG@10 is the mean of 1 / log2(1 + rank) over
these rows, where rank counts the items that the user has not taken; beyond rank 10, and for items
that the model does not know, it is 0. Rows of users that are not known yet are left out, and
counted. Intervals of 95 % come from resampling users. Costs are CPU seconds of one thread.

Trainings from the start take hours; runs in the folder `--keep` are used again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

import comet_rec as cr
from comet_rec.artefact.run import Run
from comet_rec.data.interactions import Interactions
from comet_rec.evaluation.scoring import run_scores
from machine import command, machine, write

Rows = dict[str, Any]
UPDATES, SHARE = 10, 0.1


def log_of(source: str, columns: list[str], most_user: int | None) -> Interactions:
    """Read a named data set or a file; keep only users up to the number `most_user`."""
    if not columns:
        return cr.load(source)
    log = cr.read(source, user=columns[0], item=columns[1], time=columns[2])
    if most_user is None:
        return log
    return joined([rows_of(log, np.flatnonzero(log.user_ids.values[log.users] <= most_user))])


def rows_of(log: Interactions, rows: np.ndarray) -> Rows:
    """Some rows of a log, as columns of ids and times."""
    return {
        "user": log.user_ids.external(log.users[rows]),
        "item": log.item_ids.external(log.items[rows]),
        "time": log.times[rows],
    }


def parts_of(log: Interactions) -> list[Rows]:
    """The rows in the order of time: the first 90 %, then eleven equal parts of the rest."""
    order = np.lexsort((log.items, log.users, log.times))
    cuts = np.linspace((1 - SHARE) * len(order), len(order), UPDATES + 2).astype(int)
    pieces = np.split(order, cuts[:-1])
    return [rows_of(log, rows) for rows in pieces]


def joined(parts: list[Rows]) -> Interactions:
    """A log of several parts."""
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return cr.read(rows, user="user", item="item", time="time")


def gains(run: Run, rows: Rows) -> np.ndarray:
    """Gain of each row, 1 / log2(1 + rank) or 0; NaN if the model does not know the user."""
    log = run.interactions
    users, items = log.user_ids.index(rows["user"]), log.item_ids.index(rows["item"])
    out = np.where(users >= 0, 0.0, np.nan)  # an unknown item is a miss
    scores = run_scores(run)
    for user in np.unique(users[users >= 0]).tolist():
        line = scores.score_all(np.array([user]))[0].astype(float)  # [n]
        line[run.known.interacted_items(np.array([user]))[1]] = -np.inf
        for row in np.flatnonzero((users == user) & (items >= 0)).tolist():
            score = line[items[row]]
            rank = 1 + (line > score).sum() + ((line == score).sum() - 1) / 2
            out[row] = 1 / np.log2(1 + rank) if rank <= 10 else 0.0
    return out


def trained(log: Interactions, place: Path) -> tuple[cr.COMET, float]:
    """Model of the default preset trained on all rows of a log, and its CPU seconds."""
    seconds = place.with_suffix(".seconds")
    if seconds.exists():
        return cr.load_model(place), float(seconds.read_text())
    began = time.process_time()
    model = cr.COMET(seed=0).fit(log)
    spent = time.process_time() - began
    model.save(place)
    seconds.write_text(str(spent))
    print(f"{place.name}: {log}, {spent:.0f} s", file=sys.stderr, flush=True)
    return model, spent


Step = Callable[[int], tuple[Run, float]]
"""Function from the number of learned parts to a model's run, and the CPU seconds that it took."""


def replay(parts: list[Rows], step: Step) -> dict[str, Any]:
    """Gains of the rows of each next part, [R], and the CPU seconds of the ten steps."""
    found, seconds = [], []
    for learned in range(1, UPDATES + 1):
        run, spent = step(learned)
        seconds.append(spent)
        found.append(gains(run, parts[learned + 1]))
    return {"gains": np.concatenate(found), "seconds": seconds}


def by_updates(parts: list[Rows], first: Path, **options: Any) -> Step:
    """Updates with one part after another."""
    model = cr.load_model(first)

    def step(learned: int) -> tuple[Run, float]:
        rows = joined(parts[learned : learned + 1])
        began = time.process_time()
        model.update(rows, progress=False, **options)
        return model.run, time.process_time() - began

    return step


def interval(gains: np.ndarray, users: np.ndarray) -> list[float]:
    """Interval of 95 % of the mean gain, by resampling users 2,000 times."""
    known = ~np.isnan(gains)
    _, place = np.unique(users[known], return_inverse=True)
    sums, counts = np.bincount(place, gains[known]), np.bincount(place)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(sums), size=(2000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [round(float(value), 4) for value in np.quantile(means, [0.025, 0.975])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", help="name of a data set, or a file with --columns")
    parser.add_argument("--columns", nargs=3, default=[], help="columns: user item time")
    parser.add_argument("--most-user", type=int, help="keep only users up to this number")
    parser.add_argument("--epochs", type=int, nargs="*", default=[], help="more numbers of epochs")
    parser.add_argument("--keep", type=Path, required=True, help="folder for trained runs")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    name = Path(given.log).name.split(".")[0]
    keep = given.keep / name
    keep.mkdir(parents=True, exist_ok=True)
    log = log_of(given.log, given.columns, given.most_user)
    parts = parts_of(log)
    _, first_seconds = trained(joined(parts[:1]), keep / "first")
    ways = {
        "trained from the start": lambda n: _run_and_seconds(
            trained(joined(parts[: n + 1]), keep / f"retrained-{n}")
        ),
        "update": by_updates(parts, keep / "first"),
    }
    for epochs in given.epochs:
        ways[f"update, {epochs} epochs"] = by_updates(parts, keep / "first", epochs=epochs)
    users = np.concatenate([part["user"] for part in parts[2:]])
    found = {way: replay(parts, step) for way, step in ways.items()}
    best = found["trained from the start"]
    table = {}
    for way, each in found.items():
        seconds = float(np.mean(each["seconds"]))
        mean, difference = np.nanmean(each["gains"]), each["gains"] - best["gains"]
        table[way] = {
            "NDCG@10": round(float(mean), 4),
            "interval": interval(each["gains"], users),
            "share of trained from the start": round(float(mean / np.nanmean(best["gains"])), 3),
            "difference": round(float(np.nanmean(difference)), 4),
            "interval of the difference": interval(difference, users),
            "CPU seconds": round(seconds, 2),
            "share of the cost": round(seconds / float(np.mean(best["seconds"])), 4),
        }
        print(way, table[way], file=sys.stderr, flush=True)
    # One file for all logs: the other ones keep their figures.
    logs = {}
    if given.out is not None and given.out.exists():
        logs = json.loads(given.out.read_text())["updates"]
    logs[name] = {
        "command": command(),
        "machine": machine(),
        "first": {"rows": len(parts[0]["user"]), "CPU seconds": round(first_seconds, 1)},
        "users": int(log.n_users),
        "rows": len(users),
        "rows of known users": int((~np.isnan(best["gains"])).sum()),
        "ways": table,
    }
    write({"updates": logs}, given.out)


def _run_and_seconds(found: tuple[cr.COMET, float]) -> tuple[Run, float]:
    return found[0].run, found[1]


if __name__ == "__main__":
    main()

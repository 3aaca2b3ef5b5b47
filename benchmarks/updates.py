"""Updates of a trained model beside trainings from the start, on the last tenth of a log by time.

    python benchmarks/updates.py ml-100k --keep kept/ml-100k --out results/bench/updates.json

The last 10 % of the rows arrive in ten parts. The model knows the rows before them. Each part is
first predicted, then learned: by `update`, or by a training from the start on all rows so far. A
row of the next part is a hit if its item is among the ten best that its user has not seen. Rows of
users that no model knows are left out, and counted. NDCG@10 is the mean of 1 / log2(1 + rank) over
the rows (0 beyond rank 10), and its interval comes from resampling users. Costs are CPU seconds.

Trainings from the start take hours on large logs; the runs in the folder `--keep` are used again.
"""

from __future__ import annotations

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

Rows = dict[str, Any]
UPDATES, SHARE = 10, 0.1


def parts_of(log: Interactions) -> list[Rows]:
    """The rows in the order of time: the first 90 %, then eleven equal parts of the rest."""
    order = np.lexsort((log.items, log.users, log.times))
    cuts = np.linspace((1 - SHARE) * len(order), len(order), UPDATES + 2).astype(int)
    pieces = np.split(order, cuts[:-1])
    return [
        {
            "user": log.user_ids.external(log.users[rows]),
            "item": log.item_ids.external(log.items[rows]),
            "time": log.times[rows],
        }
        for rows in pieces
    ]


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
        line = scores.score_all(np.array([user]))[0].astype(float)
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


Step = Callable[[int, list[Rows]], tuple[Run, float]]


def replay(parts: list[Rows], step: Step) -> tuple[np.ndarray, float]:
    """Gains of the rows of each next part, [R], and the CPU seconds of all steps.

    `step` takes the number of learned parts and the parts, and returns the model's run.
    """
    found, seconds = [], 0.0
    for learned in range(1, len(parts) - 1):
        run, spent = step(learned, parts)
        seconds += spent
        found.append(gains(run, parts[learned + 1]))
    return np.concatenate(found), seconds


def from_the_start(keep: Path) -> Step:
    """A training from the start on all rows so far."""

    def step(learned: int, parts: list[Rows]) -> tuple[Run, float]:
        model, spent = trained(joined(parts[: learned + 1]), keep / f"retrained-{learned}")
        return model.run, spent

    return step


def by_updates(keep: Path, options: dict[str, Any]) -> Step:
    """An update with the rows of the last learned part."""
    model, _ = trained(joined([]), keep / "first") if False else (cr.load_model(keep / "first"), 0)

    def step(learned: int, parts: list[Rows]) -> tuple[Run, float]:
        began = time.process_time()
        model.update(joined(parts[learned : learned + 1]), **options)
        return model.run, time.process_time() - began

    return step

"""What each part of COMET's preset `best` is worth: `best` without one part at a time → JSON.

    python runs/steps.py LOG --name ml-1m --set embedding_dim=128 --set 'hidden=[256]' \
        --set epochs=3 --set full_epochs=3 --out results/steps-ml-1m.json

Each row is `auto` (`best` without a refit), changed in one thing, and trained several times. The
validation items choose the epoch. Differences from the first row are of the full ranking of test
items, over users and trainings, with p values after Holm within a metric. --set changes all rows.
Without layers, several things go: the residual, norms, dropout of embeddings, filters that begin as
moving averages, and h = 1.
The row "without an order" trains and is tested on histories in a random order: the rows of each
user but the last two, which are the validation item and the test item, are permuted.
Finished trainings in --runs are used again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import comet_rec as cr
from comet_rec.artefact.provenance import machine, versions
from comet_rec.data.interactions import Interactions
from comet_rec.evaluation.paired import Noise, holm, over_trainings
from sequences import figures

ORDER = "without an order"
ROWS: dict[str, dict[str, Any]] = {
    "best": {},
    ORDER: {},
    "binary cross-entropy with 8 negatives": {"loss": "bce", "negatives": 8},
    "no layers: the paper's tower": {"layers": 0},
    "the latest 10 items": {"history_length": 10},
}
"""Row of the table → settings that it changes."""
METRICS = ("full HR@10", "full NDCG@10")


def without_order(log: Interactions) -> Interactions:
    """The log with the rows of each user but the last two in a random order."""
    rng = np.random.default_rng(0)
    items = log.items.copy()
    for start, end in zip(log.user_starts[:-1], log.user_starts[1:], strict=True):
        rng.shuffle(items[start : max(end - 2, start)])
    return replace(log, items=items)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--time-scope", default="per_user")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    log = cr.read(given.log, time_scope=given.time_scope)
    shared = {key: json.loads(value) for key, value in (x.split("=", 1) for x in given.set)}
    runs = given.runs or Path("runs/local/steps") / given.name
    rows, arrays = [], {}
    for number, (label, changed) in enumerate(ROWS.items()):
        split = cr.leave_one_out(without_order(log) if label == ORDER else log)
        folder = runs / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        print(label, flush=True)
        about, arrays[label] = figures(
            "comet", given.seeds, split, shared | changed, folder, "comet"
        )
        rows.append({"row": label, **about})
    first, *others = arrays
    for metric in METRICS:
        noise = Noise.largest(each[metric] for each in arrays.values())
        tests = [
            over_trainings(arrays[first][metric], arrays[label][metric], (noise, noise))
            for label in others
        ]
        corrected = holm([1.0 if test.p is None else test.p for test in tests])
        for about, test, p in zip(rows[1:], tests, corrected, strict=True):
            about.setdefault("less than best", {})[metric] = {
                "difference": test.difference, "low": test.low, "high": test.high,
                "p": None if test.p is None else p,
            }  # fmt: skip
    result = {
        "title": given.name, "command": shlex.join(["python", *sys.argv]), "versions": versions(),
        "machine": machine(), "settings of all rows": shared, "rows": rows,
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Seconds until a full NDCG@10 of the validation items: COMET, SASRec, and RecTools' SASRec.

    python -m venv .venv-rectools
    .venv-rectools/bin/pip install "rectools[torch]==0.19.0" torch==2.13.0
    python benchmarks/race.py LOG --peer .venv-rectools/bin/python --out results/bench/race.json

COMET and SASRec have the preset `auto`. RecTools' model has a full softmax, N = 200, K = 128, two
blocks, two heads, dropout .2, batches of 128 users and Adam at .001. All use all threads, one after
another, and rank the validation items after each epoch. A model stops at --target, or after the
epoch in which --cap seconds are over. Seconds of COMET and SASRec are those of training steps.
Those of RecTools include the preparation of its data, which each call repeats. COMET and SASRec
multiply in bfloat16 where the CPU can, RecTools in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

K, N, HEADS, BLOCKS, DROPOUT, RATE, USERS = 128, 200, 2, 2, 0.2, 1e-3, 128


def ours(name: str, log: Path, rows: Path, target: float, cap: float) -> list[dict[str, float]]:
    """Train a model of this library, and write the training rows to `rows` for the peer."""
    import comet_rec as cr
    from comet_rec.errors import TrainingInterrupted
    from comet_rec.estimators.registry import ESTIMATORS
    from comet_rec.training.checkpoints import Hooks

    split = cr.leave_one_out(cr.read(log, time_scope="per_user"))
    train, held = split.train, split.validation
    np.savez(
        rows, users=train.users, items=train.items, held_users=held.users, positives=held.positives
    )
    epochs: list[dict[str, float]] = []

    def report(stage: str, progress: Any) -> None:
        if not progress.finished_epoch:
            return
        figures = {"HR@10": 0.0, "NDCG@10": 0.0}  # of the second model of a blend only time counts
        if stage == "validation":
            figures = {key: progress.validation[f"full {key}"] for key in figures}
        epochs.append({"seconds": progress.train_seconds, **figures})

    hooks = Hooks(report=report, stop=lambda: bool(epochs) and over(epochs, target, cap))
    with contextlib.suppress(TrainingInterrupted):
        ESTIMATORS[name](preset="auto").fit(split, hooks=hooks)
    return epochs


def peer(rows: Path, target: float, cap: float) -> list[dict[str, float]]:
    """Train RecTools' SASRec on the rows that `ours` wrote."""
    import pandas as pd
    from pytorch_lightning import Trainer, seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    seed_everything(0)
    data = np.load(rows)
    order = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(data["users"])), unit="s")
    frame = {"user_id": data["users"], "item_id": data["items"], "weight": 1.0, "datetime": order}
    dataset = Dataset.construct(pd.DataFrame(frame))

    def trainer() -> Any:
        return Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False,
        )  # fmt: skip

    model = SASRecModel(
        n_blocks=BLOCKS, n_heads=HEADS, n_factors=K, dropout_rate=DROPOUT, session_max_len=N,
        loss="softmax", lr=RATE, batch_size=USERS, epochs=1, get_trainer_func=trainer,
        pos_encoding_kwargs={"use_scale_factor": True},
    )  # fmt: skip
    positives = dict(zip(data["held_users"].tolist(), data["positives"].tolist(), strict=True))
    epochs: list[dict[str, float]] = []
    while not epochs or not over(epochs, target, cap):
        began = time.perf_counter()
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        seconds = time.perf_counter() - began
        lists = model.recommend(data["held_users"], dataset, k=10, filter_viewed=True)
        ranked = zip(lists["user_id"], lists["item_id"], lists["rank"], strict=True)
        ranks = [rank for user, item, rank in ranked if positives[user] == item]
        gains = (1 / np.log2(1 + np.array(ranks))).sum()
        found = {"HR@10": len(ranks) / len(positives), "NDCG@10": gains / len(positives)}
        epochs.append({"seconds": seconds, **found})
    return epochs


def over(epochs: list[dict[str, float]], target: float, cap: float) -> bool:
    """Whether the last epoch reached the target, or all epochs the cap of seconds."""
    return epochs[-1]["NDCG@10"] >= target or sum(each["seconds"] for each in epochs) >= cap


def main() -> None:
    """Run each model in a process of its own, print its epochs, and write them to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--peer", type=Path, help="Python with RecTools")
    parser.add_argument("--target", type=float, default=0.15)
    parser.add_argument("--cap", type=float, default=600)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=("comet", "sasrec", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "peer":
        print(json.dumps(peer(given.rows, given.target, given.cap)))
        return
    if given.part:
        print(json.dumps(ours(given.part, given.log, given.rows, given.target, given.cap)))
        return
    from machine import command, machine, write

    result: dict[str, Any] = {"command": command(), "machine": machine(), "target": given.target}
    with tempfile.TemporaryDirectory() as folder:
        for part in ("comet", "sasrec", *(["peer"] if given.peer else [])):
            python = str(given.peer) if part == "peer" else sys.executable
            arguments = [*sys.argv[1:], "--part", part, "--rows", str(Path(folder) / "rows.npz")]
            done = subprocess.run(
                [python, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
            )
            epochs = json.loads(done.stdout.splitlines()[-1])
            total = sum(each["seconds"] for each in epochs)
            reached = epochs[-1]["NDCG@10"] >= given.target
            result[part] = {"reached": reached, "seconds": total, "epochs": epochs}
            print(part, f"{total:.0f} s,", epochs[-1], flush=True)
    write(result, given.out)


if __name__ == "__main__":
    main()

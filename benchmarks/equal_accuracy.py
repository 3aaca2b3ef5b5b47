"""Validation accuracy of faster batches beside that of uniform ones, epoch by epoch.

    python benchmarks/equal_accuracy.py --data ml-1m.parquet --out results/bench/equal-accuracy.json

The paper's setting, trained with batches drawn uniformly and with several positives of a user
together, each with the same seeds; NDCG@10 of the validation items after the epochs asked for, its
standard error over users, and the seconds of training until then.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

import comet_rec as cr
from comet_rec.config import Config
from comet_rec.data.histories import input_histories
from comet_rec.data.split import Split
from comet_rec.estimators.presets import preset
from comet_rec.evaluation.ranking import Report, sampled_ranks
from comet_rec.evaluation.scoring import model_scores
from comet_rec.models import base
from comet_rec.random import torch_seed
from comet_rec.training.fit import batches_of
from comet_rec.training.trainer import Progress, Trainer
from machine import command, machine, write


def curve(split: Split, config: Config) -> list[dict[str, float]]:
    """NDCG@10 of the validation items, its standard error, and seconds trained, each epoch."""
    log, seed = split.train, config.seed
    model = base.build(
        config.name, config.model, log.n_users, log.n_items, torch_seed(seed, "parameters")
    )
    histories = input_histories(log, model.histories)
    found: list[dict[str, float]] = []

    def validate() -> dict[str, float]:
        ranks = sampled_ranks(model_scores(model, log, histories), split.validation)
        report = Report("", {}, split.validation.users, ranks, None)
        assert report.sampled_se is not None
        found.append({"ndcg": report.sampled["NDCG@10"], "error": report.sampled_se["NDCG@10"]})
        return report.sampled

    def note(progress: Progress) -> None:
        if progress.finished_epoch:
            found[-1]["seconds"] = progress.train_seconds
            print(f"seed {seed}, epoch {progress.epoch}: {found[-1]}", file=sys.stderr, flush=True)

    Trainer(
        model, batches_of(log, config, model), config.train, seed=seed,
        device=torch.device("cpu"), validate=validate, report=note,
    ).run()  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="Parquet: user_id, item_id, timestamp")
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--together", type=int, default=4, help="positives of a user together")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    split = cr.leave_one_out(cr.read(given.data))
    settings: dict[str, Any] = {
        "train.batch_size": 8192, "train.learning_rate": 1e-3, "train.warmup": 0.0,
        "train.average": 0.0,
    }  # fmt: skip
    settings |= dict(pair.split("=", 1) for pair in given.set)
    settings |= {"train.epochs": max(given.epochs), "train.patience": 0}
    paper = preset("paper", "comet", split.interactions).with_settings(settings)
    ways = {"uniform": 1, "together": given.together}
    rows = []
    for seed in given.seeds:
        curves = {}
        for way, together in ways.items():
            config = paper.with_settings({"train.positives_per_user": together})
            curves[way] = curve(split, Config(**{**vars(config), "seed": seed}))
        for epochs in given.epochs:
            row: dict[str, Any] = {"seed": seed, "epochs": epochs}
            for way, found in curves.items():
                row[way] = found[epochs - 1]["ndcg"]
                row[f"{way}_seconds"] = sum(epoch["seconds"] for epoch in found[:epochs])
            row["standard_error"] = curves["uniform"][epochs - 1]["error"]
            rows.append(row)
    result = {
        "command": command(),
        "positives_per_user": given.together,
        "rows": rows,
        "machine": machine(),
    }
    write(result, given.out)


if __name__ == "__main__":
    main()

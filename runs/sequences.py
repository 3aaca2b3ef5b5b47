"""COMET beside the sequence model and the linear model, three trainings each → one JSON file.

    python runs/sequences.py LOG --name ml-1m --out results/sequences-ml-1m.json

All models have their preset `auto` (`best` without a refit), changed by --set LABEL:KEY=VALUE. A
model may have several rows: --models comet,alone:comet has a row of COMET with the label `alone`.
The validation items choose the epochs. The script prints figures of test items: choose no setting
by them. Figures are means over trainings; each model is tested against the first on the full
ranking, over users and trainings, corrected after Holm within each metric. Finished trainings in
--runs are used again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import comet_rec as cr
from comet_rec.artefact.provenance import machine, versions
from comet_rec.data.split import Split
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.evaluation.paired import SILENT, Noise, holm, over_trainings
from comet_rec.models import base

METRICS = ("HR@10", "NDCG@10")


def trained(name: str, seed: int, split: Split, settings: dict[str, Any], folder: Path) -> Any:
    """The model of one training, from its folder if it is there."""
    model = ESTIMATORS[name](preset="auto", seed=seed, **settings)
    if folder.is_dir():
        kept, wanted = cr.load_model(folder), model.config_for(split.interactions)
        parts = ("model", "blend", "train")
        alike = all(getattr(kept.run.config, x) == getattr(wanted, x) for x in parts)
        if not alike or kept.run.interactions.fingerprint != split.interactions.fingerprint:
            sys.exit(f"{folder}: of other settings or another log; remove it, or give --runs")
        return kept
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(split)
    model.save(folder)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    (folder.parent / f"{folder.name}.seconds.json").write_text(json.dumps(seconds))
    return model


def figures(
    name: str, seeds: list[int], split: Split, settings: dict[str, Any], runs: Path, label: str
) -> Any:
    """Mean figures of all trainings, and the values of each user, [trainings, T] a metric."""
    values: dict[str, list[Any]] = {
        f"{kind} {m}": [] for kind in ("full", "sampled") for m in METRICS
    }
    validation, epochs, seconds = [], [], []
    for seed in seeds:
        folder = runs / f"{label}-{seed}"
        model = trained(name, seed, split, settings, folder)
        report = cr.evaluate(model, split)
        for metric in METRICS:
            values[f"full {metric}"].append(report.full_ranks.figure(metric, report.ties))
            values[f"sampled {metric}"].append(report.sampled_ranks.figure(metric, report.ties))
        chosen = [x["validation"] for x in model.run.log if x["stage"] == "validation"]
        found = [x["full NDCG@10"] for x in chosen if "full NDCG@10" in x]
        validation.append(max(found, default=None))
        epochs.append(model.run.epochs)
        kept = folder.parent / f"{folder.name}.seconds.json"
        seconds.append(json.loads(kept.read_text()) if kept.is_file() else None)
        print(
            label, seed, {k: round(float(v[-1].mean()), 4) for k, v in values.items()}, flush=True
        )
    arrays = {key: np.array(rows) for key, rows in values.items()}
    about = {
        "model": label, "settings": settings, "config": model.run.config.changed(), "seeds": seeds,
        "epochs": epochs, "seconds": seconds, "validation full NDCG@10": validation,
        "means": {key: float(rows.mean()) for key, rows in arrays.items()},
        "trainings": {key: rows.mean(axis=1).tolist() for key, rows in arrays.items()},
        "standard error over users": {
            key: float(rows.mean(axis=0).std(ddof=1) / np.sqrt(rows.shape[1]))
            for key, rows in arrays.items()
        },
    }  # fmt: skip
    return about, arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log")
    parser.add_argument("--name", required=True)
    parser.add_argument("--models", default="comet,sasrec,ease")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="LABEL:KEY=VALUE")
    parser.add_argument("--time-scope", default="per_user")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    log = (
        cr.load(given.log)
        if not Path(given.log).exists()
        else cr.read(given.log, time_scope=given.time_scope)
    )
    split = cr.leave_one_out(log)
    runs = given.runs or Path("runs/local/sequences") / given.name
    runs.mkdir(parents=True, exist_ok=True)
    settings: dict[str, dict[str, Any]] = {}
    for text in given.set:
        label, setting = text.split(":", 1)
        key, value = setting.split("=", 1)
        settings.setdefault(label, {})[key] = json.loads(value)
    rows = [text.rpartition(":")[::2] for text in given.models.split(",")]
    named = {label or model: model for label, model in rows}
    models, arrays = [], {}
    for label, model in named.items():
        seeds = given.seeds[:1] if base.non_iterative(model) else given.seeds
        about, arrays[label] = figures(model, seeds, split, settings.get(label, {}), runs, label)
        models.append(about)
    first, *others = arrays
    for metric in ("full HR@10", "full NDCG@10"):
        noise = Noise.largest(rows[metric] for rows in arrays.values())
        tests = [
            over_trainings(
                arrays[first][metric], arrays[name][metric],
                (noise, SILENT if base.non_iterative(named[name]) else noise),
            )
            for name in others
        ]  # fmt: skip
        corrected = holm([1.0 if test.p is None else test.p for test in tests])
        for about, test, p in zip(models[1:], tests, corrected, strict=True):
            about.setdefault(f"{first} less this model", {})[metric] = {
                "difference": test.difference, "low": test.low, "high": test.high,
                "p": None if test.p is None else p,
            }  # fmt: skip
    result = {
        "title": given.name, "command": shlex.join(["python", *sys.argv]), "versions": versions(),
        "machine": machine(), "protocol": split.hash, "models": models,
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

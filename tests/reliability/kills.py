"""Trainings that are killed at random moments, and go on to the same end.

    python -m tests.reliability.kills --out results/reliability/kills.json

A training writes a checkpoint after every step here, so that kills also fall into the writing of
checkpoints. It is killed one to three times at random moments, each time resumed, and then runs to
its end. Its folder must hold the bits of a training that nobody disturbed, and nothing else may be
left. If the run stands already, because the kill came after the last save, it is not trained again.
The kills before every call of a save are in `tests/artefact/test_replacing.py`.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from comet_rec.artefact.checkpoint import has_checkpoint
from comet_rec.artefact.folder import CHECKPOINTS
from comet_rec.training import checkpoints
from tests.reliability.children import begun, kill_after, run
from tests.reliability.recorded import Tried, program

SETTINGS = {
    "comet": ["model.embedding_dim=8", "model.history_length=8", "train.epochs=2"],
    "comet with a blend": [
        "model.embedding_dim=8", "model.history_length=8", "train.epochs=2",
        "blend.embedding_dim=8", "blend.epochs=2",
    ],
    "mf": ["model.embedding_dim=8", "train.epochs=3"],
    "sasrec": ["model.embedding_dim=8", "model.history_length=8", "train.epochs=2"],
}  # fmt: skip
"""Label → settings of the training."""
MODELS = {
    "comet": [], "comet with a blend": ["--preset", "blended"], "mf": ["--model", "mf"],
    "sasrec": ["--model", "sasrec"],
}  # fmt: skip
"""Label → words of the training."""
SAID = "said"
"""File for what the last training prints."""


def log_file(folder: Path) -> Path:
    """A small log with times."""
    rng = np.random.default_rng(5)
    lines = ["user_id,item_id,timestamp"]
    for user in range(24):
        items = rng.permutation(20)[:8]
        lines += [f"{user},{item},{1_600_000_000 + n}" for n, item in enumerate(items)]
    path = folder / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def every_step() -> None:
    """Write a checkpoint after every step."""
    checkpoints.CHECKPOINT_SECONDS = 0


def content(folder: Path) -> dict[str, object]:
    """Files of a run, without what depends on the clock."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        if path.name in ("manifest.json", "log.jsonl"):
            continue  # both hold seconds
        found[path.name] = path.read_bytes()
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found["log"] = [
        {key: value for key, value in line.items() if "second" not in key} for line in log
    ]
    return found


def training(label: str, log: Path, out: Path) -> list[str]:
    """Words of a training, which resumes if an earlier one left a checkpoint."""
    return [
        "train", str(log), "--out", str(out), "--quiet", "--no-yardsticks",
        *["--resume"] * has_checkpoint(out / CHECKPOINTS), *MODELS[label],
        *(word for text in SETTINGS[label] for word in ("--set", text)),
    ]  # fmt: skip


def killed(
    label: str, log: Path, home: Path, seconds: float, rng: random.Random
) -> tuple[int, int]:
    """Kill a training one to three times; number of kills, and exit status at its end."""
    out, kills = home / "run", 0
    for _ in range(rng.randint(1, 3)):
        child = begun(training(label, log, out), every_step, home / SAID)
        status = kill_after(child, rng.uniform(0, seconds))
        if status is not None:
            return kills, status
        kills += 1
        if (out / "manifest.json").exists():
            return kills, 0
    return kills, run(training(label, log, out), every_step, home / SAID)


def run_kills(tries: int, seed: int) -> list[Tried]:
    """Kill trainings of all models, in turn."""
    rng = random.Random(seed)
    found = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        log = log_file(home)
        labels = sorted(MODELS) if tries >= len(MODELS) else rng.sample(sorted(MODELS), tries)
        for number, label in enumerate(labels):
            share = (tries + number) // len(labels)
            whole = home / "whole"
            began = time.perf_counter()
            assert run(training(label, log, whole), every_step) == 0
            seconds = time.perf_counter() - began
            wanted = content(whole)
            tried = Tried(
                f"A killed training of {label} resumes to the bits of an undisturbed one."
            )
            kills_of_model = 0
            for _ in range(share):
                place = home / "tried"
                place.mkdir()
                kills, status = killed(label, log, place, seconds, rng)
                kills_of_model += kills
                tried.add(_failure(place, status, wanted))
                shutil.rmtree(place)
            tried.note = f"{kills_of_model} kills"
            shutil.rmtree(whole)
            found.append(tried)
    return found


def _failure(place: Path, status: int, wanted: dict[str, object]) -> str | None:
    """What is wrong at the end of a training; None for nothing."""
    if status != 0:
        return f"exit status {status}: {(place / SAID).read_text()[-300:]}"
    left = sorted(path.name for path in place.iterdir() if path.name not in ("run", SAID))
    if left:
        return f"left behind: {left}"
    found = content(place / "run")
    differing = [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]
    return f"other bits in {sorted(differing)}" if differing else None


if __name__ == "__main__":
    program("tests.reliability.kills", run_kills, tries=200)

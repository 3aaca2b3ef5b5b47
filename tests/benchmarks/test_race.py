"""The race with other libraries: its figures, its rule for stopping, its table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from comet_rec.evaluation import metrics

ROOT = Path(__file__).parents[2]
for folder in ("benchmarks", "docs"):
    sys.path.insert(0, str(ROOT / folder))
import figures as pages

import contestants
import peers


def test_figures_are_the_librarys(rng):
    scores = rng.integers(0, 30, (200, 100)).astype(np.float32)  # ties in plenty
    held = {
        "test.users": np.arange(200),
        "test.positives": np.zeros(200, np.int64),
        "test.candidates": np.tile(np.arange(1, 100, dtype=np.int32), (200, 1)),
    }

    def score(users, items):
        return scores[users[:, None], items]

    better = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    tied = (scores[:, 1:] == scores[:, :1]).sum(axis=1)
    expected = metrics.figures(better, tied)[0]
    found = peers.figures(score, held, "test")
    assert found == pytest.approx({name: expected[name] for name in ("HR@10", "NDCG@10")})


def test_a_missing_score_is_no_rank():
    held = {
        "test.users": np.arange(1), "test.positives": np.zeros(1, int),
        "test.candidates": np.ones((1, 3), int),
    }  # fmt: skip
    with pytest.raises(ValueError, match="finite"):
        peers.figures(lambda users, items: np.full(items.shape, np.nan), held, "test")


HELD = {
    f"{part}.{name}": value
    for part in ("validation", "test")
    for name, value in {
        "users": np.arange(2), "positives": np.zeros(2, int), "candidates": np.ones((2, 9), int)
    }.items()
}  # fmt: skip


def raced(train, folder, monkeypatch, cap=60.0) -> dict:
    """A race of somebody who is right about every user."""
    somebody = contestants.Contestant(
        train, lambda users, items: -1.0 * items, lambda place: (place / "model").write_text("it")
    )
    monkeypatch.setattr(peers, "entered", lambda *_: (HELD, somebody))
    return peers.Race(time.time(), 0.9, cap).run("somebody", "", folder)


def test_the_clock_stops_at_the_target(tmp_path, monkeypatch):
    def train(after_epoch):
        after_epoch()
        raise AssertionError("an epoch too many")

    found = raced(train, tmp_path, monkeypatch)
    assert found["reached"]
    assert found["epochs"] == 1
    assert found["best"]["HR@10"] == found["test"]["HR@10"] == 1
    assert found["artefact_bytes"] == 2
    assert found["best"]["seconds"] <= found["seconds"]


def test_the_cap_ends_a_training_and_nothing_is_written(tmp_path, monkeypatch):
    def train(after_epoch):
        while True:
            time.sleep(0.01)

    found = raced(train, tmp_path, monkeypatch, cap=0.2)
    assert not found["reached"]
    assert found["best"] is None
    assert found["artefact_bytes"] == 0
    assert "test" not in found
    assert 0.2 <= found["seconds"] < 30


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    """A race on a small log; one contestant's package is not there."""
    folder = tmp_path_factory.mktemp("race")
    rng = np.random.default_rng(0)
    rows = [
        f"{user},{item},{place}"
        for user in range(60)
        for place, item in enumerate(rng.permutation(150)[:12])
    ]
    (folder / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    program = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--data", "log.csv"]
    program += ["--target", "0.01", "--out", "out.json", "--python", sys.executable]
    names = ["EASE", "MF", "implicit ALS"]
    subprocess.run([*program, "--only", *names], cwd=folder, check=True, capture_output=True)
    return json.loads((folder / "out.json").read_text())


@pytest.mark.slow
def test_everyone_has_a_row(result):
    *ours, als = result["contestants"]
    for row in ours:
        assert row["reached"]
        assert row["epochs"] == 1
        assert row["artefact_bytes"] > 10_000
        assert 0 < row["evaluating_seconds"] < row["seconds"]
        assert set(row["test"]) == set(row["test_validation_shown"]) == {"HR@10", "NDCG@10"}
    assert als["not_run"] == "ModuleNotFoundError: No module named 'implicit'"


@pytest.mark.slow
def test_the_table_tells_them_apart(result):
    ease, mf, als = result["contestants"]
    late = {**mf, "name": "late", "reached": False, "seconds": mf["cap"] + 0.1}
    gave_up = {**mf, "name": "gave up", "reached": False, "seconds": 5.0}
    idle = {**mf, "name": "idle", "reached": False, "best": None, "epochs": 0}
    rows = [als, idle, late, gave_up, {**mf, "seconds": 9.0}, {**ease, "seconds": 2.0}]
    table = pages.peers({**result, "contestants": rows}, "bench/peers.json")
    first, second, *short, last, not_run = [line for line in table if line.startswith("| ")][1:]
    assert first.startswith("| **EASE (comet-rec")
    assert " 2.0 " in first
    assert second.startswith("| **MF (comet-rec")
    assert any(" not in 900 " in line for line in short)
    assert any(" never (ended after 5.0) " in line for line in short)
    assert " no epoch done in 900 " in last
    assert not_run.startswith("| implicit ALS (implicit) | not run: ModuleNotFoundError")

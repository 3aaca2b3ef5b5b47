"""``--split time=…`` in train, evaluate, compare, tune, audit and recommend."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from comet_rec.cli.app import run

FIRST = 1_577_836_800  # 2020-01-01


@pytest.fixture(scope="module")
def log_file(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        start = rng.integers(0, 80)
        times = FIRST + 86_400 * np.sort(rng.integers(start, 100, size=9))
        rows += [
            f"u{user},{i + 100},{t}" for i, t in zip(rng.permutation(40)[:9], times, strict=True)
        ]
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path


BY = "time=2020-03-01,validation=2020-02-10,target=successive"


@pytest.fixture(scope="module")
def trained(log_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    call = ["train", str(log_file), "--model", "fism", "--split", BY, "--out", str(out), "--quiet",
            "--set", "train.epochs=2", "--set", "protocol.negatives=9"]  # fmt: skip
    assert run(call) == 0
    return out


def test_train_stores_the_moment_and_evaluate_repeats_the_figures(trained, capsys):
    manifest = json.loads((trained / "manifest.json").read_text())
    settings = manifest["protocol"]["settings"]
    assert (settings["split"], settings["target"], settings["negatives"]) == (
        "time", "successive", 9,
    )  # fmt: skip
    assert settings["at"] == FIRST + 60 * 86_400
    capsys.readouterr()
    assert run(["evaluate", str(trained), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((trained / "metrics.json").read_text())
    assert report["time_split"]["target"] == "successive"
    assert run(["evaluate", str(trained)]) == 0
    out = capsys.readouterr().out
    for text in ("Recall@10", "MRR@10", "known users", "new users", "items from the future"):
        assert text in out


def test_audit_and_recommend_know_the_split(trained, log_file, capsys):
    assert run(["audit", str(trained), "--json"]) == 0
    assert run(["audit", str(log_file), "--split", BY, "--quiet"]) == 0
    assert run(["recommend", str(trained), "--user", "u1"]) == 0
    err = capsys.readouterr().err
    assert "lists may hold held-out test items" in err
    assert "items whose first row is after the split by time" in err
    assert run(["audit", str(trained), "--split", BY]) == 2
    assert "leave --split out" in capsys.readouterr().err


def test_compare_has_the_lists_columns(log_file, capsys, tmp_path):
    out = tmp_path / "comparison.json"
    call = ["compare", str(log_file), "--models", "ease,popularity-days", "--split", "time=0.8",
            "--set", "popularity-days:model.days=7", "--out", str(out)]  # fmt: skip
    assert run(call) == 0
    text = capsys.readouterr().out
    assert "coverage" in text
    assert "items from the future" in text
    data = json.loads(out.read_text())
    assert data["protocol"]["split"] == "time"
    assert data["models"][1]["time_split"]["coverage@10"] > 0


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("time", "give leave-one-out or time=QUANTILE|DATE"),
        ("by-time=0.9", "give leave-one-out or time=QUANTILE|DATE"),
        ("target=last", "give leave-one-out or time=QUANTILE|DATE"),
        ("time=0.9,time=0.8", "give leave-one-out or time=QUANTILE|DATE"),
        ("time=0.9,target=next", "target = 'next': must be one of first"),
        ("time=2031-01-01", "no row is that late"),
        ("time=yesterday", "is no date and no number"),
        ("time=0.9,repeats=yes", "protocol.repeats"),
    ],
)
def test_a_wrong_split_is_one_line(log_file, tmp_path, capsys, by, message):
    out = tmp_path / "run"
    assert run(["train", str(log_file), "--split", by, "--out", str(out), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("more", [["--all"], ["--test", "test.csv"]])
def test_a_split_excludes_other_ways_to_hold_out(log_file, tmp_path, capsys, more):
    call = ["train", str(log_file), "--split", "time=0.9", "--out", str(tmp_path / "run"), *more]
    assert run(call) == 2
    assert "--split divides DATA" in capsys.readouterr().err

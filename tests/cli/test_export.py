"""The command `export`: what it prints, and what it refuses in one line."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.cli.app import run


@pytest.fixture(scope="module")
def trained(log_file, tmp_path_factory):
    """A small FISM whose users have text ids, and whose items have integers."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["train", str(log_file), "--model", "fism", "--all", "--quiet", "--out", str(folder)]
    assert run([*words, "--set", "train.full_epochs=1", "--set", "model.embedding_dim=4"]) == 0
    return folder


def export(trained, *words) -> int:
    return run(["export", str(trained), *map(str, words)])


FILES = {
    "item_ids.npy", "item_vectors.npy", "seen_items.npy", "seen_starts.npy", "user_ids.json",
    "user_vectors.npy", "about.json", "manifest.json",
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "more", "said"),
    [
        ("npy", set(), ["fism: 25 users, 40 items, vectors of 6 numbers"]),
        (
            "onnx",
            {"user_tower.onnx", "score.onnx"},
            ["graphs: score.onnx, user_tower.onnx", "of the largest score, over 25 users"],
        ),
        ("faiss", {"index.faiss"}, ["recall@10 1.000 against exact search, over 25 users"]),
    ],
)
def test_an_export_says_what_it_wrote(form, more, said, trained, tmp_path, capsys):
    assert export(trained, "--to", form, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert printed.out.endswith(f"\nwritten to {tmp_path / 'out'}\n")
    assert all(text in printed.out for text in said)
    assert printed.err == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | more
    users = json.loads((tmp_path / "out" / "user_ids.json").read_text())
    assert users == sorted(f"u{number}" for number in range(25))
    assert np.load(tmp_path / "out" / "item_ids.npy").dtype == np.int64


def test_a_hub_folder_warns_that_it_holds_the_log(trained, tmp_path, capsys):
    assert export(trained, "--to", "hub", "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "fism: 25 users, 40 items, with a model card" in printed.out
    assert "interactions and ids of all users" in printed.err
    lists = [
        list(cr.load_model(each).recommend(k=3).rows()) for each in (trained, tmp_path / "out")
    ]
    assert lists[0] == lists[1]


def test_a_model_without_histories_says_that_new_users_get_no_graph(log_file, tmp_path, capsys):
    words = ["train", str(log_file), "--model", "mf", "--all", "--quiet"]
    assert run([*words, "--set", "train.full_epochs=1", "--out", str(tmp_path / "run")]) == 0
    assert export(tmp_path / "run", "--to", "onnx", "--out", tmp_path / "out") == 0
    assert "mf reads no histories" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "fais"], "--to fais: did you mean 'faiss'?"),
        (["--to", "tensorrt"], "--to tensorrt: known: npy, onnx, faiss, hub"),
        ([], "Missing option '--to'"),
    ],
)
def test_unknown_forms_end_with_one_line(words, message, trained, tmp_path, capsys):
    assert export(trained, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_run_and_no_new_folder_end_with_one_line(trained, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    faults = {
        "no such run": (tmp_path / "none", tmp_path / "out"),
        "is not a run": (tmp_path / "full", tmp_path / "out"),
        "exists and is not empty": (trained, tmp_path / "full"),
        "is a file": (trained, tmp_path / "full" / "mine"),
    }
    for message, (source, out) in faults.items():
        assert export(source, "--to", "npy", "--out", out) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("form", "module", "extra"),
    [("faiss", "faiss", "ann"), ("onnx", "onnx", "export"), ("onnx", "onnxruntime", "export")],
)
def test_a_missing_extra_is_one_line(form, module, extra, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    assert export(trained, "--to", form, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f'pip install "comet-rec[{extra}]"' in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_vectors_and_the_hub_need_no_extra(trained, tmp_path, monkeypatch):
    for module in ("faiss", "onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, module, None)
    for form in ("npy", "hub"):
        assert export(trained, "--to", form, "--out", tmp_path / form) == 0

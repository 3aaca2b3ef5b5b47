"""The command `update`: a day's rows into a new run, with the options of the first reading."""

from __future__ import annotations

import json

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.cli.app import run as command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log with columns of its own, and a small run that was trained on it."""
    folder = tmp_path_factory.mktemp("update")
    lines = ["customer;sku;bought_on"]
    for user in range(40):
        items = np.random.default_rng(user).permutation(15)[:6] * 2 + user % 2
        lines += [
            f"c{user};p{item};2026-0{1 + place}-{1 + user % 28:02d}"
            for place, item in enumerate(items.tolist())
        ]
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    (folder / "today.csv").write_text(
        "customer;sku;bought_on\nc0;p29;2026-11-30\nnew;p3;2026-11-30\nc1;novelty;2026-11-30\n"
    )
    arguments = [
        "train", str(folder / "shop.csv"), "--user", "customer", "--item", "sku", "--time",
        "bought_on", "--min-user", "2", "--model", "fism", "--all", "--set",
        "train.full_epochs=3", "--set", "model.embedding_dim=8", "--out", str(folder / "shop"),
        "--quiet",
    ]  # fmt: skip
    assert command(arguments) == 0
    return folder


def update(folder, *more):
    return command(["update", str(folder / "shop"), *map(str, more)])


def test_new_rows_are_read_as_the_log_was_read(folder, tmp_path, capsys):
    out = tmp_path / "shop-2"
    assert update(folder, folder / "today.csv", "--out", out) == 0
    assert capsys.readouterr().out == f"new: 3 rows, 1 user, 1 item\nwritten to {out}\n"
    before, after = cr.load_model(folder / "shop"), cr.load_model(out)
    assert len(after.run.interactions) == len(before.run.interactions) + 3
    assert "p29" not in after.recommend(["c0"], k=50)["item_id"].tolist()
    assert "novelty" in after.recommend(["c0"], k=50)["item_id"].tolist()
    assert len(after.recommend(["new"], k=3)) == 3
    again = tmp_path / "shop-3"
    assert command(["update", str(out), str(folder / "today.csv"), "--out", str(again)]) == 0
    assert "new: 0 rows, 0 users, 0 items (3 known already)" in capsys.readouterr().out


def test_options_of_the_command_replace_those_of_the_run(folder, tmp_path, capsys):
    renamed = tmp_path / "today.csv"
    renamed.write_text("who;sku;bought_on\nc0;p29;2026-11-30\n")
    assert update(folder, renamed, "--out", tmp_path / "a") == 2
    assert "customer" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert update(folder, renamed, "--user", "who", "--out", tmp_path / "a") == 0


def test_repeats_last_lets_new_rows_replace_old_ones(folder, tmp_path):
    again = tmp_path / "today.csv"
    first = (folder / "shop.csv").read_text().splitlines()[1].rsplit(";", 1)[0]
    again.write_text(f"customer;sku;bought_on\n{first};2026-12-24\n")
    for repeats, latest in (("first", False), ("last", True)):
        out = tmp_path / repeats
        assert update(folder, again, "--repeats", repeats, "--out", out, "--quiet") == 0
        times = cr.load_model(out).run.interactions.times
        assert (times.max() == np.datetime64("2026-12-24", "us").astype(int)) == latest


def test_a_table_of_items_with_a_broken_line_is_refused(folder, tmp_path, capsys):
    table = tmp_path / "items.csv"
    table.write_text("sku,kind\np1,even\np2,even,and,more\n")
    assert update(folder, "--items", table, "--out", tmp_path / "out") == 2
    assert "no column item_id among 'sku,kind'" in capsys.readouterr().err


def test_items_with_features_join_the_catalogue(folder, tmp_path, capsys):
    table = tmp_path / "items.csv"
    rows = [f"p{item},{'even' if item % 2 == 0 else 'odd'}" for item in range(30)]
    table.write_text("sku,kind\n" + "\n".join(rows) + "\nfresh,odd\n")
    out = tmp_path / "shop-2"
    assert update(folder, "--items", table, "--out", out, "--quiet") == 0
    listed = cr.load_model(out).recommend(["c1"], k=50)["item_id"].tolist()
    assert "fresh" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a file of new rows, or --items FILE"),
        (["missing.csv"], "missing.csv"),
        (["{folder}/today.csv", "--items", "missing.csv"], "items: missing.csv: no such file"),
        (["{folder}/today.csv", "--epochs", "-1"], "--epochs"),
    ],
)
def test_faults_end_with_one_line_and_leave_nothing(arguments, message, folder, tmp_path, capsys):
    words = [word.format(folder=folder) for word in arguments]
    assert update(folder, *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_is_not_replaced(folder, tmp_path, capsys):
    before = (folder / "shop" / "manifest.json").read_bytes()
    assert update(folder, folder / "today.csv", "--out", folder / "shop") == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert (folder / "shop" / "manifest.json").read_bytes() == before


def test_the_manifest_counts_updates(folder, tmp_path):
    assert update(folder, folder / "today.csv", "--out", tmp_path / "a", "--quiet") == 0
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["updates"] == [{"rows": 3, "users": 1, "items": 1, "epochs": 0}]

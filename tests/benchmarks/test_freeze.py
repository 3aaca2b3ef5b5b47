"""The comparison of two checkouts finds what moved, and says so by its exit status."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import freeze
import freeze_measure
import freeze_models

MF = "MF static, timed, no refit"
ONLY = ["options:comet-rec train", f"models:{MF}"]
SEED = "--seed · default"
TENSOR = "tensor · model · user_embedding"
CELL = "cell · table2 · MovieLens · BCE-MF · HR@10"
REPORT = {
    "sections": {
        "table2": {
            "tables": [
                {
                    "title": "MovieLens",
                    "columns": ["model", "HR@10", "else", "HR@10"],
                    "rows": [["BCE-MF", ".5", "taste_dim = 8, epochs = 3", ".6"]],
                }
            ],
            "data": {"ml-1m": {"users": 3, "train_seconds": 4.0}},
        }
    }
}


@pytest.fixture(scope="module")
def measured():
    """Two measurements of this checkout, each in a process of its own."""
    found = [freeze.measure(ROOT, [], ONLY, None) for _ in range(2)]
    for each in found:
        each["report"] = {"cases": {"full": dict(freeze_measure._cells(REPORT))}}
    return found


@pytest.fixture
def status(monkeypatch, measured, tmp_path):
    """Exit status of the command where the second measurement is changed by a function."""

    def run(change=lambda after: None, names=None, expected=None, *, json_=False):
        before, after = copy.deepcopy(measured)
        change(after)
        both = iter([before, after])
        monkeypatch.setattr(freeze, "measure", lambda *_: next(both))
        words = ["--before", str(ROOT)]
        for option, found in (("--names", names), ("--expected", expected)):
            path = tmp_path / f"{option}.json"
            path.write_text(json.dumps(found or {}))
            words += [option, str(path)]
        return freeze.main([*words, "--json"] if json_ else words)

    return run


@pytest.mark.slow
def test_one_checkout_measured_twice_is_equal(status, capsys):
    assert status() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "options: equal", "models: equal", "report: equal"
    ]  # fmt: skip


def test_the_planted_trainings_are_measured(measured):
    found = measured[0]["models"]["cases"][MF]
    assert found["setting · train.epochs"] == 2
    assert {"log · validation · 2 · loss", "metrics · full · NDCG@10", TENSOR} <= set(found)
    assert measured[0]["options"]["cases"]["comet-rec train"][SEED] == "0"


@pytest.mark.parametrize(
    ("part", "case", "key", "value"),
    [
        ("models", MF, TENSOR, "sum 0 float32[60, 64] 00"),
        ("models", MF, "log · validation · 2 · loss", 0.6931471824645997),
        ("options", "comet-rec train", SEED, "1"),
        ("report", "full", CELL, ".51"),
        ("report", "full", "number · table2 · ml-1m · users", 3.0),
    ],
)
def test_one_changed_value_is_shown_and_fails(status, capsys, part, case, key, value):
    def change(after):
        assert after[part]["cases"][case][key] != value or type(value) is float
        after[part]["cases"][case][key] = value

    assert status(change) == 1
    out = capsys.readouterr().out
    assert f"{part}: 1 differences" in out
    assert f"  {part}/{case} · {key}: " in out
    assert f" → {value!r}" in out


def test_one_bit_of_a_tensor_changes_its_digest():
    tensor = torch.tensor([1.0, 2.0])
    flipped = tensor.clone()
    flipped.view(torch.int32)[1] ^= 1
    assert freeze_models.bits(tensor) == freeze_models.bits(tensor.clone())
    assert freeze_models.bits(tensor) != freeze_models.bits(flipped)
    negative_zero = freeze_models.bits(torch.tensor([-0.0]))
    assert negative_zero != freeze_models.bits(torch.tensor([0.0]))


def test_what_came_and_what_went_are_differences(status, capsys):
    def change(after):
        del after["options"]["cases"]["comet-rec train"][SEED]
        after["options"]["cases"]["comet-rec serve"] = {}
        del after["models"]

    assert status(change, json_=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["options"]["differences"] == [
        [f"options/comet-rec train · {SEED}", "0", freeze.ABSENT],
        ["options/comet-rec serve", freeze.ABSENT, "0 values"],
    ]
    assert not found["models"]["equal"]
    assert found["report"]["equal"]


def test_a_case_that_broke_in_both_was_not_measured():
    broken = {"models": {"cases": {"MF": {"broken": "TypeError: no"}}}}
    (outcome,) = freeze.compare(broken, broken, freeze.Names(), {})
    assert [key for key, _, _ in outcome.differences] == ["models/MF · broken"]


def test_an_expected_difference_is_shown_and_does_not_fail(status, capsys):
    def change(after):
        after["report"]["cases"]["full"][CELL] = ".51"

    assert status(change, expected={"report/full · cell · table2 *": "a rounding"}) == 0
    out = capsys.readouterr().out
    assert "report: equal, 1 expected" in out
    assert f"  expected, a rounding:\n  report/full · {CELL}: '.5' → '.51'" in out


def test_old_names_are_compared_with_what_they_became(status):
    names = {
        "settings": {
            "model.embedding_dim": "model.dim",
            "model.taste_dim": "blend.embedding_dim",
            'train.loss="bce"': 'train.objective="binary"',
        },
        "tensors": {"model/user_*": "blend/users.*"},
        "labels": {"BCE-MF": "MF", "validation": "choose"},
    }

    def change(after):
        found = after["models"]["cases"][MF]
        found["setting · model.dim"] = found.pop("setting · model.embedding_dim")
        found["setting · train.objective"] = "binary"
        assert found.pop("setting · train.loss") == "bce"
        for key in [key for key in found if "tensor · model · user_" in key]:
            found[key.replace("model · user_", "blend · users.")] = found.pop(key)
        for key in [key for key in found if "log · validation" in key]:
            found[key.replace("validation", "choose")] = found.pop(key)
        cells = after["report"]["cases"]["full"]
        for key in [key for key in cells if "BCE-MF" in key]:
            value = str(cells.pop(key)).replace("taste_dim", "embedding_dim")
            cells[key.replace("BCE-MF", "MF")] = value.replace("BCE-MF", "MF")

    assert status(change) == 1
    assert status(change, names) == 0


def test_settings_are_given_under_their_new_names(monkeypatch):
    names = {
        "model.taste_dim": ["blend.embedding_dim", 'blend.model="fism"'],
        "model.taste_dim=0": 'blend.model=""',
        "train.loss": "train.objective",
    }
    monkeypatch.setitem(freeze_models.NAMES, "settings", names)
    given = {"model.taste_dim": 8, "train.loss": "bpr", "train.epochs": 2}
    assert freeze_models.renamed_settings(given) == {
        "blend.embedding_dim": 8, "blend.model": "fism", "train.objective": "bpr", "train.epochs": 2
    }  # fmt: skip
    assert freeze_models.renamed_settings({"model.taste_dim": 0}) == {"blend.model": ""}
    compared = freeze.Names(settings=names)
    assert compared.renamed("setting · model.taste_dim", 8) == ("setting · blend.embedding_dim", 8)
    assert compared.renamed("setting · model.taste_dim", 0) == ("setting · blend.model", "")


def test_cells_under_equal_labels_are_told_apart_and_seconds_left_out():
    cells = dict(freeze_measure._cells(REPORT))
    assert cells[CELL] == ".5"
    assert cells[f"{CELL} · #2"] == ".6"
    assert [key for key in cells if key.startswith("number")] == ["number · table2 · ml-1m · users"]


@pytest.mark.slow
def test_an_option_of_another_checkout_is_found(tmp_path, capsys):
    """The whole way, with a second checkout that has one more command."""
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module = scripts["comet-rec"].partition(":")[0].replace(".", "/")
    with (tmp_path / "src" / f"{module}.py").open("a") as source:
        source.write("\n\n@app.command()\ndef extra(speed: int = 3) -> None: ...\n")
    assert freeze.main(["--before", str(tmp_path), "--only", "options"]) == 1
    assert "options/comet-rec extra: '10 values' → '(absent)'" in capsys.readouterr().out

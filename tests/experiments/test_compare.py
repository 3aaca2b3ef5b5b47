"""Comparisons on a log with a known answer."""

from __future__ import annotations

import pytest

import comet_rec as cr
from comet_rec.errors import ConfigError
from comet_rec.experiments.compare import _Study, as_data, as_markdown, compare

FAST = {"train.epochs": 12, "train.learning_rate": 1e-2, "model.embedding_dim": 8}
SMALL = {
    "mf": FAST, "gmf": FAST, "mlp": FAST, "neumf-p": FAST,
    "convncf-p": FAST | {"train.epochs": 2},
}  # fmt: skip


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


def test_learners_beat_popularity_and_the_table_says_so(split):
    entries = compare(split, ["popularity", "mf", "ease", "neumf-p", "random"], settings=SMALL)
    data = as_data(entries)
    by_name = {row["model"]: row for row in data["models"]}
    assert by_name["popularity"]["against_reference"] is None
    for name in ("mf", "ease", "neumf-p"):
        test = by_name[name]["against_reference"]["NDCG@10"]
        assert test["low"] > 0
        assert test["wilcoxon_holm"] < 0.01
        assert test["bootstrap_holm"] < 0.01
    assert by_name["random"]["against_reference"]["NDCG@10"]["low"] < 0
    assert all("protocol" not in row for row in data["models"])
    lines = as_markdown(data).splitlines()
    assert len(lines) == 2 + 5 + 2
    assert lines[2].startswith("| popularity | ")


def test_the_table_says_what_each_models_epochs_were_chosen_by(split):
    fast = {"train.epochs": 1, "train.selection_metric": "sampled"}
    settings = {"mf": fast, "gmf": fast | {"train.selection_metric": "full"}}
    found = as_data(compare(split, ["popularity", "mf", "gmf"], settings=settings))
    assert [row["select_by"] for row in found["models"]] == [None, "sampled", "full"]
    text = as_markdown(found)
    assert text.endswith("by sampled NDCG@10 for mf and by full NDCG@10 for gmf.")
    closed = as_data(compare(split, ["popularity", "ease"]))
    assert "Epochs" not in as_markdown(closed)


def test_every_model_is_trained_again_with_the_validation_rows_unless_it_says_otherwise(split):
    fast = {name: {**FAST, "train.epochs": 1} for name in ("mf", "gmf")}
    fast["gmf"]["train.refit"] = False
    study = _Study(split, "auto", True, fast, 0, "cpu")
    stages = {name: study.trained(name)[0].run.log[-1]["stage"] for name in fast}
    assert stages == {"mf": "refit", "gmf": "validation"}
    plain = _Study(split, "auto", False, fast, 0, "cpu")
    assert plain.trained("mf")[0].run.log[-1]["stage"] == "validation"


def test_a_pretrained_model_starts_from_models_of_the_same_split(split):
    entry = compare(split, ["convncf-p", "mf"], settings=SMALL)[0]
    assert entry.name == "convncf-p"
    assert entry.report.model == "convncf"


def test_a_start_has_the_refit_of_what_starts_from_it_whatever_it_has_by_itself(split):
    fast = {name: {**FAST, "train.epochs": 1} for name in ("gmf", "mlp", "neumf-p")}
    fast["gmf"]["train.refit"] = False
    study = _Study(split, "auto", True, fast, 0, "cpu")
    study.trained("gmf")
    study.trained("neumf-p")
    stages = {name: model.run.log[-1]["stage"] for name, (model, _) in study.done.items()}
    assert stages == {
        "gmf": "validation", "neumf-p:gmf": "refit", "mlp": "refit", "neumf-p": "refit",
    }  # fmt: skip


def test_wrong_settings_are_told_before_anything_is_trained(split):
    told = []
    for settings in ({"mff": FAST}, {"gmf": {"train.epoch": 2}}, {"mf": {"train.epochs": 0}}):
        with pytest.raises(ConfigError, match=r"did you mean|must be above 0"):
            compare(split, ["popularity", "mf"], settings=settings, say=told.append)
    wrong = {"mf": {"protocol.negatives": 5}}
    with pytest.raises(ConfigError, match=r"protocol\.negatives = 5: the split was made with "):
        compare(split, ["popularity", "mf"], settings=wrong, say=told.append)
    assert told == []


def test_unknown_models_are_named(split):
    with pytest.raises(ConfigError, match="did you mean 'neumf-p'"):
        compare(split, ["mf", "neumfp"])

"""ONNX graphs give the scores of the library, for every model with vectors."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.run import load_run
from comet_rec.errors import ConfigError
from comet_rec.estimators.newcomers import folded_in
from comet_rec.export import graphs
from comet_rec.export.folder import export
from tests.conftest import checkerboard_log

COMET = {"embedding_dim": 16, "history_length": 6, "hidden": (16,)}
CASES = {
    "static": ("COMET", COMET, ["the last 6"]),
    "causal, no p": (
        "COMET", {**COMET, "history": "causal", "towers": "user", "user_embedding": False},
        ["the last 6"],
    ),
    "one layer": (
        "COMET",
        {**COMET, "history": "causal", "towers": "user", "user_embedding": False, "layers": 1},
        ["the last 6"],
    ),
    "cnn": ("COMET", {**COMET, "history_length": 15, "cross": "cnn"}, ["the last 15"]),
    "mlp, shuffled": ("COMET", {**COMET, "cross": "mlp", "shuffle_history": True}, ["the last 6"]),
    "gate": ("COMET", {**COMET, "gate": "squeeze", "permute_dimensions": True}, ["the last 6"]),
    "no towers, blend": (
        "COMET", {**COMET, "enrich": "original", "blend_model": "fism"}, [None, "all"],
    ),
    "SVDpp": ("SVDpp", {"embedding_dim": 8}, ["all"]),
    "FISM": ("FISM", {"embedding_dim": 8, "alpha": 0.3}, ["all"]),
    "SASRec": ("SASRec", {"embedding_dim": 8, "history_length": 6, "heads": 2}, ["the last 6"]),
}  # fmt: skip


def close(expected):
    """Numbers within 1e-5 of the largest one."""
    return pytest.approx(expected, rel=0, abs=1e-5 * float(np.abs(expected).max()))


FAST = ("no towers, blend", "one layer", "SASRec")


@pytest.mark.parametrize(
    "case",
    [pytest.param(each, marks=[] if each in FAST else pytest.mark.slow) for each in CASES],
)
def test_the_tower_gives_the_vectors_of_new_users(case, tmp_path):
    """Histories are shorter and longer than the model reads, and empty."""
    name, settings, reads = CASES[case]
    model = getattr(cr, name)(preset="static", epochs=1, batch_size=512, **settings)
    model.fit(checkerboard_log()).save(tmp_path / "run")
    about = export(tmp_path / "run", "onnx", tmp_path / "out")
    assert about["graphs"]["user_tower.onnx"]["reads"] == reads
    assert about["parity"] <= graphs.TOLERANCE
    rng = np.random.default_rng(0)
    histories = [rng.permutation(80)[:length] for length in (0, 1, 2, 6, 7, 15, 16, 40, 80)]
    expected = folded_in(model.run, histories, torch.device("cpu")).numpy()
    rows = graphs.graph_rows(model.run, histories)
    tower = graphs.session(tmp_path / "out" / "user_tower.onnx")
    assert tower(histories=rows) == close(expected)
    wider = np.pad(rows, ((0, 0), (5, 0)), constant_values=80)
    assert tower(histories=wider) == close(expected)
    one = tower(histories=rows[3:4, -6:])
    assert one == close(expected[3:4])


def test_several_layers_have_no_graph(tmp_path):
    settings = {**COMET, "history": "causal", "towers": "user", "layers": 2}
    model = cr.COMET(preset="static", full_epochs=1, **settings).fit(checkerboard_log())
    model.save(tmp_path / "run")
    with pytest.raises(ConfigError, match="an ONNX graph holds one layer"):
        export(tmp_path / "run", "onnx", tmp_path / "out")


@pytest.mark.parametrize("name", ["MF", "GMF"])
def test_a_model_without_histories_has_only_the_graph_of_the_score(name, tmp_path):
    model = getattr(cr, name)(embedding_dim=8, preset="static", epochs=1).fit(checkerboard_log())
    model.save(tmp_path / "run")
    about = export(tmp_path / "run", "onnx", tmp_path / "out")
    assert list(about["graphs"]) == ["score.onnx"]
    assert not (tmp_path / "out" / "user_tower.onnx").exists()
    users, items = (np.load(tmp_path / "out" / f"{side}_vectors.npy") for side in ("user", "item"))
    scores = graphs.session(tmp_path / "out" / "score.onnx")(
        user_vectors=users[:3], item_vectors=items[:7]
    )
    expected = model.score(np.repeat([0, 1, 2], 7), np.tile(np.arange(7), 3)).reshape(3, 7)
    assert scores == close(expected)


def test_rows_of_a_random_subset_end_with_the_items_that_the_library_reads(tmp_path):
    model = cr.COMET(preset="static", epochs=1, batch_size=512, **COMET).fit(checkerboard_log())
    assert model.run.model.histories.policy == "sampled"
    history = np.random.default_rng(0).permutation(80)[:20]
    (row,) = graphs.graph_rows(model.run, [history])
    assert sorted(row) == sorted(history)
    plain = folded_in(model.run, [history], torch.device("cpu"))
    assert torch.equal(plain, folded_in(model.run, [row[-6:]], torch.device("cpu")))


def test_graphs_whose_scores_differ_are_refused(blend, tmp_path, monkeypatch):
    forward = graphs.UserTower.forward
    monkeypatch.setattr(
        graphs.UserTower, "forward", lambda tower, rows: forward(tower, rows) * 1.0001
    )
    with pytest.raises(ConfigError, match="differs from the library's"):
        export(blend, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_lists_of_both_graphs_are_those_of_the_library(blend, tmp_path):
    export(blend, "onnx", tmp_path / "out")
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    run, model = load_run(blend), cr.load_model(blend)
    items = np.load(tmp_path / "out" / "item_vectors.npy")
    histories = [[2, 4, 6], [1, 3, 5, 7, 9, 11, 13, 15]]
    rows = graphs.graph_rows(run, [np.array(each) for each in histories])
    assert (rows[0] == about["graphs"]["user_tower.onnx"]["pad"]).sum() == 5
    users = graphs.session(tmp_path / "out" / "user_tower.onnx")(histories=rows)
    scores = graphs.session(tmp_path / "out" / "score.onnx")(user_vectors=users, item_vectors=items)
    lists = model.recommend_for_history(histories, 5)
    for row, history in enumerate(histories):
        scores[row, history] = -np.inf
        best = np.argsort(-scores[row], kind="stable")[:5]
        assert lists["item_id"].reshape(2, 5)[row].tolist() == best.tolist()


def test_large_parameters_are_stored_beside_the_graph(blend, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_INSIDE", 100)
    export(blend, "onnx", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "user_tower.onnx.data" in names
    assert names - {"manifest.json"} == set(
        json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    )


@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_library_is_one_line_that_names_the_extra(blend, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf'{module}, .*pip install "comet-rec\[export\]"'):
        export(blend, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

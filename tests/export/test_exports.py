"""Exports of vectors, of an index and of a hub folder give the lists of the run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import comet_rec as cr
from comet_rec.artefact.run import load_run, load_with_version
from comet_rec.errors import ArtefactError, ConfigError, InputError
from comet_rec.export import index as index_folder
from comet_rec.export.folder import export
from comet_rec.export.index import load_index
from comet_rec.retrieval import approximate
from tests.conftest import checkerboard_log
from tests.export.conftest import TEXTS

FORMS = ("npy", "onnx", "faiss", "hub")


def arrays(folder: Path):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def rows(table) -> list[dict]:
    return list(table.rows())


def lists(found: dict[str, np.ndarray], k: int) -> np.ndarray:
    """Lists of all users from the arrays of an export: −1 where no item is left."""
    scores = found["user_vectors"].astype(float) @ found["item_vectors"].astype(float).T
    rows = np.repeat(np.arange(len(scores)), np.diff(found["seen_starts"]))
    scores[rows, found["seen_items"]] = -np.inf
    best = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(scores, best, axis=1) > -np.inf, best, -1)


def test_vectors_give_the_lists_of_the_run(blend, tmp_path):
    about = export(blend, "npy", tmp_path / "out")
    found, model = arrays(tmp_path / "out"), cr.load_model(blend)
    assert json.loads((tmp_path / "out" / "about.json").read_text()) == about
    assert about["users"] == len(found["user_vectors"]) == 120
    assert about["items"] == len(found["item_vectors"]) == 80
    assert about["width"] == found["user_vectors"].shape[1] == 8 + 4 + 2
    assert about["version"] == load_with_version(blend)[1]
    table = model.recommend(k=10)
    assert found["item_ids"][lists(found, 10)].ravel().tolist() == table["item_id"].tolist()
    assert found["user_ids"].tolist() == sorted(set(table["user_id"].tolist()))


def test_the_version_is_the_digest_of_the_manifest(blend):
    digest = json.loads((blend / "manifest.json").read_text())["sha256"]
    assert load_with_version(blend)[1] == digest[:12]


def test_texts_and_uuids_are_json_that_needs_no_pickle(texts, tmp_path):
    about = export(texts, "npy", tmp_path / "out")
    users = json.loads((tmp_path / "out" / "user_ids.json").read_text("utf-8"))
    items = json.loads((tmp_path / "out" / "item_ids.json").read_text("utf-8"))
    assert users == sorted(TEXTS)
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", item) for item in items)
    assert about["user_ids"] == {"file": "user_ids.json", "type": "text"}
    assert about["item_ids"] == {"file": "item_ids.json", "type": "uuid"}
    best = lists(arrays(tmp_path / "out"), 3)
    table = cr.load_model(texts).recommend(TEXTS, k=3)
    named = {user: [items[i] for i in best[row]] for row, user in enumerate(users)}
    assert [item for user in TEXTS for item in named[user]] == list(map(str, table["item_id"]))


def test_seen_items_hold_those_that_a_filter_of_the_log_dropped(tmp_path):
    rows = {"user": [1, 1, 1, 2, 2], "item": [1, 2, 3, 1, 3], "rating": [5, 1, 5, 5, 4]}
    log = cr.read(rows, min_rating=3)
    cr.MF(embedding_dim=2, epochs=1).fit(log).save(tmp_path / "run")
    export(tmp_path / "run", "npy", tmp_path / "out")
    found = arrays(tmp_path / "out")
    ids = found["item_ids"].tolist()
    first = found["seen_items"][: found["seen_starts"][1]]
    expected = [item for item in (1, 2, 3) if item in ids]
    assert sorted(ids[item] for item in first) == expected


def test_an_index_gives_the_lists_of_the_run_without_seen_items(blend, tmp_path):
    about = export(blend, "faiss", tmp_path / "out")
    assert about["index"]["recall@10"] >= 0.95
    assert about["index"]["users measured"] == 120
    index, found, run = load_index(tmp_path / "out"), arrays(tmp_path / "out"), load_run(blend)
    seen = run.known.interacted_items(np.arange(120))
    items, scores = index.search(found["user_vectors"], 10, masked=seen)
    assert np.array_equal(items, lists(found, 10))
    table = cr.load_model(blend).recommend(k=10)
    assert scores.ravel().tolist() == table["score"].tolist()


def test_an_index_with_a_low_recall_is_refused(blend, tmp_path, monkeypatch):
    monkeypatch.setattr(index_folder, "best_index", lambda *_: (FakeIndex, 0.9432))
    with pytest.raises(ConfigError, match=r"finds 0\.943 .* 0\.95 are needed; .* export to npy"):
        export(blend, "faiss", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class FakeIndex:
    width = 7


def test_a_graph_that_finds_nothing_is_refused(blend, tmp_path, monkeypatch):
    """The recall is measured with the index itself."""
    monkeypatch.setattr(approximate, "EXACT_SHARE", 0)
    monkeypatch.setattr(
        approximate.ApproximateIndex, "_proposed",
        lambda index, queries, k, pool, masked: (
            np.zeros((len(queries), k), np.int64), np.full((len(queries), k), -99, np.float32)
        ),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"finds 0\.0"):
        export(blend, "faiss", tmp_path / "out")


def test_a_damaged_index_is_noticed(blend, tmp_path):
    export(blend, "faiss", tmp_path / "out")
    for name in ("index.faiss", "item_vectors.npy"):
        path = tmp_path / "out" / name
        good = path.read_bytes()
        path.write_bytes(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])
        with pytest.raises(ArtefactError, match=f"{name}: damaged"):
            load_index(tmp_path / "out")
        path.write_bytes(good)
    load_index(tmp_path / "out")


@pytest.mark.parametrize("folder", ["run", "npy", "none"])
def test_a_folder_without_an_index_is_one_line(folder, blend, tmp_path):
    if folder == "npy":
        export(blend, "npy", tmp_path / "npy")
    with pytest.raises(ArtefactError):
        load_index(blend if folder == "run" else tmp_path / folder)


def test_a_hub_folder_is_a_run_with_the_same_lists(blend, tmp_path):
    export(blend, "hub", tmp_path / "out")
    before, after = cr.load_model(blend), cr.load_model(tmp_path / "out")
    assert rows(after.recommend(k=7)) == rows(before.recommend(k=7))
    histories = [[2, 4], [1, 3, 5]]
    found = [rows(model.recommend_for_history(histories, 5)) for model in (before, after)]
    assert found[0] == found[1]
    assert cr.evaluate(after).to_dict() == cr.evaluate(before).to_dict()
    for path in blend.iterdir():
        if path.name != "manifest.json":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    old, new = (json.loads((f / "manifest.json").read_text()) for f in (blend, tmp_path / "out"))
    added = {"README.md", "config.json"}
    assert set(new["files"]) == set(old["files"]) | added
    assert {k: v for k, v in new.items() if k not in ("files", "sha256")} == {
        k: v for k, v in old.items() if k not in ("files", "sha256")
    }


def test_files_that_a_hub_adds_do_not_disturb(blend, tmp_path):
    export(blend, "hub", tmp_path / "out")
    (tmp_path / "out" / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (tmp_path / "out" / ".cache").mkdir()
    assert len(cr.load_model(tmp_path / "out").recommend([0], k=3)) == 3


def test_the_card_has_the_figures_of_the_run(blend, tmp_path):
    export(blend, "hub", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    metrics = cr.load_model(blend).run.metrics
    (results,) = head["model-index"][0]["results"]
    shown = {(m["type"], "full" in m["name"]): m["value"] for m in results["metrics"]}
    for kind in ("sampled", "full"):
        for name, value in metrics[kind].items():
            assert shown[name, kind == "full"] == round(value, 4)
            assert f"{value:.4f} ± {metrics[f'{kind}_se'][name]:.4f}" in body
    assert load_with_version(blend)[1] in body
    assert "interactions and the ids of all users" in body
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    exec(code.replace("FOLDER", str(tmp_path / "out")), {})


def test_the_card_of_a_run_without_held_out_items_says_so(texts, tmp_path):
    export(texts, "hub", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "model-index" not in text
    assert "Nothing was held out" in text


def test_the_card_of_an_updated_run_has_the_figures_from_before(blend, tmp_path):
    model = cr.load_model(blend)
    metrics = model.run.metrics
    model.update({"user": [0, 500], "item": [1, 3], "time": [10**6] * 2}, progress=False)
    model.save(tmp_path / "run")
    export(tmp_path / "run", "hub", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"{metrics['sampled']['HR@10']:.4f} ±" in text
    assert "before its updates" in text
    assert len(cr.load_model(tmp_path / "out").recommend([500], k=3)) == 3


@pytest.mark.parametrize("name", ["comet", "itemknn"])
def test_runs_of_older_versions_go_to_the_hub(name, before, tmp_path):
    export(before / name, "hub", tmp_path / "out")
    lists = [rows(cr.load_model(run).recommend(k=3)) for run in (before / name, tmp_path / "out")]
    assert lists[0] == lists[1]


def test_a_hub_folder_can_be_exported_again(blend, tmp_path):
    export(blend, "hub", tmp_path / "first")
    export(tmp_path / "first", "hub", tmp_path / "second")
    assert rows(cr.load_model(tmp_path / "second").recommend(k=3)) == rows(
        cr.load_model(blend).recommend(k=3)
    )
    version = load_with_version(tmp_path / "first")[1]
    assert version in (tmp_path / "second" / "README.md").read_text("utf-8")


def test_names_in_a_card_are_quoted(blend, tmp_path):
    model = cr.load_model(blend)
    model.describe('/home/me/a|b: "x" 🚲\n---\n# y.csv', {}, {})
    model.save(tmp_path / "run")
    export(tmp_path / "run", "hub", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    head = yaml.safe_load(text.split("---\n")[1])
    assert "🚲" in head["model-index"][0]["results"][0]["dataset"]["name"]
    assert "/home/me" not in text
    assert "\n# y" not in text


@pytest.mark.parametrize("model", ["EASE", "ItemKNN", "Popularity"])
def test_models_without_vectors_go_to_the_hub_alone(model, tmp_path):
    fitted = getattr(cr, model)().fit(checkerboard_log())
    fitted.save(tmp_path / "run")
    for form in ("npy", "onnx", "faiss"):
        with pytest.raises(ConfigError, match=f"{model.lower()} has no vectors"):
            export(tmp_path / "run", form, tmp_path / form)
    export(tmp_path / "run", "hub", tmp_path / "hub")
    loaded = cr.load_model(tmp_path / "hub")
    assert rows(loaded.recommend(k=3)) == rows(fitted.recommend(k=3))


@pytest.mark.parametrize("rows", [[("u", "i")], [("u", f"i{n}") for n in range(5)]])
@pytest.mark.parametrize("form", FORMS)
def test_one_user_who_has_seen_everything_gets_no_items(rows, form, tmp_path):
    users, items = zip(*rows, strict=True)
    log = cr.read({"user": list(users), "item": list(items)})
    cr.FISM(embedding_dim=4, preset="static", epochs=1).fit(log).save(tmp_path / "run")
    export(tmp_path / "run", form, tmp_path / "out")
    if form == "hub":
        assert len(cr.load_model(tmp_path / "out").recommend(k=3)) == 0
    else:
        assert (lists(arrays(tmp_path / "out"), 3) == -1).all()
    if form == "faiss":
        run = load_run(tmp_path / "run")
        vectors = run.user_vectors.numpy()
        seen = run.known.interacted_items(np.arange(1))
        found, _ = load_index(tmp_path / "out").search(vectors, 3, masked=seen)
        assert found.tolist() == [[-1] * min(3, len(rows))]


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_run_is_refused(form, blend, tmp_path):
    run = shutil.copytree(blend, tmp_path / "run")
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="damaged"):
        export(run, form, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_picture_of_a_run_goes_to_the_hub_only_whole(blend, tmp_path):
    cr.load_model(blend).save(tmp_path / "run", pictures={"curves.png": b"a picture"})
    export(tmp_path / "run", "hub", tmp_path / "out")
    assert (tmp_path / "out" / "curves.png").read_bytes() == b"a picture"
    (tmp_path / "run" / "curves.png").write_bytes(b"another")
    with pytest.raises(ArtefactError, match=r"curves\.png: damaged"):
        export(tmp_path / "run", "hub", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_existing_folder_is_left_as_it_is(blend, tmp_path):
    for out in (tmp_path, blend):
        (tmp_path / "mine").write_text("x")
        with pytest.raises(InputError, match="exists and is not empty"):
            export(blend, "npy", out)
    with pytest.raises(InputError, match="is a file"):
        export(blend, "npy", tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    export(blend, "npy", tmp_path / "empty")


def test_a_run_that_is_replaced_during_an_export_is_refused(blend, tmp_path, monkeypatch):
    from comet_rec.export import folder

    loaded = folder.load_with_version
    monkeypatch.setattr(folder, "load_with_version", lambda f: (loaded(f)[0], "000000000000"))
    with pytest.raises(ArtefactError, match="replaced during the export"):
        export(blend, "hub", tmp_path / "out")


def test_a_missing_faiss_is_one_line_that_names_the_extra(blend, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r'pip install "comet-rec\[ann\]"'):
        export(blend, "faiss", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

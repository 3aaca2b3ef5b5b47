"""Runs on disk: whole or absent, every flipped byte noticed, no pickle."""

from __future__ import annotations

import json

import pytest

import comet_rec as cr
from comet_rec.artefact.folder import write_folder
from comet_rec.errors import ArtefactError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    import numpy as np

    from tests.conftest import make_log, random_pairs

    log = make_log(random_pairs(np.random.default_rng(0), 20, 30, 8))
    model = cr.COMET(embedding_dim=4, history_length=4, hidden=(8,), epochs=1)
    folder = tmp_path_factory.mktemp("runs") / "run"
    model.fit(cr.leave_one_out(log, negatives=9)).save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    import shutil

    return shutil.copytree(saved, tmp_path / "copy")


def test_it_holds_the_files_of_the_contract(saved):
    names = {p.name for p in saved.iterdir()}
    assert names == {
        "model.safetensors", "manifest.json", "ids.safetensors", "interactions.safetensors",
        "vectors.safetensors", "protocol.safetensors", "metrics.json", "log.jsonl", "config.toml",
    }  # fmt: skip
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert set(manifest["files"]) == names - {"manifest.json"}
    line = json.loads((saved / "log.jsonl").read_text().splitlines()[0])
    assert {"epoch", "positives", "train_seconds", "loss", "validation"} <= set(line)


def test_a_flipped_byte_in_any_file_is_noticed(copy):
    for path in sorted(copy.iterdir()):
        good = path.read_bytes()
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
        with pytest.raises(ArtefactError):
            cr.load_model(copy)
        path.write_bytes(good)
    cr.load_model(copy)


def test_missing_files_and_folders_are_told(copy, tmp_path):
    with pytest.raises(ArtefactError, match="no such run"):
        cr.load_model(tmp_path / "nowhere")
    (copy / "ids.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"ids.safetensors is missing"):
        cr.load_model(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ArtefactError, match="is not a run"):
        cr.load_model(copy)


def test_another_schema_is_refused(copy):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ArtefactError, match="schema 99"):
        cr.load_model(copy)


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    def fails(folder):
        (folder / "part").write_text("x")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "run", fails)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_is_replaced_whole(saved, copy):
    (copy / "stray").write_text("x")
    cr.load_model(saved).save(copy)
    assert not (copy / "stray").exists()
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]

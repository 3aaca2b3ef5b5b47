"""Runs on disk: whole or absent, every flipped byte noticed, no pickle."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file as np_load_file
from safetensors.numpy import save_file as np_save_file
from safetensors.torch import load_file, save_file

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


def redone(folder, name, change):
    """The file changed, and the manifest's digests with it."""
    about = json.loads((folder / "manifest.json").read_text())
    names = [*about.pop("files")]
    del about["schema"], about["sha256"]

    def write(fresh):
        for each in names:
            shutil.copy(folder / each, fresh)
        change(fresh / name)
        return about

    write_folder(folder, write)


def test_parameters_of_another_version_are_told(copy):
    def without_h(path):
        state = load_file(path)
        del state["h"]
        save_file(state, path)

    redone(copy, "model.safetensors", without_h)
    with pytest.raises(
        ArtefactError, match=r"\bh is missing; .* not those of comet in this version"
    ):
        cr.load_model(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "ids.safetensors"])
def test_a_file_that_was_cut_before_its_digest_is_told(copy, name):
    redone(copy, name, lambda path: path.write_bytes(path.read_bytes()[:40]))
    with pytest.raises(ArtefactError, match=f"{name}: damaged, its header does not match its data"):
        cr.load_model(copy)


def test_another_schema_is_refused(copy):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ArtefactError, match="format 99"):
        cr.load_model(copy)


def test_nothing_is_left_behind_when_writing_fails(tmp_path):
    def fails(folder):
        (folder / "part").write_text("x")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "run", fails)
    assert list(tmp_path.iterdir()) == []


def no_exchange(one, other):
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_an_earlier_run_comes_back_when_the_new_one_cannot_take_its_place(saved, copy, monkeypatch):
    """Where two names cannot be exchanged at once."""
    monkeypatch.setattr("comet_rec.artefact.folder.exchange", no_exchange)
    rename, calls = Path.rename, []

    def second_fails(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    model = cr.load_model(saved)
    before = (copy / "manifest.json").read_bytes()
    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(ArtefactError, match="cannot be written"):
        model.save(copy)
    assert (copy / "manifest.json").read_bytes() == before
    cr.load_model(copy)


def test_rows_that_are_not_those_of_the_fingerprint_are_told(copy):
    """Every digest is right, and still the log is another."""

    def other(path):
        rows = np_load_file(path)
        rows["items"] = rows["items"][::-1].copy()
        np_save_file(rows, path)

    redone(copy, "interactions.safetensors", other)
    with pytest.raises(ArtefactError, match="do not match their fingerprint"):
        cr.load_model(copy)


def test_an_earlier_run_is_replaced_whole(saved, copy):
    (copy / "config.toml").write_text("x")
    cr.load_model(saved).save(copy)
    assert (copy / "config.toml").read_text() == (saved / "config.toml").read_text()
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"checkpoints/best.pt": "x"}, "exists and is not a run"),
        ({"checkpoints/last.ckpt": "x"}, "exists and is not a run"),
        ({"checkpoints/last_week/thesis.tex": "x"}, "exists and is not a run"),
        ({"manifest.json": '{"name": "a web page", "files": []}'}, "exists and is not a run"),
        ({"manifest.json": "[]"}, "exists and is not a run"),
        ({"checkpoints/last.json": "{}", "notes.md": "x"}, "holds notes.md, which is not part of"),
    ],
)
def test_what_is_not_ours_stays(saved, tmp_path, files, why):
    place = tmp_path / "place"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    with pytest.raises(ArtefactError, match=why):
        cr.load_model(saved).save(place)
    assert all((place / name).read_text() == text for name, text in files.items())
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_a_note_in_a_run_stays(saved, copy):
    (copy / "notes.md").write_text("x")
    with pytest.raises(ArtefactError, match="holds notes"):
        cr.load_model(saved).save(copy)
    assert (copy / "notes.md").read_text() == "x"


def test_what_the_manifest_does_not_name_is_not_read(checkerboard, tmp_path):
    """Vectors of an earlier model whose folder another was copied into."""
    split = cr.leave_one_out(checkerboard, negatives=20)
    cr.MF(epochs=1, embedding_dim=4).fit(split).save(tmp_path / "mf")
    ease = cr.EASE().fit(split)
    ease.save(tmp_path / "ease")
    shutil.copytree(tmp_path / "ease", tmp_path / "mf", dirs_exist_ok=True)
    both = cr.load_model(tmp_path / "mf")
    assert both.run.user_vectors is None
    assert list(both.recommend(k=3).rows()) == list(ease.recommend(k=3).rows())


def test_what_systems_and_killed_writers_leave_is_in_nobodys_way(saved, copy):
    for name in (".DS_Store", ".tmpAbC", ".nfs0001"):
        (copy / name).write_text("x")
    cr.load_model(saved).save(copy)
    assert {p.name for p in copy.iterdir()} == {p.name for p in saved.iterdir()}


def test_files_are_as_open_as_the_user_lets_them_be(saved, tmp_path):
    before = os.umask(0o077)
    try:
        cr.load_model(saved).save(tmp_path / "run")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()]
    assert set(modes) == {0o600}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700

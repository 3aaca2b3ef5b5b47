"""Checkpoints: one at a time, whatever writers were killed before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from comet_rec.artefact import checkpoint
from comet_rec.artefact.checkpoint import forget, has_checkpoint, load_checkpoint, save_checkpoint
from comet_rec.config import Config
from comet_rec.data.arrays import Array
from comet_rec.errors import ArtefactError, ConfigError
from comet_rec.models.mf import MFConfig
from comet_rec.training.checkpoints import checkpoint_arrays


def test_a_new_one_takes_the_place_of_the_old_and_of_what_killed_writers_left(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"stage": "validation", "step": 1})
    for name in (".last-validation-2.safetensors.tmp", ".tmpXyz"):
        (tmp_path / name).write_text("half")
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, {"stage": "validation", "step": 3})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"last.json", "last-validation-3.safetensors"}
    tensors, about = load(tmp_path)
    assert torch.equal(tensors["w"], torch.ones(2))
    assert about["step"] == 3


LINE = {
    "stage": "validation", "epoch": 1, "positives": 9, "train_seconds": 0.1, "loss": 0.1,
    "validation": None,
}  # fmt: skip
ABOUT = {"stage": "validation", "step": 25, "lines": [LINE]}
DECLARED = {"w": Array(shape=(2,))}


def load(folder):
    return load_checkpoint(folder, lambda about: DECLARED)


def test_plain_data_come_back_as_they_were(tmp_path):
    assert load(tmp_path) is None
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    assert load(tmp_path)[1] == ABOUT


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: None,
        lambda entry: [entry],
        lambda entry: "a",
        lambda entry: {},
        lambda entry: {**entry, "about": {**ABOUT, "stage": "x"}},
        lambda entry: {**entry, "about": {"stage": "validation"}},
        lambda entry: {**entry, "file": 5},
        lambda entry: {**entry, "sha256": None},
    ],
)
def test_no_changed_checkpoint_is_gone_on_with(tmp_path, change: Callable[[Any], Any]):
    """Its SHA-256 covers the plain data too: a stage of another name would begin anew."""
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    pointer = tmp_path / "last.json"
    pointer.write_text(json.dumps(change(json.loads(pointer.read_text()))))
    with pytest.raises(ArtefactError, match=r"damaged checkpoint .*; remove the folder") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "last-validation-25.safetensors").is_file()


def test_changed_tensors_are_not_gone_on_with(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    weights = tmp_path / "last-validation-25.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match=f"{weights.name}: damaged, its SHA-256 differs"):
        load(tmp_path)


def test_a_checkpoint_that_an_earlier_version_wrote_is_read(before):
    config = Config(name="mf", preset="auto", model=MFConfig(embedding_dim=2))
    folder = before / "checkpoints"
    tensors, about = load_checkpoint(folder, lambda _: checkpoint_arrays(config, 9, 12))
    assert about["step"] == 12
    assert {name.split(".")[0] for name in tensors} == {"model", "average", "optimizer"}


def test_a_checkpoint_of_another_model_is_told_before_its_tensors_are_read(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    (tmp_path / "last-validation-25.safetensors").write_text("not read")

    def refuse(about):
        raise ConfigError("begun with another model")

    with pytest.raises(ConfigError, match="another model"):
        load_checkpoint(tmp_path, refuse)


def test_a_checkpoint_of_the_same_step_takes_another_name(tmp_path):
    """Until the pointer names the new file, the old one must stay as it is."""
    for value in (0.0, 1.0, 2.0):
        save_checkpoint(tmp_path, {"w": torch.full((2,), value)}, ABOUT)
        assert load(tmp_path)[0]["w"].tolist() == [value] * 2
        assert len(list(tmp_path.iterdir())) == 2


def test_a_fault_after_the_new_checkpoint_stands_is_none(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {**ABOUT, "step": 1})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda path: os.rmdir(path))  # fails
        save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    assert load(tmp_path)[0]["w"].tolist() == [1.0] * 2


def test_a_folder_has_a_checkpoint_of_its_own_or_of_a_part(tmp_path):
    assert not has_checkpoint(tmp_path)
    assert not has_checkpoint(tmp_path / "missing")
    for part in ("blend", "measured"):
        folder = tmp_path / part
        (folder / part).mkdir(parents=True)
        assert has_checkpoint(folder)
    (tmp_path / "other" / "final").mkdir(parents=True)  # it alone is nothing to resume from
    assert not has_checkpoint(tmp_path / "other")
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    assert has_checkpoint(tmp_path)


def test_a_forgotten_checkpoint_leaves_nothing_to_resume_from(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    for part in ("blend", "measured", "final", "companions"):
        (tmp_path / part / "deep").mkdir(parents=True)
    forget(tmp_path)
    assert load(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["last-validation-25.safetensors"]
    forget(tmp_path)  # nothing is there: no error
    (tmp_path / "last.json").mkdir()
    with pytest.raises(ArtefactError, match=f"^{tmp_path}: cannot be cleared: "):
        forget(tmp_path)


def test_a_checkpoint_that_cannot_be_written_says_whether_an_earlier_one_stays(tmp_path):
    folder = tmp_path / "a" / "b"  # folders above are made, too
    save_checkpoint(folder, {"w": torch.ones(2)}, ABOUT)
    (folder / ".last.json.tmp").mkdir()
    with pytest.raises(ArtefactError) as caught:
        save_checkpoint(folder, {"w": torch.ones(2)}, ABOUT)
    stays = "; --resume goes on from the last checkpoint"
    assert str(caught.value) == f"{folder}: cannot be written: Is a directory{stays}"
    (folder / "last.json").unlink()
    with pytest.raises(ArtefactError) as caught:
        save_checkpoint(folder, {"w": torch.ones(2)}, ABOUT)
    assert str(caught.value) == f"{folder}: cannot be written: Is a directory"


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    """A training goes on while somebody looks at its checkpoint."""

    def save(step: int) -> None:
        save_checkpoint(tmp_path, {"w": torch.full((2,), float(step))}, {**ABOUT, "step": step})

    save(1)
    steps = []

    def declare(about):
        steps.append(about["step"])
        if len(steps) <= times:
            save(about["step"] + 1)
        return DECLARED

    times = 1
    tensors, about = load_checkpoint(tmp_path, declare)
    assert steps == [1, 2]
    assert about["step"] == 2
    assert tensors["w"].tolist() == [2.0, 2.0]
    times = 99
    monkeypatch.setattr(checkpoint, "TRIES", 3)
    with pytest.raises(ArtefactError, match=r"checkpoint \(it was replaced each time it was read"):
        load_checkpoint(tmp_path, declare)


def test_a_checkpoint_without_its_tensors_is_damaged(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)
    (tmp_path / "last-validation-25.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"\(last-validation-25.safetensors is missing\)"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("error", "text", "cause"),
    [(ValueError("a\nb"), "a", False), (KeyError("x"), "unexpected content", True)],
)
def test_what_the_check_of_a_checkpoint_raises_becomes_one_line(tmp_path, error, text, cause):
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, ABOUT)

    def declare(about):
        raise error

    with pytest.raises(ArtefactError, match=f"damaged checkpoint .{text}.; remove") as caught:
        load_checkpoint(tmp_path, declare)
    assert "\n" not in str(caught.value)
    assert (caught.value.__cause__ is error) == cause

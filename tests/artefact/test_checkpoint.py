"""Checkpoints: one at a time, whatever writers were killed before."""

from __future__ import annotations

import torch

from comet_rec.artefact.checkpoint import load_checkpoint, save_checkpoint


def test_a_new_one_takes_the_place_of_the_old_and_of_what_killed_writers_left(tmp_path):
    save_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"stage": "validation", "step": 1})
    for name in (".last-validation-2.safetensors.tmp", ".tmpXyz"):
        (tmp_path / name).write_text("half")
    save_checkpoint(tmp_path, {"w": torch.ones(2)}, {"stage": "validation", "step": 3})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"last.json", "last-validation-3.safetensors"}
    tensors, about = load_checkpoint(tmp_path)
    assert torch.equal(tensors["w"], torch.ones(2))
    assert about["step"] == 3

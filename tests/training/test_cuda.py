"""Trainings on a GPU; without one these tests are skipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import comet_rec as cr
from tests.conftest import checkerboard_log
from tests.models.test_contract import SMALL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")


@pytest.mark.parametrize("optimizer", ["adam", "sparse_adam"])
@pytest.mark.parametrize("name", ["COMET", "MF"])
def test_a_gpu_gives_the_losses_of_the_cpu(name, optimizer):
    split = cr.leave_one_out(checkerboard_log(), negatives=30)
    settings = SMALL[name.lower()] | {"preset": "static", "epochs": 2, "batch_size": 256}
    if name == "COMET":
        settings |= {"dropout": 0.0, "id_embedding_dropout": 0.0}
    runs = [
        getattr(cr, name)(**settings, table_optimizer=optimizer, device=device).fit(split).run
        for device in ("cpu", "cuda")
    ]
    losses = [[line["loss"] for line in run.log] for run in runs]
    assert np.allclose(*losses, rtol=1e-3)
    assert runs[1].state["item_embedding"].device.type == "cpu"

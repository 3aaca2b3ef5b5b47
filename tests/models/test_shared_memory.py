"""Models that are sent to other processes through PyTorch's shared memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.models import base
from tests.models.test_contract import CLOSED


@pytest.mark.parametrize("name", CLOSED)
def test_scores_stay_when_pytorch_moves_the_tensors_to_shared_memory(name, checkerboard):
    """`multiprocessing` moves them, and frees the memory that views of the old place show."""
    model = ESTIMATORS[name]().fit(checkerboard)
    run = model.run
    config = base.config_class(name)()
    scorer = base.build(name, config, run.interactions.n_users, run.interactions.n_items, 0)
    state = {key: torch.from_numpy(value.numpy().copy()) for key, value in run.state.items()}
    scorer.load_state_dict(state)
    users = np.arange(8)
    expected = scorer.score_all(users, run.interactions.matrix[users])
    for tensor in state.values():
        tensor.share_memory_()
    gc.collect()
    _overwritten = [np.full(tensor.numel(), 77, tensor.numpy().dtype) for tensor in state.values()]
    assert np.array_equal(scorer.score_all(users, run.interactions.matrix[users]), expected)

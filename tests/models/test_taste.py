"""The taste beside COMET: a trained FISM whose logit is added, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comet_rec.config import TrainConfig
from comet_rec.data.batches import Batches
from comet_rec.data.histories import fold_in, shown
from comet_rec.errors import ConfigError
from comet_rec.models import base
from comet_rec.models.base import TensorBatch
from comet_rec.models.comet import CometConfig
from comet_rec.models.encoding import all_vectors, new_user_vectors
from comet_rec.models.fism import FISMConfig
from comet_rec.training.objective import objective

N_USERS, N_ITEMS = 40, 60
SIZES = {"embedding_dim": 8, "history_length": 6, "hidden": (8,), "history": "causal"}
WEIGHT = 0.7


def comet(**changes):
    return base.build("comet", CometConfig(**SIZES | changes), N_USERS, N_ITEMS, 0)


def with_taste(**changes):
    """A COMET beside a FISM, and both alone with the same parameters."""
    fism = base.build("fism", FISMConfig(embedding_dim=5, alpha=0.5), N_USERS, N_ITEMS, 3)
    for bias in fism.biases.parameters():
        torch.nn.init.normal_(bias.data, generator=torch.Generator().manual_seed(4))
    joint = comet(taste_dim=5, taste_weight=WEIGHT, **changes)
    joint.load_state_dict(joint.initial_state(fism=fism.state_dict()))
    return joint, comet(**changes), fism


def logits(model, log) -> torch.Tensor:
    of_users, of_items = shown(log, model.histories)
    users, items = all_vectors(model, of_users, of_items, N_USERS, N_ITEMS)
    return users @ items.T


@pytest.mark.parametrize("towers", ["user", "both"])
def test_its_logit_is_added_with_its_weight(random_log, towers):
    log = random_log(N_USERS, N_ITEMS, 12)
    joint, alone, fism = with_taste(towers=towers)
    wanted = logits(alone, log) + WEIGHT * logits(fism, log)
    torch.testing.assert_close(logits(joint, log), wanted)
    assert (logits(joint, log) - logits(alone, log)).abs().max() > 0.1


def test_a_new_user_has_both_parts(random_log):
    histories = [np.array([3, 9, 1]), np.arange(20)]  # the second is longer than N
    joint, alone, fism = with_taste(towers="user")
    found, of_comet, of_fism = (
        new_user_vectors(model, fold_in(histories, model.histories, N_ITEMS))
        for model in (joint, alone, fism)
    )
    torch.testing.assert_close(found, torch.cat([of_comet, WEIGHT * of_fism], dim=1))


@pytest.mark.parametrize(
    "training",
    [
        {"loss": "softmax"},
        {"loss": "softmax", "softmax_items": 25},
        {"loss": "bce", "negatives": 3},
    ],
)
@pytest.mark.parametrize("towers", ["user", "both"])
def test_training_goes_on_as_if_it_were_not_there(random_log, training, towers):
    log, config = random_log(N_USERS, N_ITEMS, 12), TrainConfig(**training)
    joint, alone, _ = with_taste(towers=towers)
    found = []
    for model in (joint, alone):
        softmax = config.softmax_items if config.loss == "softmax" else None
        batches = Batches(
            log, batch_size=30, negatives=3, histories=model.histories, seed=0,
            softmax_items=softmax,
        )  # fmt: skip
        batch = TensorBatch.of(next(batches.epoch(0)), torch.device("cpu"))
        loss, _ = objective(model, batch, config, torch.Generator().manual_seed(1))
        loss.backward()
        found.append((loss, {k: p.grad for k, p in model.named_parameters()}))
    (loss, grads), (wanted, wanted_grads) = found
    assert torch.equal(loss, wanted)
    for name, grad in wanted_grads.items():
        torch.testing.assert_close(grads[name], grad)
    frozen = set(grads) - set(wanted_grads)
    assert frozen
    assert all(name.startswith("taste.") and grads[name] is None for name in frozen)


def test_a_new_item_has_the_constant_alone(random_log):
    log = random_log(N_USERS, N_ITEMS, 12)
    joint, alone, fism = with_taste(towers="both")
    of_users, of_items = shown(log, joint.histories)
    users, _ = all_vectors(joint, of_users, of_items, N_USERS, N_ITEMS)
    found = users @ joint.encode_items(None, torch.from_numpy(of_items[:3])).T
    users, _ = all_vectors(alone, of_users.cut, of_items, N_USERS, N_ITEMS)
    wanted = users @ alone.encode_items(None, torch.from_numpy(of_items[:3])).T
    constant = fism.biases.bias + fism.biases.users
    torch.testing.assert_close(found, wanted + WEIGHT * constant.reshape(-1, 1))


@pytest.mark.parametrize(
    ("setting", "value"), [("taste_dim", -1), ("taste_alpha", 1.5), ("taste_weight", float("nan"))]
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ConfigError, match=f"model.{setting} = "):
        CometConfig(**{setting: value})

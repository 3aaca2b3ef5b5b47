"""Verification mode: it passes on right code, and finds faults in fast forms."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec import verify
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.evaluation import ranking
from comet_rec.retrieval import exact
from comet_rec.training import losses
from tests.models.test_contract import NEURAL, SMALL


@pytest.fixture
def verifying(monkeypatch):
    monkeypatch.setenv("COMET_VERIFY", "1")


def trained(name: str, split, **settings):
    common = {"preset": "static", "epochs": 1, "batch_size": 256}
    return ESTIMATORS[name](**SMALL.get(name, {}) | common | settings).fit(split)


FAST_FORMS = (
    ("comet_rec.models.layers", "cross_features"),
    ("comet_rec.models.layers", "window_features"),
    ("comet_rec.models.kernels.pair_products", "_matrix"),
    ("comet_rec.models.kernels.outer_product", "_factors"),
    ("torch.nn.functional", "scaled_dot_product_attention"),
)


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


@pytest.mark.parametrize("name", NEURAL)
def test_slow_forms_agree_with_fast_ones(name, split, verifying):
    model = trained(name, split)
    cr.evaluate(model, split)
    model.recommend(k=5)


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_layers_of_comet_and_a_softmax_agree(precision, split, verifying):
    settings = {"layers": 1, "history": "causal", "towers": "user", "user_embedding": False}
    more = {"loss": "softmax", "matmul_precision": precision, "widths": (1, 8)}
    trained("comet", split, **settings, **more)


@pytest.mark.parametrize("name", ["comet", "mf", "sasrec", "convncf"])
def test_slow_forms_alone_give_the_same_model(name, split, monkeypatch):
    fast = trained(name, split)
    monkeypatch.setenv("COMET_SLOW", "1")
    for module, function in FAST_FORMS:
        forbidden = lambda *given, **more: pytest.fail("a fast form was used")  # noqa: E731
        monkeypatch.setattr(importlib.import_module(module), function, forbidden)
    slow = trained(name, split)
    for key, tensor in fast.run.state.items():
        torch.testing.assert_close(slow.run.state[key], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "module", "function", "settings"),
    [
        ("comet", "comet_rec.models.layers", "cross_features", {}),
        ("mf", "comet_rec.models.latent", "pair_products", {}),
        ("sasrec", "comet_rec.models.sasrec", "causal_attention", {}),
    ],
)
def test_a_fault_in_a_fast_form_stops_the_training(
    name, module, function, settings, split, verifying, monkeypatch
):
    room = importlib.import_module(module)
    real = getattr(room, function)

    def faulty(*given, **more):
        found = real(*given, **more)
        return found if verify.slow() else found * 1.05

    monkeypatch.setattr(room, function, faulty)
    with pytest.raises(verify.VerificationError, match=r"epoch 1, batch 1: (loss|gradient of)"):
        trained(name, split, **settings)


def test_a_fault_in_the_softmax_stops_the_training(split, verifying, monkeypatch):
    real = losses._FullSoftmax.apply
    monkeypatch.setattr(losses._FullSoftmax, "apply", lambda *given: real(*given) * 1.05)
    with pytest.raises(verify.VerificationError, match="loss"):
        trained("mf", split, loss="softmax")


def test_a_fault_in_ranks_and_lists_is_found(split, verifying, monkeypatch):
    model = trained("mf", split)
    real = exact._best
    # The second best item in place of the best.
    monkeypatch.setattr(exact, "_best", lambda *given: tuple(x.roll(1, 1) for x in real(*given)))
    with pytest.raises(verify.VerificationError, match="lists"):
        model.recommend(k=5)
    monkeypatch.setattr(ranking.np, "count_nonzero", lambda *given, **more: np.zeros(1, int) + 3)
    with pytest.raises(verify.VerificationError, match="better and tied"):
        cr.evaluate(model, split)


def test_without_the_variable_nothing_is_repeated(split, monkeypatch):
    monkeypatch.delenv("COMET_VERIFY", raising=False)
    monkeypatch.setattr(verify, "assert_close", lambda *given: pytest.fail("compared"))
    trained("mf", split)

"""COMET past the paper: a gate on filters, one tower, users without a row, rows that drop out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.data.histories import input_histories
from comet_rec.errors import ConfigError
from comet_rec.evaluation.scoring import all_vectors
from comet_rec.models import base
from comet_rec.models.comet import CometConfig
from tests.models import reference

M, N_ITEMS = 5, 9
SMALL = {"preset": "static", "embedding_dim": 8, "history_length": 8, "hidden": (16,), "epochs": 2}


def build(seed: int = 0, **changes):
    fields = {"embedding_dim": 6, "history_length": 4, "widths": (1, 3, 6), "channels": 2}
    fields |= {"hidden": (5,), "init_scale": 0.5} | changes
    return base.build("comet", CometConfig(**fields), M, N_ITEMS, seed)


def histories(rows: int = M, pad: int = N_ITEMS, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    out = rng.integers(0, pad, size=(rows, 4))
    for row in out:
        row[: rng.integers(0, 4)] = pad
    return torch.from_numpy(out.astype(np.int32))


def array(t: torch.Tensor) -> np.ndarray:
    return t.detach().double().numpy()


def loop_gate(features: np.ndarray, model) -> np.ndarray:
    """Each filter's features times its weight, filter by filter."""
    mlp, k, at, filters = model.user_tower.gate.mlp, 6, 0, []
    for width in (1, 3, 6):
        for _ in range(2):
            filters.append(features[at : at + k - width + 1])
            at += k - width + 1
    assert at == len(features)
    squeezed = np.array([sum(f) / len(f) for f in filters])
    hidden = np.maximum(array(mlp.weights[0]) @ squeezed + array(mlp.biases[0]), 0)
    raw = array(mlp.weights[1]) @ hidden + array(mlp.biases[1])
    return np.concatenate([f / (1 + math.exp(-x)) for f, x in zip(filters, raw, strict=True)])


@pytest.mark.parametrize("convolution", ["frequency", "direct"])
def test_the_gate_is_a_loop_over_filters(convolution):
    model = build(gate="squeeze", convolution=convolution)
    for parameter in model.user_tower.gate.parameters():
        parameter.data = torch.sin(torch.arange(parameter.numel())).view_as(parameter)
    shown_rows = histories()
    vectors = array(model.encode_users(None, shown_rows))
    tower = reference.parameters_of(model)["user_tower"]
    for user in range(M):
        maps = reference.embedding_map(array(model.item_embedding), shown_rows[user].numpy())
        x = loop_gate(reference.cross_features(maps, tower["weights"], tower["biases"]), model)
        layers = list(zip(tower["mlp_weights"], tower["mlp_biases"], strict=True))
        x = np.maximum(layers[0][0] @ x + layers[0][1], 0)
        np.testing.assert_allclose(vectors[user], layers[1][0] @ x + layers[1][1], 1e-4, 1e-5)


def test_the_gate_learns_and_changes_no_parameter_drawn_before_it():
    gated, plain = build(gate="squeeze"), build()
    assert torch.equal(gated.user_tower.mlp.weights[1], plain.user_tower.mlp.weights[1])
    weights = torch.sin(torch.arange(M * 6)).view(M, 6)
    (gated.encode_users(torch.arange(M), histories()) * weights).sum().backward()
    for parameter in gated.user_tower.gate.mlp.weights:
        assert bool((parameter.grad != 0).any())


def test_without_the_item_tower_an_item_is_its_embedding(random_log):
    log = random_log(M, N_ITEMS, 4)
    model = build(towers="user")
    of_users, of_items = input_histories(log, model.histories)
    assert of_items is None
    users, items = all_vectors(model, of_users, of_items, M, N_ITEMS)
    assert torch.equal(items, model.item_embedding.detach())
    drawn = model.encode_items(torch.arange(3), None, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, model.item_embedding[:3])  # nothing of it drops out
    parameters = reference.parameters_of(build())
    tower = build(towers="user").user_tower  # the user's side is as it was
    torch.testing.assert_close(array_of(tower), parameters["user_tower"]["mlp_weights"][0])
    expected = [
        reference.interaction_vector(array(model.item_embedding), row, towers_of(model))
        for row in of_users
    ]
    z_users = (array(model.user_embedding) + np.stack(expected)) * array(model.h)
    np.testing.assert_allclose(array(users), z_users, 1e-4, 1e-5)
    with pytest.raises(ConfigError, match="items that were not in training"):
        model.encode_items(None, None)


def test_own_embeddings_alone_are_all_that_is_there():
    model = build(enrich="original", id_embedding_dropout=0.5)
    names = {name for name, _ in model.named_parameters()}
    assert names == {"user_embedding", "item_embedding", "h"}
    assert model.histories is None
    drawn = torch.Generator().manual_seed(0)
    users = model.encode_users(torch.arange(3), None, drawn)
    items = model.encode_items(torch.arange(3), None, drawn)
    assert torch.equal(users, model.user_embedding[:3])  # no tower to teach: nothing drops out
    assert torch.equal(items, model.item_embedding[:3])


def array_of(tower) -> np.ndarray:
    return array(tower.mlp.weights[0])


def towers_of(model) -> dict:
    tower = model.user_tower
    return {
        "weights": [array(w) for w in tower.convolution.weights],
        "biases": [array(b) for b in tower.convolution.biases],
        "mlp_weights": [array(w) for w in tower.mlp.weights],
        "mlp_biases": [array(b) for b in tower.mlp.biases],
    }


def test_a_user_without_a_row_is_the_history():
    model, rows = build(user_embedding=False), histories()
    known = model.encode_users(torch.arange(M), rows, None)
    assert torch.equal(known, model.encode_users(None, rows, None))
    assert torch.equal(known, build().encode_users(None, rows, None))


@pytest.mark.parametrize(
    ("changes", "tables"),
    [
        ({}, 2),
        ({"user_embedding": False}, 2),  # N(i) is a map of users' rows
        ({"towers": "user"}, 2),
        ({"towers": "user", "user_embedding": False}, 1),
        ({"towers": "user", "enrich": "interaction"}, 1),
        ({"enrich": "original"}, 2),
    ],
)
def test_there_is_a_table_of_users_where_something_reads_it(changes, tables):
    model = build(**changes)
    assert len(model.embedding_parameters()) == tables
    assert ("user_embedding" in model.state_dict()) == (tables == 2)
    weights = torch.sin(torch.arange(M * N_ITEMS)).view(M, N_ITEMS)
    of_items = histories(N_ITEMS, M) if changes.get("towers") != "user" else None
    z_users = model.encode_users(torch.arange(M), histories()) * model.h
    ((z_users @ model.encode_items(torch.arange(N_ITEMS), of_items).T) * weights).sum().backward()
    if changes.get("enrich") != "original":  # its towers stand idle
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"towers": "user"},
        {"towers": "user", "user_embedding": False, "gate": "squeeze"},
        {"user_embedding": False},
    ],
)
def test_fit_save_load_and_fold_in_work_unchanged(checkerboard, tmp_path, changes):
    split = cr.leave_one_out(checkerboard, negatives=30)
    model = cr.COMET(**SMALL, **changes, history="causal").fit(split, refit=True)
    model.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    assert all(torch.equal(again.run.state[key], value) for key, value in model.run.state.items())
    assert cr.evaluate(again).to_dict() == model.run.metrics
    table, loaded = (m.recommend_for_history([[2, 4, 6]], k=5) for m in (model, again))
    assert np.array_equal(table["item_id"], loaded["item_id"])
    if changes.get("user_embedding") is False:  # known or new, the history alone decides
        known = model.run.known
        own = known.items[known.users == 5]
        new = model.recommend_for_history([own.tolist()], k=5)
        assert np.array_equal(new["item_id"], model.recommend([5], k=5)["item_id"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"gate": "squeeze", "cross": "mlp"}, 'weighs the filters of model.cross = "cnn\\+mlp"'),
        ({"enrich": "original", "user_embedding": False}, "leaves no user"),
    ],
)
def test_settings_without_a_meaning_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        CometConfig(**changes)

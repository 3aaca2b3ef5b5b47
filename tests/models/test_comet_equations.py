"""models/comet.py beside the paper: each equation against its loop, and what the file may hold."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from comet_rec.models import base, comet
from comet_rec.models.comet import COMET, CometConfig
from comet_rec.models.kernels.cross_features import embedding_maps
from tests.models import reference

N_USERS, N_ITEMS = 5, 7
SETTINGS = {
    "embedding_dim": 6, "history_length": 4, "widths": (1, 3, 6), "channels": 2, "hidden": (5, 3),
    "init_scale": 0.5,
}  # fmt: skip
ALLOWED = {
    "__future__",
    "contextlib",
    "math",
    "torch",
    "jaxtyping",
    "comet_rec.models.comet_config",
}
"""Modules that comet.py may import beside layers and kernels."""


@pytest.fixture(params=["frequency", "direct"])
def model(request) -> COMET:
    config = CometConfig(**SETTINGS, convolution=request.param)
    return COMET(config, N_USERS, N_ITEMS, torch.Generator().manual_seed(3))


@pytest.fixture
def histories(rng) -> tuple[torch.Tensor, torch.Tensor]:
    """N(u) of all users and N(i) of all items, some places padded in front."""
    sides = []
    for rows, pad in ((N_USERS, N_ITEMS), (N_ITEMS, N_USERS)):
        side = rng.integers(0, pad, size=(rows, 4))
        for row in side:
            row[: rng.integers(0, 4)] = pad
        sides.append(torch.from_numpy(side))
    return sides[0], sides[1]


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def close(found: torch.Tensor, expected) -> None:
    np.testing.assert_allclose(array(found), np.stack(expected), rtol=1e-4, atol=1e-5)


def test_eqs_2_and_3_stack_the_rows_of_the_other_sides_table(model, histories):
    tables = (model.item_embedding, model.user_embedding)
    for table, side in zip(tables, histories, strict=True):
        maps = embedding_maps(table, side)
        close(maps, [reference.embedding_map(array(table), row.numpy()) for row in side])


def test_eqs_4_and_5_are_cross_features_of_every_width_channel_and_place(model, histories):
    tower, table = model.user_tower, model.item_embedding
    parts = reference.parameters_of(model)["user_tower"]
    expected = []
    for row in histories[0]:
        maps = reference.embedding_map(array(table), row.numpy())
        expected.append(reference.cross_features(maps, parts["weights"], parts["biases"]))
    close(tower.convolution(table, histories[0]), expected)


def test_eqs_6_and_7_are_an_mlp_on_the_cross_features(model, histories):
    sides = [
        (model.user_tower, model.item_embedding, "user_tower", histories[0]),
        (model.item_tower, model.user_embedding, "item_tower", histories[1]),
    ]
    for tower, table, name, side in sides:
        parts = reference.parameters_of(model)[name]
        rows = [reference.interaction_vector(array(table), row.numpy(), parts) for row in side]
        close(tower(table, side), rows)


def test_eq_8_is_the_weighted_inner_product_of_enriched_embeddings(model, histories):
    z_users = model.encode_users(torch.arange(N_USERS), histories[0])
    z_items = model.encode_items(torch.arange(N_ITEMS), histories[1])
    scores = model.score(z_users, z_items)
    parameters = reference.parameters_of(model)
    expected = [
        [
            reference.logit(parameters, u, i, histories[0][u].numpy(), histories[1][i].numpy())
            for i in range(N_ITEMS)
        ]
        for u in range(N_USERS)
    ]
    close(scores, expected)
    users, items = torch.tensor([0, 0, 3, 4]), torch.tensor([1, 6, 2, 2])
    torch.testing.assert_close(
        model.score_of_pairs(z_users, z_items, users, items), scores[users, items]
    )


def test_users_and_items_never_seen_have_the_interaction_vector_alone(model, histories):
    torch.testing.assert_close(
        model.encode_users(None, histories[0]), model.user_tower(model.item_embedding, histories[0])
    )
    torch.testing.assert_close(
        model.encode_items(None, histories[1]), model.item_tower(model.user_embedding, histories[1])
    )


def test_the_registered_class_computes_as_the_paper_does_with_its_settings(model, histories):
    registered = base.build("comet", model.config, N_USERS, N_ITEMS, 3)
    state = model.state_dict()
    assert registered.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in registered.state_dict().items())
    assert type(registered.user_tower) is comet.Tower
    assert type(registered.item_tower) is comet.Tower
    users, items = torch.arange(N_USERS), torch.arange(N_ITEMS)
    for seed in (None, 1):
        found = []
        for each in (model, registered):
            rng = None if seed is None else torch.Generator().manual_seed(seed)
            found.append(
                (
                    each.encode_users(users, histories[0], rng),
                    each.encode_items(items, histories[1], rng),
                )
            )
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_comet_py_imports_torch_settings_layers_and_kernels_alone():
    path = Path(comet.__file__)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    own = ("comet_rec.models.kernels.", "comet_rec.models.layers")
    assert {name for name in imported if not name.startswith(own)} <= ALLOWED

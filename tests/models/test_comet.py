"""COMET against the loop reference, and what distinct encoding must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comet_rec.data.batches import Batch
from comet_rec.errors import ConfigError
from comet_rec.evaluation.scoring import all_vectors, vectors_from_histories
from comet_rec.models import base
from comet_rec.models.comet import CometConfig
from comet_rec.models.interfaces import Trainable, TwoTower
from tests.models import reference

M, N_ITEMS = 5, 7


def build(seed: int = 0, **changes):
    fields = {"embedding_dim": 6, "history_length": 4, "widths": (1, 3, 6), "channels": 2}
    fields |= {"hidden": (5,), "init_scale": 0.5} | changes
    return base.build("comet", CometConfig(**fields), M, N_ITEMS, seed)


def histories(rng: np.random.Generator, rows: int, length: int, pad: int) -> torch.Tensor:
    """Random histories, some places padded in front."""
    out = rng.integers(0, pad, size=(rows, length))
    for row in out:
        row[: rng.integers(0, length + 1)] = pad
    return torch.from_numpy(out.astype(np.int32))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.integers(1, 3),
    st.lists(st.integers(1, 5), max_size=2),
    st.integers(0, 10_000),
)
def test_scores_equal_the_loop_reference(k, length, widths, channels, hidden, seed):
    rng = np.random.default_rng(seed)
    model = build(
        seed, embedding_dim=k, history_length=length, widths=tuple(widths), channels=channels,
        hidden=tuple(hidden), convolution=("frequency", "direct")[seed % 2],
    )  # fmt: skip
    users, items = torch.arange(M), torch.arange(N_ITEMS)
    of_users = histories(rng, M, length, N_ITEMS)
    of_items = histories(rng, N_ITEMS, length, M)
    z_users = model.encode_users(users, of_users) * model.weight
    scores = (z_users @ model.encode_items(items, of_items).T).detach().numpy()
    parameters = reference.parameters_of(model)
    for user, item in [(0, 0), (M - 1, N_ITEMS - 1), (2, 3)]:
        expected = reference.logit(
            parameters, user, item, of_users[user].numpy(), of_items[item].numpy()
        )
        assert scores[user, item] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("k", [15, 16, 128])
def test_the_two_forms_agree_in_values_and_gradients(k):
    found = {}
    for form in ("frequency", "direct"):
        model = build(embedding_dim=k, history_length=9, widths=(1, 8, 32, 128), convolution=form)
        shown = histories(np.random.default_rng(3), 40, 9, N_ITEMS)
        features = model.user_tower.convolution(model.item_embedding, shown)
        weights = torch.sin(torch.arange(features.numel())).view_as(features)
        (features * weights).sum().backward()
        convolution = model.user_tower.convolution
        found[form] = [
            features, model.item_embedding.grad,
            *[w.grad for w in convolution.weights], *[b.grad for b in convolution.biases],
        ]  # fmt: skip
    for a, b in zip(*found.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_paper_setting_has_2776_cross_features():
    model = base.build("comet", CometConfig(), M, N_ITEMS, 0)
    assert model.user_tower.convolution.out_features == 2776


def test_widths_above_k_become_k_and_repeats_go():
    config = CometConfig(embedding_dim=16, widths=(1, 8, 32, 128))
    assert config.effective_widths == (1, 8, 16)


def tensor_batch(rng: np.random.Generator, length: int = 4) -> Batch:
    users, items = torch.tensor([1, 3, 4]), torch.tensor([0, 2, 5, 6])
    return Batch(
        users,
        items,
        histories(rng, 3, length, N_ITEMS),
        histories(rng, 4, length, M),
        torch.tensor([0, 0, 1, 2, 2]),
        torch.tensor([0, 3, 1, 1, 2]),
        torch.tensor([1.0, 0, 1, 0, 0]),
        torch.tensor([0, 0, 1, 1, 0]),
    )


def test_pairs_equal_the_two_matrices(rng):
    model, batch = build(), tensor_batch(rng)
    logits = model(batch, None)
    z_users = model.encode_users(batch.users, batch.user_histories)
    z_items = model.encode_items(batch.items, batch.item_histories)
    pairs = zip(batch.pair_users, batch.pair_items, strict=True)
    expected = torch.stack([(model.h * z_users[u] * z_items[i]).sum() for u, i in pairs])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_a_users_row_depends_on_that_user_alone(rng):
    model = build()
    shown = histories(rng, M, 4, N_ITEMS)
    together = model.encode_users(torch.arange(M), shown)
    alone = torch.cat([model.encode_users(torch.tensor([u]), shown[u : u + 1]) for u in range(M)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_every_parameter_gets_a_gradient(rng):
    model = build(id_embedding_dropout=0.0, dropout=0.0)
    model(tensor_batch(rng), None).sum().backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert missing == []


def test_order_of_rows_matters_and_padding_is_a_zero_row(rng):
    model = build()
    shown = torch.tensor([[N_ITEMS, N_ITEMS, 1, 2], [N_ITEMS, N_ITEMS, 2, 1]])
    a, b = model.encode_users(None, shown)
    assert not torch.allclose(a, b)
    table = torch.cat([model.item_embedding, torch.zeros(1, 6)])
    padded = model.user_tower.convolution(model.item_embedding, shown)
    explicit = model.user_tower.convolution(table, shown)
    torch.testing.assert_close(padded, explicit)


def test_new_users_have_no_own_embedding(rng):
    model = build()
    shown = histories(rng, M, 4, N_ITEMS)
    with torch.no_grad():
        own = model.user_embedding * model.h
        known, _ = all_vectors(model, shown, histories(rng, 7, 4, M), M, 7)
    torch.testing.assert_close(known - own, vectors_from_histories(model, shown))


def test_dropout_is_drawn_by_the_generator_alone(rng):
    model, batch = build(dropout=0.5), tensor_batch(rng)
    draws = [model(batch, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_initial_parameters_are_a_function_of_the_seed():
    a, b, c = (build(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["user_embedding"], c["user_embedding"])


def test_it_declares_what_it_is():
    model = build()
    assert isinstance(model, Trainable)
    assert isinstance(model, TwoTower)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"embedding_dim": 0}, "model.embedding_dim = 0: must be above 0"),
        ({"dropout": 1.0}, r"model.dropout = 1.0: must lie in \[0, 1\)"),
        ({"widths": ()}, "give at least one filter width"),
        ({"hidden": (4, 0)}, r"model.hidden = \[4, 0\]: each must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        CometConfig(**changes)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'comet'"):
        base.config_class("commet")


def test_parameters_start_within_their_bounds():
    model = build(embedding_dim=16, history_length=9, widths=(1, 4), channels=60, init_scale=0.05)
    tower = model.user_tower
    for width, weight, bias in zip(
        (1, 4), tower.convolution.weights, tower.convolution.biases, strict=True
    ):
        bound = 1 / np.sqrt(9 * width)
        assert 0.9 * bound < weight.abs().max() <= bound
        assert bias.abs().max() <= bound
    for table in (model.user_embedding, model.item_embedding):
        assert 0.9 * 0.05 < table.abs().max() <= 0.05
    assert model.h.abs().max() <= np.sqrt(6 / 17)


def test_own_embeddings_drop_out_whole_and_are_not_rescaled(rng):
    """A user who is folded in meets exactly what a dropped one met."""
    model, shown = build(id_embedding_dropout=0.5, dropout=0.0), histories(rng, M, 4, N_ITEMS)
    users = torch.arange(M).repeat(40)
    own = model.encode_users(users, shown.repeat(40, 1), torch.Generator().manual_seed(0))
    own = own - model.encode_users(None, shown).repeat(40, 1)
    table = model.user_embedding[users]
    kept = (own - table).abs().max(dim=1).values < 1e-5
    dropped = own.abs().max(dim=1).values < 1e-5
    assert (kept ^ dropped).all()
    assert 70 < int(dropped.sum()) < 130  # half of 200

"""COMET's variants: each differs from COMET where it should, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.data.batches import Batches
from comet_rec.data.histories import fold_in, input_histories
from comet_rec.errors import ConfigError
from comet_rec.estimators.presets import VARIANTS, preset
from comet_rec.models import base, comet_variants
from comet_rec.models.comet import CometConfig
from comet_rec.models.comet_variants import matched_width

N_USERS, N_ITEMS = 6, 30


def build(seed: int = 0, **changes):
    fields = {"embedding_dim": 16, "history_length": 16, "widths": (1, 4), "hidden": (8,)}
    return base.build("comet", CometConfig(**fields | changes), N_USERS, N_ITEMS, seed)


def histories(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.permutation(N_ITEMS)[:16] for _ in range(N_USERS)]))


def loop_cnn(model, history: np.ndarray) -> np.ndarray:
    """Figure 3, CNN only, in float64 loops."""
    tower = model.user_tower
    maps = model.item_embedding.detach().double().numpy()[history][None]
    for weight, bias in zip(tower.convolution.weights, tower.convolution.biases, strict=True):
        w, b = weight.detach().double().numpy(), bias.detach().double().numpy()
        height, width = ((size - 3) // 2 + 1 for size in maps.shape[1:])
        out = np.zeros((len(w), height, width))
        for c in range(len(w)):
            for y in range(height):
                for x in range(width):
                    window = maps[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                    out[c, y, x] = max(0.0, (w[c] * window).sum() + b[c])
        maps = out
    weight, bias = tower.mlp.weights[0], tower.mlp.biases[0]
    return weight.detach().double().numpy() @ maps.ravel() + bias.detach().double().numpy()


@pytest.mark.parametrize("maps", [64, 4])
def test_cnn_only_equals_a_loop(monkeypatch, maps):
    monkeypatch.setattr(comet_variants, "MAPS", maps)
    model, shown_rows = build(cross="cnn"), histories()
    vectors = model.encode_users(None, shown_rows).detach().numpy()
    for user in range(N_USERS):
        np.testing.assert_allclose(vectors[user], loop_cnn(model, shown_rows[user].numpy()), 1e-4)


def test_mlp_only_is_a_perceptron_on_the_flattened_map():
    model, shown_rows = build(cross="mlp"), histories()
    flat = model.item_embedding[shown_rows].flatten(1)
    w, b = model.user_tower.mlp.weights, model.user_tower.mlp.biases
    expected = torch.relu(flat @ w[0].T + b[0]) @ w[1].T + b[1]
    torch.testing.assert_close(model.encode_users(None, shown_rows), expected)


def test_the_matched_perceptron_has_a_towers_number_of_parameters():
    def count(**changes) -> int:
        return sum(p.numel() for p in build(**changes).user_tower.parameters())

    row = 16 * 16 + 1 + 16  # parameters of one hidden unit
    assert abs(count() - count(cross="matched-mlp")) <= row
    assert matched_width(CometConfig()) == 124


@pytest.mark.parametrize("enrich", ["both", "original", "interaction"])
def test_enrich_says_what_a_vector_holds(enrich):
    model, whole = build(enrich=enrich), build()
    users, shown_rows = torch.arange(N_USERS), histories()
    own, interaction = whole.user_embedding, whole.encode_users(None, shown_rows)
    expected = {"both": own + interaction, "original": own, "interaction": interaction}[enrich]
    torch.testing.assert_close(model.encode_users(users, shown_rows), expected)
    folded = torch.zeros_like(own) if enrich == "original" else interaction
    torch.testing.assert_close(model.encode_users(None, shown_rows), folded)


def test_permuted_dimensions_are_a_convolution_over_other_neighbours():
    model, plain = build(permute_dimensions=True), build()
    shown_rows = histories()
    order = model.user_tower.order
    assert sorted(order.tolist()) == list(range(16))
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.endswith("tower.order")}
    )
    assert not torch.allclose(
        model.encode_users(None, shown_rows), plain.encode_users(None, shown_rows)
    )
    plain.item_embedding.data = plain.item_embedding.data[:, order]
    torch.testing.assert_close(
        model.encode_users(None, shown_rows), plain.encode_users(None, shown_rows)
    )


def test_frozen_filters_stay_as_drawn_and_the_rest_learns(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    model = cr.COMET(
        preset="frozen-filters", embedding_dim=8, history_length=8, hidden=(16,), epochs=2
    ).fit(split)
    fresh = base.build("comet", model.config.model, 120, 80, 0).state_dict()
    drawn = cr.COMET(
        preset="frozen-filters", embedding_dim=8, history_length=8, hidden=(16,), epochs=1
    ).fit(split)
    for name in fresh:
        same = torch.equal(model.run.state[name], drawn.run.state[name])
        assert same == ("convolution" in name), name


def test_shuffled_histories_hold_the_same_rows_in_another_order(random_log):
    log = random_log(20, 40, 12)
    plain, shuffled = (build(history_length=16, shuffle_history=s).histories for s in (False, True))
    a, b = input_histories(log, plain)[0], input_histories(log, shuffled)[0]
    assert (np.sort(a, axis=1) == np.sort(b, axis=1)).all()
    assert not (a == b).all()
    assert (b[:, :4] == 40).all()  # the padding is still in front


@pytest.mark.parametrize("policy", ["sampled", "recent", "causal"])
def test_they_are_shuffled_in_training_and_folding_in_too(random_log, policy):
    log = random_log(20, 40, 12)
    plain, shuffled = (
        build(history_length=8, history=policy, shuffle_history=s).histories for s in (False, True)
    )
    batches = (
        next(Batches(log, batch_size=60, negatives=2, histories=each, seed=0).epoch(0))
        for each in (plain, shuffled)
    )
    new = [np.array([7, 3, 9, 1]), np.arange(12), np.array([5])]
    folded = (fold_in(new, each, 40) for each in (plain, shuffled))
    for a, b in ([batch.user_histories for batch in batches], folded):
        assert (np.sort(a, axis=1) == np.sort(b, axis=1)).all()
        assert not (a == b).all()
    alone = fold_in(new[1:2], shuffled, 40)
    assert (alone == fold_in(new, shuffled, 40)[1]).all()


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_is_a_preset_with_one_change(name, checkerboard):
    plain, variant = preset("static", "comet", checkerboard), preset(name, "comet", checkerboard)
    assert variant.train == plain.train
    changed = {k for k, v in vars(variant.model).items() if getattr(plain.model, k) != v}
    assert changed == set(VARIANTS[name])
    with pytest.raises(ConfigError, match="variant of comet"):
        preset(name, "mf", checkerboard)


def test_a_map_too_small_for_three_strided_layers_is_refused():
    with pytest.raises(ConfigError, match="at least 15"):
        CometConfig(cross="cnn", embedding_dim=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "static", *sorted(VARIANTS)])
def test_every_variant_trains_on_movielens_100k(name):
    split = cr.leave_one_out(cr.load("ml-100k"))
    model = cr.COMET(preset=name, epochs=12, patience=0).fit(split)
    figures = [line["validation"]["NDCG@10"] for line in model.run.log]
    assert model.run.log[-1]["loss"] < model.run.log[0]["loss"]
    assert max(figures) > 0.25  # popularity: .247

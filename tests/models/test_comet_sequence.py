"""The user tower with layers over sequences: against loops, and its three forms of histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from comet_rec.data.histories import Ragged
from comet_rec.data.prefixes import Prefixes
from comet_rec.data.sequences import SequenceBatches
from comet_rec.errors import ConfigError
from comet_rec.models import base, comet_sequence, layers
from comet_rec.models.comet import CometConfig
from tests.conftest import fast_form
from tests.models import reference

N_ITEMS, K = 12, 6
SEQUENCE = {"history": "causal", "towers": "user", "user_embedding": False}


def build(seed: int = 0, **changes):
    fields = {"embedding_dim": K, "history_length": 3, "widths": (1, 4), "channels": 2}
    fields |= {"hidden": (5,), "layers": 1, "init_scale": 0.5, **SEQUENCE} | changes
    model = base.build("comet", CometConfig(**fields), 7, N_ITEMS, seed).double()
    rng = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if "norms" in name or "biases" in name:  # values at which no error hides
            value.data += torch.rand(value.shape, generator=rng, dtype=value.dtype) * 0.2
    return model


def choose_banded_products(monkeypatch) -> None:
    """Choose banded products for filters of width 1 and K; they keep the dtype of the model."""
    monkeypatch.setattr(layers, "product_dtype", lambda like: torch.bfloat16)


def loop_norm(x: np.ndarray, norm) -> np.ndarray:
    gamma, beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return gamma * (x - x.mean()) / np.sqrt(x.var() + 1e-8) + beta


def loop_state(model, history: list[int]) -> np.ndarray:
    """p'_u by the equations at the top of `comet_sequence`, one place and row at a time."""
    tower, n = model.user_tower, model.config.history_length
    q = model.item_embedding.detach().numpy()
    x = [loop_norm(q[item], tower.norms[0]) for item in history]
    for layer, norm in zip(tower.layers, list(tower.norms)[1:], strict=True):
        parameters = {
            "weights": [w.detach().numpy() for w in layer.convolution.weights],
            "biases": [b.detach().numpy() for b in layer.convolution.biases],
            "mlp_weights": [w.detach().numpy() for w in layer.mlp.weights],
            "mlp_biases": [b.detach().numpy() for b in layer.mlp.biases],
        }
        table = np.array(x).reshape(-1, K)
        after = []
        for place in range(len(x)):
            rows = [p if p >= 0 else len(x) for p in range(place - n + 1, place + 1)]
            after.append(x[place] + reference.interaction_vector(table, rows, parameters))
        x = [loop_norm(row, norm) for row in after]
    return x[-1]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("widths", [(1, 4), (1, K)])  # transforms along time, banded products
@pytest.mark.parametrize("convolution", ["frequency", "direct"])
def test_states_are_a_loop_over_the_equations(layers, widths, convolution, monkeypatch):
    monkeypatch.setattr("comet_rec.models.layers.LONG", 15)  # five windows of three rows
    choose_banded_products(monkeypatch)
    model = build(layers=layers, widths=widths, convolution=convolution)
    histories = [[4], [1, 2], [5, 3, 9, 0, 11], [2, 7, 1, 8, 6, 4, 3, 10]]
    prefixes = Prefixes.whole(Ragged.of_rows([np.array(h) for h in histories]))
    found = model.encode_users(None, prefixes).detach().numpy()
    for vector, history in zip(found, histories, strict=True):
        np.testing.assert_allclose(vector, loop_state(model, history), rtol=1e-6, atol=1e-8)


@fast_form
@pytest.mark.parametrize(
    ("widths", "bfloat16", "calls"), [((1, K), True, 2), ((1, 4), True, 0), ((1, K), False, 0)]
)
def test_bfloat16_products_of_narrow_and_whole_filters_are_banded(
    widths, bfloat16, calls, monkeypatch
):
    seen, form = [], layers.banded_features
    monkeypatch.setattr(layers, "banded_features", lambda *x: seen.append(x) or form(*x))
    if bfloat16:
        choose_banded_products(monkeypatch)
    prefixes = Prefixes.whole(Ragged.of_rows([np.array([1, 2, 3])]))
    build(layers=2, widths=widths).encode_users(None, prefixes)
    assert len(seen) == calls


@pytest.mark.parametrize("layers", [1, 2])
def test_padded_histories_give_the_vectors_of_prefixes(layers):
    model = build(layers=layers)
    n = model.histories.length
    histories = [[], [4], [1, 2], list(range(n))]
    prefixes = Prefixes.whole(Ragged.of_rows([np.array(h, np.int64) for h in histories]))
    expected = model.encode_users(None, prefixes)
    padded = torch.tensor([[N_ITEMS] * (n - len(h)) + h for h in histories], dtype=torch.int32)
    torch.testing.assert_close(model.encode_users(None, padded), expected)
    rng = torch.Generator().manual_seed(0)
    assert not torch.allclose(model.encode_users(None, padded, rng), expected)  # dropout


def test_users_are_encoded_in_blocks_to_limit_memory(monkeypatch):
    model = build(layers=2)
    padded = torch.arange(N_ITEMS)[:, None].repeat(1, 6).int()
    with torch.no_grad():
        whole = model.encode_users(None, padded)
        monkeypatch.setattr(comet_sequence, "PLACES", 24)
        torch.testing.assert_close(model.encode_users(None, padded), whole)


@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize(
    ("widths", "long"),
    # All pieces by one transform, some, none; banded products.
    [((1, 4), 0), ((1, 4), 50), ((1, 4), 1_000_000), ((1, 16), 0)],
)
def test_batches_of_sequences_give_the_vectors_and_gradients_of_padded_histories(
    random_log, users, widths, long, monkeypatch
):
    monkeypatch.setattr(layers, "LONG", long)
    choose_banded_products(monkeypatch)
    log = random_log(20, 40, 30)
    config = CometConfig(
        embedding_dim=16, history_length=5, layers=1, widths=widths, hidden=(8,),
        **SEQUENCE | {"user_embedding": users},
    )  # fmt: skip
    model = base.build("comet", config, 20, 40, 0).double()
    source = SequenceBatches(
        log, batch_size=60, negatives=3, histories=model.histories, seed=0, softmax_items=0
    )
    for batch in source.epoch(0):
        padded = replace(batch, user_histories=batch.user_histories.padded(5, 40))
        found = []
        for each in (batch, padded):
            of_users, items = model.positives_and_items(each, None)
            loss = torch.logsumexp(of_users @ items.T, 1).sum()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            found.append([of_users.detach(), *gradients])
        for fast, slow in zip(*found, strict=True):
            torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("convolution", ["direct", "frequency"])
@pytest.mark.parametrize("widths", [(1, 4), (1, K)])
def test_a_state_does_not_depend_on_later_items_bit_for_bit(convolution, widths, monkeypatch):
    """Maps one by one, or banded products: a transform along time mixes the last bits."""
    choose_banded_products(monkeypatch)
    model = build(layers=2, convolution=convolution, widths=widths).float()
    sequence = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    changed = np.array([3, 1, 4, 1, 0, 0, 0, 0])
    places = torch.arange(8)
    a, b = (
        model.encode_users(None, Prefixes(Ragged.of_rows([rows]), places))
        for rows in (sequence, changed)
    )
    assert torch.equal(a[:4], b[:4])
    assert not torch.equal(a[4:], b[4:])


def test_a_transform_along_time_keeps_later_items_out_to_rounding(monkeypatch):
    monkeypatch.setattr(layers, "LONG", 0)
    model = build(layers=1)
    sequence, changed = (np.array([3, 1, 4, 1, *later]) for later in ([5, 9], [0, 0]))
    places = torch.arange(6)
    a, b = (
        model.encode_users(None, Prefixes(Ragged.of_rows([rows]), places))
        for rows in (sequence, changed)
    )
    torch.testing.assert_close(a[:4], b[:4], rtol=1e-12, atol=1e-13)  # float64


def test_filters_begin_as_moving_averages_from_the_latest_row_to_all_rows():
    model = build(history_length=10, channels=4, widths=(1, 3))
    for filters in model.user_tower.layers[0].convolution.weights:
        shares = filters.detach() / filters.detach()[:, -1:]  # by age, of the latest row
        assert bool((shares[:, 1:] > shares[:, :-1]).all())  # the latest rows weigh most
        ages = -1 / shares[:, -2, 0].log()  # exp(−1 / τ) is the share of the row before
        expected = torch.logspace(np.log10(0.3), 1, 4, dtype=torch.float64)
        torch.testing.assert_close(ages, expected, rtol=1e-3, atol=0)


def test_contributions_add_up_to_the_score():
    model = build(layers=2)
    history, z_item = np.array([3, 1, 4, 9]), model.item_embedding[5].detach()
    parts = model.contributions(history, 5, z_item)
    empty = Prefixes.whole(Ragged.of_rows([np.empty(0, np.int64)]))
    full = Prefixes.whole(Ragged.of_rows([history]))
    difference = model.encode_users(None, full) - model.encode_users(None, empty)
    expected = ((difference * model.h) @ z_item).item()
    assert parts.sum() == pytest.approx(expected)


def test_layers_need_one_plain_tower_over_causal_histories():
    for changes in (
        {"history": "recent"}, {"shuffle_history": True}, {"towers": "both"}, {"gate": "squeeze"},
        {"cross": "mlp"}, {"permute_dimensions": True}, {"freeze_filters": True},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"model\.layers = 1: needs model\.history"):
            CometConfig(**{"layers": 1, **SEQUENCE} | changes)
    with pytest.raises(ConfigError, match="0 or above"):
        CometConfig(layers=-1)

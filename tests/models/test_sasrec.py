"""SASRec against loops, against its authors' code as ported to PyTorch, and without pads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import comet_rec as cr
from comet_rec.config import TrainConfig
from comet_rec.data.batches import Batches
from comet_rec.data.histories import Ragged, fold_in
from comet_rec.data.prefixes import Prefixes
from comet_rec.data.sequences import SequenceBatches
from comet_rec.errors import ConfigError
from comet_rec.models import base
from comet_rec.models.kernels.causal_attention import ByLength, causal_attention, padded_attention
from comet_rec.models.sasrec import SASRec, SASRecConfig
from comet_rec.training.fit import batches_of
from comet_rec.training.losses import gbce_power, objective
from tests.conftest import make_log

K, N, ITEMS = 6, 7, 20


def fresh(**changes) -> SASRec:
    """A model whose parameters are all away from zero."""
    config = SASRecConfig(**{"embedding_dim": K, "history_length": N, "heads": 2} | changes)
    model = base.build("sasrec", config, 3, ITEMS, 0)
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.5
    return model


def sequences(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(ITEMS)[:length] for length in lengths]


def loop_norm(x: np.ndarray, norm) -> np.ndarray:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    gamma, beta = array(norm.weight), array(norm.bias)
    return gamma * (x - mean) / math.sqrt(variance + 1e-8) + beta


def array(t) -> np.ndarray:
    return t.detach().double().numpy()


def linear(layer, x: np.ndarray, number: int = 0) -> np.ndarray:
    return array(layer.weights[number]) @ x + array(layer.biases[number])


def loop_states(model: SASRec, items: np.ndarray) -> list[np.ndarray]:
    """z_t after each item, one position, head and score at a time."""
    k, heads = model.config.embedding_dim, model.config.heads
    table, positions = array(model.item_embedding), array(model.position_embedding)
    states = [
        math.sqrt(k) * table[item] + positions[len(positions) - len(items) + t]
        for t, item in enumerate(items)
    ]
    for block in model.blocks:
        queries = [loop_norm(x, block.attention_norm) for x in states]
        pairs = [linear(block.key_value, x) for x in states]
        after = []
        for t, query in enumerate(queries):
            asked, attended = linear(block.query, query), np.zeros(k)
            for head in range(heads):
                part = slice(head * k // heads, (head + 1) * k // heads)
                scores = [
                    asked[part] @ pairs[s][:k][part] / math.sqrt(k / heads) for s in range(t + 1)
                ]
                weights = np.exp(scores) / sum(np.exp(scores))
                for s, weight in enumerate(weights):
                    attended[part] += weight * pairs[s][k:][part]
            x = query + linear(block.output, attended)
            inputs = loop_norm(x, block.feedforward_norm)
            hidden = np.maximum(linear(block.feedforward, inputs), 0)
            after.append(inputs + linear(block.feedforward, hidden, 1))
        states = after
    return [loop_norm(x, model.norm) for x in states]


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 2])
def test_states_are_a_loop_over_the_equations(heads, blocks):
    model = fresh(heads=heads, blocks=blocks)
    rows = sequences(3, 7, 0, 1, 3)
    states = array(model.states(Ragged.of_rows(rows)))
    expected = [state for row in rows for state in loop_states(model, row)]
    np.testing.assert_allclose(states, np.stack(expected), rtol=1e-4, atol=1e-5)


class AuthorsBlock(nn.Module):
    """One block as in the common PyTorch port of the authors' code, with padded sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(K, eps=1e-8)
        self.attention = nn.MultiheadAttention(K, 2)
        self.forward_norm = nn.LayerNorm(K, eps=1e-8)
        self.conv1 = nn.Conv1d(K, K, kernel_size=1)
        self.conv2 = nn.Conv1d(K, K, kernel_size=1)

    def forward(self, x: torch.Tensor, blind: torch.Tensor) -> torch.Tensor:
        x = x.transpose(0, 1)
        queries = self.attention_norm(x)
        attended, _ = self.attention(queries, x, x, attn_mask=blind)
        x = self.forward_norm((queries + attended).transpose(0, 1))
        return x + self.conv2(torch.relu(self.conv1(x.transpose(1, 2)))).transpose(1, 2)


def port_of(model: SASRec) -> list[AuthorsBlock]:
    """Blocks of the port with the weights of `model`."""
    ports = []
    for block in model.blocks:
        port = AuthorsBlock()
        feedforward = block.feedforward
        port.load_state_dict(
            {
                "attention_norm.weight": block.attention_norm.weight,
                "attention_norm.bias": block.attention_norm.bias,
                "attention.in_proj_weight": torch.cat(
                    [block.query.weights[0], block.key_value.weights[0]]
                ),
                "attention.in_proj_bias": torch.cat(
                    [block.query.biases[0], block.key_value.biases[0]]
                ),
                "attention.out_proj.weight": block.output.weights[0],
                "attention.out_proj.bias": block.output.biases[0],
                "forward_norm.weight": block.feedforward_norm.weight,
                "forward_norm.bias": block.feedforward_norm.bias,
                "conv1.weight": feedforward.weights[0][:, :, None],
                "conv1.bias": feedforward.biases[0],
                "conv2.weight": feedforward.weights[1][:, :, None],
                "conv2.bias": feedforward.biases[1],
            }
        )
        ports.append(port)
    return ports


def test_logits_are_those_of_the_authors_code_with_the_same_weights():
    """Full sequences: the ports let pads of shorter ones take part in the attention."""
    model = fresh()
    items = torch.from_numpy(np.stack(sequences(*[N] * 9)))
    x = model.item_embedding[items] * K**0.5 + model.position_embedding
    for port in port_of(model):
        x = port(x, ~torch.tril(torch.ones(N, N, dtype=torch.bool)))
    states = nn.functional.layer_norm(x, (K,), model.norm.weight, model.norm.bias, 1e-8)
    logits = states @ model.item_embedding.T  # [9, N, ITEMS]
    found = model.states(Ragged.of_rows(list(items.numpy()))) @ model.item_embedding.T
    torch.testing.assert_close(found, logits.flatten(0, 1), rtol=1e-5, atol=1e-5)
    users = model.encode_users(None, items.int())
    torch.testing.assert_close(users @ model.item_embedding.T, logits[:, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [(4,), (5, 1, 5, 2, 0, 7, 5), (0, 0), ()])
def test_attention_without_pads_is_attention_with_pads(lengths):
    """Padded in front, where a mask must hide the pads; the gradients too."""
    ragged = Ragged.of_rows(sequences(*lengths))
    ordered = ByLength.of(ragged)
    rng = torch.Generator().manual_seed(0)
    count = int(ragged.starts[-1])
    inputs = [torch.randn(count, 6, generator=rng, requires_grad=True) for _ in range(3)]
    found = causal_attention(*inputs, 2, ordered.groups)
    assert found.shape == (count, 6)
    if count == 0:
        return
    by_length = torch.tensor(sorted(lengths))
    real = torch.arange(9) >= 9 - by_length[:, None]  # [n, 9]
    padded = [torch.zeros(*real.shape, 6).index_put((real,), x).flatten(0, 1) for x in inputs]
    expected = padded_attention(*padded, 2, real).view(*real.shape, 6)[real]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(count, 6, generator=rng)
    gradients = [torch.autograd.grad((x * weights).sum(), inputs) for x in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_padded_vectors_are_those_without_pads():
    model = fresh()
    padded = fold_in(sequences(3, 7, 0, 1, 7), model.histories, ITEMS)
    torch.testing.assert_close(
        model.padded_vectors(padded), model.encode_users(None, padded), rtol=1e-4, atol=1e-5
    )


def test_values_by_length_come_back_in_their_own_order():
    ragged = Ragged.of_rows(sequences(5, 1, 0, 3, 1))
    ordered = ByLength.of(ragged)
    assert ordered.groups == [(1, 2), (3, 1), (5, 1)]
    assert torch.equal(ordered.values[ordered.places], ragged.values)
    assert ordered.from_end[ordered.places].tolist() == [4, 3, 2, 1, 0, 0, 2, 1, 0, 0]


def test_a_user_is_the_state_after_the_latest_item():
    model = fresh()
    rows = sequences(3, 7, 0, 1, 7)
    users = model.encode_users(None, fold_in(rows, model.histories, ITEMS))
    for user, row in zip(users, rows, strict=True):
        expected = loop_states(model, row)[-1] if len(row) else array(model.norm.bias)
        np.testing.assert_allclose(array(user), expected, rtol=1e-4, atol=1e-5)


def test_users_are_encoded_in_blocks_to_limit_memory(monkeypatch):
    model = fresh()
    padded = fold_in(sequences(*[5, 0, 7, 2] * 8), model.histories, ITEMS)
    whole = model.encode_users(None, padded).detach()
    monkeypatch.setattr("comet_rec.models.sasrec.ROWS", 3 * N)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_users(None, padded), whole)


def test_pads_in_padded_histories_are_dropped():
    padded = torch.tensor([[9, 9, 9], [9, 1, 2], [3, 4, 5]], dtype=torch.int32)
    prefixes = Prefixes.of_padded(padded, 9)
    assert prefixes.sequences.values.tolist() == [1, 2, 3, 4, 5]
    assert prefixes.last.tolist() == [-1, 1, 4]
    assert torch.equal(prefixes.padded(3, 9), padded)


def test_a_batch_of_sequences_gives_the_logits_of_the_loop():
    rows = [(user, item) for user, row in enumerate(sequences(5, 9, 2)) for item in row]
    log = make_log(np.array(rows), n_items=ITEMS)
    model = fresh()
    source = SequenceBatches(log, batch_size=1, negatives=2, histories=model.histories, seed=0)
    batch = next(source.epoch(0))
    logits = model(batch, None).detach()
    z = loop_prefixes(model, batch)
    expected = [
        z[user] @ array(model.item_embedding)[batch.items[item]]
        for user, item in zip(batch.pair_users.tolist(), batch.pair_items.tolist(), strict=True)
    ]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def loop_prefixes(model: SASRec, batch) -> list[np.ndarray]:
    """Vector of each entry of the batch's users, from the loop over its sequence."""
    sequences = batch.user_histories.sequences
    rows = [sequences[row : row + 1].values.numpy() for row in range(len(sequences))]
    states = [z for row in rows for z in loop_states(model, row)]
    states.append(array(model.norm.bias))  # of an empty history, whose position is −1
    return [states[last] for last in batch.user_histories.last.tolist()]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gbce_is_a_loop(random_log, reduction):
    log = random_log(12, ITEMS, 5)
    model = fresh()
    config = TrainConfig(loss="gbce", negatives=3, calibration=0.6, reduction=reduction)
    source = SequenceBatches(log, batch_size=9, negatives=3, histories=model.histories, seed=0)
    batch = next(source.epoch(0))
    loss, logits = objective(model, batch, config, None)
    rate = 3 / (ITEMS - 1)
    power = rate * (0.6 * (1 - 1 / rate) + 1 / rate)  # Eq. 14 of the paper
    terms = []
    for x, label in zip(logits.tolist(), batch.labels.tolist(), strict=True):
        sigmoid = 1 / (1 + math.exp(-x))
        terms.append(-math.log(sigmoid**power) if label == 1 else -math.log(1 - sigmoid))
    expected = sum(terms) / (len(terms) if reduction == "mean" else 1)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_gbce_lies_between_cross_entropy_and_full_calibration():
    assert gbce_power(1, 1000, 0.0) == 1
    assert gbce_power(1, 1000, 1.0) == pytest.approx(1 / 999)
    assert gbce_power(999, 1000, 1.0) == 1
    assert gbce_power(5000, 1000, 0.5) == 1  # more draws than items


@pytest.mark.parametrize(
    ("loss", "changes"),
    [("bce", {}), ("gbce", {"negatives": 8}), ("softmax", {}), ("softmax", {"softmax_items": 12})],
)
def test_each_loss_learns_the_order_of_items(loss, changes):
    """Item i is followed by i + 1, from a random begin: popularity and co-occurrence say little."""
    rng = np.random.default_rng(0)
    rows = [
        (user, (begin + step) % 40)
        for user, begin in enumerate(rng.integers(0, 40, 150))
        for step in range(9)
    ]
    split = cr.leave_one_out(make_log(np.array(rows)), negatives=20)
    model = cr.SASRec(
        preset="paper", embedding_dim=16, history_length=8, dropout=0.1, loss=loss, epochs=25,
        batch_size=100, learning_rate=1e-2, patience=0, **changes,
    ).fit(split)  # fmt: skip
    report = cr.evaluate(model, split)
    assert report["NDCG@10"] > 0.9
    top = model.recommend_for_history([[4, 5, 6], [29, 30, 31]], k=1)
    assert top["item_id"].tolist() == [7, 32]


def test_dropout_comes_from_the_generator_it_is_given():
    model = fresh(dropout=0.5)
    padded = fold_in(sequences(4, 7), model.histories, ITEMS)
    first, again, other = (
        model.encode_users(None, padded, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, model.encode_users(None, padded))


def test_contributions_are_what_each_item_adds_before_the_later_ones():
    model = fresh()
    history, z_item = sequences(5)[0], torch.linspace(-1, 1, K)
    parts = model.contributions(history, 3, z_item)
    scores = [array(model.norm.bias) @ array(z_item)]
    scores += [
        loop_states(model, history[start:])[-1] @ array(z_item) for start in range(4, -1, -1)
    ]
    np.testing.assert_allclose(parts, np.diff(scores)[::-1], rtol=1e-4, atol=1e-5)


def test_settings_that_cannot_be_are_refused(random_log):
    with pytest.raises(ConfigError, match=r"heads = 3: must divide model.embedding_dim = 64"):
        cr.SASRec(heads=3)
    with pytest.raises(ConfigError, match="history_length = 100000: must be at most"):
        cr.SASRec(history_length=100_000)
    with pytest.raises(ConfigError, match=r"calibration = 1.5"):
        cr.SASRec(loss="gbce", calibration=1.5)
    with pytest.raises(ConfigError, match="positives_per_user = 4: sasrec trains on all rows"):
        cr.SASRec(positives_per_user=4).fit(random_log(20, 30, 8))


def test_models_of_sequences_get_batches_of_sequences(random_log):
    log = random_log(20, ITEMS, 8)
    for estimator, preset, kind in (
        (cr.SASRec, "best", SequenceBatches), (cr.COMET, "best", SequenceBatches),
        (cr.COMET, "static", Batches), (cr.COMET, "blended", Batches),
    ):  # fmt: skip
        config = estimator(preset=preset).config_for(log)
        model = base.build(config.name, config.model, log.n_users, log.n_items, 0)
        assert type(batches_of(log, config, model)) is kind

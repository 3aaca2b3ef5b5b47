"""Loss and every gradient equal the literal port's, on the same batch and histories."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from comet_rec.data.batches import Batches
from comet_rec.models import base
from comet_rec.models.comet import CometConfig
from comet_rec.training.losses import binary_cross_entropy

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import literal


def copied(model, n_users: int, n_items: int) -> literal.LiteralCOMET:
    """A literal port with the model's parameters."""
    port = literal.LiteralCOMET(n_users, n_items, dropout=0.0).double()
    with torch.no_grad():
        port.users.weight[:-1] = model.user_embedding
        port.items.weight[:-1] = model.item_embedding
        port.h.copy_(model.h)
        for ours, theirs in twins(model, port):
            theirs.copy_(ours.view_as(theirs))
    return port


def twins(model, port):
    """Parameters of the towers, ours beside the port's."""
    for name in ("user_tower", "item_tower"):
        ours, theirs = getattr(model, name), getattr(port, name)
        for place, layer in enumerate(theirs.convolutions):
            yield ours.convolution.weights[place], layer.weight
            yield ours.convolution.biases[place], layer.bias
        linear = [m for m in theirs.mlp if isinstance(m, torch.nn.Linear)]
        for place, layer in enumerate(linear):
            yield ours.mlp.weights[place], layer.weight
            yield ours.mlp.biases[place], layer.bias


@pytest.mark.parametrize("history", ["sampled", "recent"])
def test_loss_and_gradients_equal_the_literal_ports(random_log, history):
    log = random_log(60, 90, 60)
    config = CometConfig(dropout=0.0, id_embedding_dropout=0.0, history=history)
    # In double precision: in single, a feature next to zero may pass one ReLU and not the other.
    model = base.build("comet", config, log.n_users, log.n_items, 3).double()
    source = Batches(log, batch_size=64, negatives=4, histories=model.histories, seed=0)
    batch = next(source.epoch(0))
    labels = batch.labels.double()
    port = copied(model, log.n_users, log.n_items)
    u, i = batch.pair_users, batch.pair_items
    losses = []
    for logits in (
        model(batch, None),
        port(
            batch.users[u], batch.items[i],
            batch.user_histories[u].long(), batch.item_histories[i].long(),
        ),
    ):  # fmt: skip
        loss = binary_cross_entropy(logits, labels, "mean")
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    pairs = [
        (model.user_embedding, port.users.weight[:-1], port.users.weight.grad[:-1]),
        (model.item_embedding, port.items.weight[:-1], port.items.weight.grad[:-1]),
        (model.h, port.h, port.h.grad),
        *[(ours, theirs, theirs.grad) for ours, theirs in twins(model, port)],
    ]
    for ours, _, theirs in pairs:
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours.grad, theirs.view_as(ours), rtol=1e-7, atol=1e-7 * scale)

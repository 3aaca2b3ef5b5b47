"""ConvNCF's products against PyTorch's convolutions over the outer product."""

import pytest
import torch
import torch.nn.functional as nnf

from comet_rec.models import outer
from comet_rec.models.base import TensorBatch
from comet_rec.models.convncf import ConvNCF, ConvNCFConfig


def convolved(model: ConvNCF, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    x = (users[:, :, None] * items[:, None, :])[:, None]
    for weight, bias in zip(model.weights, model.biases, strict=True):
        x = torch.relu(nnf.conv2d(x, weight, bias, stride=2))
    return nnf.linear(x.flatten(1), model.output, model.bias)[:, 0]


@pytest.mark.parametrize("k", [4, 8, 32])
def test_logits_and_gradients_are_those_of_convolutions(k, monkeypatch):
    monkeypatch.setattr(outer, "BLOCK_BYTES", 20_000 * k)  # several blocks, the last one short
    rng = torch.Generator().manual_seed(k)
    config = ConvNCFConfig(embedding_dim=k, channels=5, init_scale=0.5)
    model = ConvNCF(config, 20, 30, rng).double()
    with torch.no_grad():
        for bias in model.biases:
            bias.add_(0.02 * torch.randn(bias.shape, generator=rng).double())
    users = torch.randint(0, 20, (301,), generator=rng)
    items = torch.randint(0, 30, (301,), generator=rng)
    batch = TensorBatch(
        users=torch.arange(20), items=torch.arange(30), pair_users=users, pair_items=items,
        user_histories=None, item_histories=None, labels=torch.zeros(301),
        groups=torch.zeros(301, dtype=torch.int64),
    )  # fmt: skip
    found = model(batch, None)
    expected = convolved(model, model.user_embedding[users], model.item_embedding[items])
    torch.testing.assert_close(found, expected)
    parameters = list(model.parameters())
    ours, theirs = (
        torch.autograd.grad(y.sigmoid().square().sum(), parameters) for y in (found, expected)
    )
    assert all(bool(gradient.any()) for gradient in theirs)
    torch.testing.assert_close(ours, theirs)

"""Fast arithmetic: each kernel equals its slow form in values and gradients, in any block."""

from __future__ import annotations

import threading

import jaxtyping
import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from hypothesis import given, settings
from hypothesis import strategies as st

from comet_rec import precision
from comet_rec.data.batches import Batch
from comet_rec.data.histories import Ragged
from comet_rec.data.interactions import row_starts
from comet_rec.data.prefixes import Windows
from comet_rec.models.comet import CometConfig, Tower
from comet_rec.models.convncf import ConvNCF, ConvNCFConfig
from comet_rec.models.kernels import banded_windows, cross_features, outer_product
from comet_rec.models.kernels.banded_windows import banded_features
from comet_rec.models.kernels.cross_features import cross_features as fast_features
from comet_rec.models.kernels.cross_features import direct_cross_features, embedding_maps
from comet_rec.models.kernels.pair_products import gathered_products, pair_products
from comet_rec.models.kernels.sliding_windows import window_features
from comet_rec.parallel import in_parts
from tests.conftest import fast_form


def test_shapes_of_signatures_are_checked():
    """See tests/conftest.py; the function itself would fail with torch's message."""
    first = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(jaxtyping.TypeCheckError, match="gathered_products"):
        gathered_products(torch.zeros(2, 3), torch.zeros(2, 4), first, first)


def gradients(values: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of a sum in which each value counts differently."""
    weights = torch.sin(torch.arange(values.numel(), dtype=values.dtype)).view_as(values)
    return list(torch.autograd.grad((values * weights).sum(), inputs))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    st.booleans(),
    st.integers(0, 70),
    st.integers(0, 10_000),
)
def test_cross_features_equal_their_slow_form(k, length, widths, fused, maps, seed):
    rng = torch.Generator().manual_seed(seed)
    double = {"generator": rng, "dtype": torch.float64}
    widths = sorted({min(width, k) for width in widths})
    filters = [torch.randn(2, length, width, **double).requires_grad_() for width in widths]
    biases = [torch.randn(2, **double).requires_grad_() for _ in widths]
    features = 2 * sum(k - width + 1 for width in widths)
    weight = torch.randn(3, features, **double).requires_grad_() if fused else None
    table = torch.randn(20, k, **double).requires_grad_()
    histories = torch.randint(0, 21, (maps, length), generator=rng)
    inputs = [table, *filters, *biases, *([weight] if fused else [])]
    fast, slow = (
        form(table, histories, filters, biases, weight)
        for form in (fast_features, direct_cross_features)
    )
    assert fast.shape == (maps, 3 if fused else features)
    torch.testing.assert_close(fast, slow)
    if maps > 0:
        torch.testing.assert_close(gradients(fast, inputs), gradients(slow, inputs))


def test_maps_stack_rows_and_the_pad_is_a_zero_row():
    table = torch.randn(3, 4)
    maps = embedding_maps(table, torch.tensor([[3, 2, 0]]))
    assert torch.equal(maps[0], torch.stack([torch.zeros(4), table[2], table[0]]))


def test_parts_and_blocks_change_nothing_but_the_last_bits(monkeypatch):
    config = CometConfig(
        embedding_dim=16, history_length=6, widths=(1, 4, 16), channels=2, hidden=(8,)
    )
    table = torch.randn(30, 16, dtype=torch.float64)
    histories = torch.randint(0, 31, (150, 6))
    found = []
    before = torch.get_num_threads()
    for threads, block in ((1, 10**9), (2, 10**9), (2, 9 * 6 * 16 * 20)):
        torch.set_num_threads(threads)
        monkeypatch.setattr(cross_features, "BLOCK_BYTES", block)
        tower = Tower(config, torch.Generator().manual_seed(0)).double()
        rows = table.clone().requires_grad_()
        vectors = tower(rows, histories, None)
        (vectors * torch.sin(torch.arange(16))).sum().backward()
        found.append([vectors.detach(), rows.grad, *[p.grad for p in tower.parameters()]])
    torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@fast_form
def test_an_accelerator_takes_a_batch_in_few_blocks(two_threads, monkeypatch):
    gathered, gather = [], cross_features.Workspace.maps

    def counted(self: object, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        gathered.append(len(index))
        return gather(self, rows, index)

    monkeypatch.setattr(cross_features.Workspace, "maps", counted)
    tower = Tower(CometConfig(), torch.Generator().manual_seed(0))
    blocks = {}
    for device in ("cpu", "meta"):
        gathered.clear()
        table = torch.zeros(30, 128, device=device)
        tower.to(device)(table, torch.zeros((4096, 50), dtype=torch.int64, device=device), None)
        assert sum(gathered) == 4096
        blocks[device] = len(gathered)
    assert blocks["meta"] <= 2 < 8 < blocks["cpu"]


@pytest.mark.parametrize("threads", [1, 2])
def test_pads_in_front_are_not_multiplied_and_change_nothing(threads, monkeypatch):
    layout = {"embedding_dim": 16, "history_length": 6, "widths": (1, 4, 16), "channels": 2}
    rng = torch.Generator().manual_seed(0)
    table = torch.randn(30, 16, generator=rng, dtype=torch.float64)
    histories = torch.randint(0, 31, (150, 6), generator=rng)  # some pads (30) in the middle too
    lengths = torch.randint(0, 7, (150,), generator=rng)
    histories[torch.arange(6) < 6 - lengths[:, None]] = 30
    gathered, gather = [], cross_features.Workspace.maps

    def counted(self: object, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        gathered.append(index.numel())
        return gather(self, rows, index)

    monkeypatch.setattr(cross_features.Workspace, "maps", counted)
    monkeypatch.setattr(cross_features, "BLOCK_BYTES", 9 * 6 * 16 * 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = []
    for form in ("frequency", "direct"):
        config = CometConfig(**layout, hidden=(8,), convolution=form)
        tower = Tower(config, torch.Generator().manual_seed(0)).double()
        rows = table.clone().requires_grad_()
        vectors = tower(rows, histories, None)
        (vectors * torch.sin(torch.arange(150))[:, None]).sum().backward()
        found.append([vectors.detach(), rows.grad, *[p.grad for p in tower.parameters()]])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert sum(gathered) < 0.7 * 2 * histories.numel()  # forward and backward; .5 are shown


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 20), st.integers(0, 10_000))
def test_values_and_gradients_equal_the_dense_product(users, items, pairs, seed):
    rng = torch.Generator().manual_seed(seed)
    left, right = (torch.rand(n, 3, generator=rng).requires_grad_() for n in (users, items))
    rows = torch.randint(0, users, (pairs,), generator=rng).sort().values
    columns = torch.randint(0, items, (pairs,), generator=rng)
    weights = torch.rand(pairs, generator=rng)
    found = []
    dense = (left @ right.T)[rows, columns]
    forms = (pair_products, gathered_products)
    for products in (*(form(left, right, rows, columns) for form in forms), dense):
        (products * weights).sum().backward()
        found.append((products.detach(), left.grad, right.grad))
        left.grad = right.grad = None
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("k", [4, 8])
def test_two_layers_equal_their_slow_form(k, monkeypatch):
    monkeypatch.setattr(outer_product, "BLOCK_BYTES", 5_000)  # several blocks
    rng = torch.Generator().manual_seed(k)
    shapes = [(13, k), (13, k), (3, 1, 2, 2), (3,), (3, 3, 2, 2), (3,)]
    inputs = [
        torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_() for shape in shapes
    ]
    users, items, *layers = inputs
    fast, slow = (
        form(users, items, tuple(layers[:2]), tuple(layers[2:]))
        for form in (outer_product.two_layers, outer_product.direct_two_layers)
    )
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(gradients(fast, inputs), gradients(slow, inputs))


def convolved(model: ConvNCF, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    x = (users[:, :, None] * items[:, None, :])[:, None]
    for weight, bias in zip(model.weights, model.biases, strict=True):
        x = torch.relu(nnf.conv2d(x, weight, bias, stride=2))
    return nnf.linear(x.flatten(1), model.output, model.bias)[:, 0]


@pytest.mark.parametrize("k", [4, 8, 32])
def test_logits_and_gradients_are_those_of_convolutions(k, monkeypatch):
    monkeypatch.setattr(
        outer_product, "BLOCK_BYTES", 20_000 * k
    )  # several blocks, the last one short
    rng = torch.Generator().manual_seed(k)
    config = ConvNCFConfig(embedding_dim=k, channels=5, init_scale=0.5)
    model = ConvNCF(config, 20, 30, rng).double()
    with torch.no_grad():
        for bias in model.biases:
            bias.add_(0.02 * torch.randn(bias.shape, generator=rng).double())
    users = torch.randint(0, 20, (301,), generator=rng)
    items = torch.randint(0, 30, (301,), generator=rng)
    batch = Batch(
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


@fast_form
def test_parts_cover_the_range_in_order(two_threads):
    assert in_parts(10, 4, lambda part: (part.start, part.stop)) == [(0, 5), (5, 10)]
    assert in_parts(7, 4, lambda part: (part.start, part.stop)) == [(0, 7)]
    assert in_parts(0, 4, lambda part: (part.start, part.stop)) == [(0, 0)]


@fast_form
def test_each_part_has_a_thread_that_does_not_divide_its_work(two_threads):
    found = in_parts(8, 1, lambda _: (torch.get_num_threads(), torch.is_grad_enabled()))
    assert found == [(1, False), (1, False)]
    assert torch.get_num_threads() == 2
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2]


def test_errors_reach_the_caller(two_threads):
    def fail(part: slice) -> None:
        raise ValueError(f"at {part.start}")

    with pytest.raises(ValueError, match="at 0"):
        in_parts(8, 1, fail)


@st.composite
def pieces_of_rows(draw):
    """Shape of a convolution, and pieces of rows with one to many windows."""
    k, length = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
    windows = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    return k, length, sorted({min(width, k) for width in widths}), windows


@pytest.mark.parametrize("form", [window_features, banded_features])
@settings(max_examples=40, deadline=None)
@given(
    shape=pieces_of_rows(), fused=st.booleans(), threads=st.sampled_from([1, 2]),
    block=st.sampled_from([1, 3, 32]), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_features_of_windows_equal_those_of_the_windows_one_by_one(
    form, shape, fused, threads, block, seed
):
    k, length, widths, windows = shape
    if form is banded_features:
        widths = [width for width in (1, k) if width in widths] or [1]
    rng = torch.Generator().manual_seed(seed)
    double = {"generator": rng, "dtype": torch.float64}
    filters = [torch.randn(2, length, width, **double).requires_grad_() for width in widths]
    biases = [torch.randn(2, **double).requires_grad_() for _ in widths]
    features = 2 * sum(k - width + 1 for width in widths)
    weight = torch.randn(3, features, **double).requires_grad_() if fused else None
    table = torch.randn(20, k, **double).requires_grad_()
    counts = np.array([each + length - 1 for each in windows])
    rows = torch.randint(0, 21, (int(counts.sum()),), generator=rng)
    histories = Windows(Ragged(rows, torch.from_numpy(row_starts(counts))), length)
    assert len(histories) == sum(windows) == len(histories.padded())
    inputs = [table, *filters, *biases, *([weight] if fused else [])]
    before = torch.get_num_threads(), banded_windows.BLOCKS
    torch.set_num_threads(threads)
    banded_windows.BLOCKS = (block,)
    try:
        fast = form(table, histories, filters, biases, weight)
        slow = direct_cross_features(table, histories.padded(), filters, biases, weight)
        torch.testing.assert_close(fast, slow)
        torch.testing.assert_close(gradients(fast, inputs), gradients(slow, inputs))
    finally:
        torch.set_num_threads(before[0])
        banded_windows.BLOCKS = before[1]


@pytest.mark.parametrize(("windows", "size"), [([1, 4, 7], 8), ([30, 100], 32), ([1], 8)])
def test_short_pieces_have_small_blocks(windows, size):
    counts = np.array(windows) + 49
    rows = torch.arange(int(counts.sum()))
    read, kept = banded_windows.blocks(
        Windows(Ragged(rows, torch.from_numpy(row_starts(counts))), 50)
    )
    assert read.shape[1] == size + 49
    assert len(kept) == sum(windows)


def test_products_in_bfloat16_differ_by_its_rounding(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    rng = torch.Generator().manual_seed(0)
    shape = {"generator": rng, "requires_grad": True}
    table = torch.randn(50, 16, **shape)
    filters = [torch.randn(4, 20, width, **shape) for width in (1, 16)]
    biases = [torch.randn(4, **shape) for _ in filters]
    weight = torch.randn(3, 4 * 17, **shape)
    rows = torch.randint(0, 51, (150,), generator=rng)
    windows = Windows(Ragged(rows, torch.tensor([0, 130, 150])), 20)
    arguments = table, windows, filters, biases, weight
    exact = banded_features(*arguments)
    with precision.matmul_precision("medium"):
        rough = banded_features(*arguments)
        assert rough.dtype == torch.float32
        pairs = [(rough, exact)]
        inputs = [table, *filters, *biases, weight]
        pairs += zip(gradients(rough, inputs), gradients(exact, inputs), strict=True)
    for a, b in pairs:
        assert 0 < (a - b).norm() < 0.05 * b.norm()


def test_windows_in_single_precision_differ_by_rounding_alone():
    rng = torch.Generator().manual_seed(0)
    table = torch.randn(50, 64, generator=rng)
    filters = [torch.randn(8, 20, width, generator=rng) * 0.1 for width in (1, 8, 64)]
    biases = [torch.randn(8, generator=rng) * 0.1 for _ in filters]
    rows = torch.randint(0, 51, (150,), generator=rng)
    windows = Windows(Ragged(rows, torch.tensor([0, 130, 150])), 20)
    fast = window_features(table, windows, filters, biases)
    slow = direct_cross_features(table, windows.padded(), filters, biases)
    assert (fast - slow).abs().max() < 2e-6 * slow.abs().max()

"""Parts of a batch in threads: the same numbers, PyTorch's own settings left as they were."""

from __future__ import annotations

import threading

import pytest
import torch

from comet_rec.models import workspace
from comet_rec.models.comet import CometConfig, Tower
from comet_rec.models.threads import in_parts


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_cover_the_range_in_order(two_threads):
    assert in_parts(10, 4, lambda part: (part.start, part.stop)) == [(0, 5), (5, 10)]
    assert in_parts(7, 4, lambda part: (part.start, part.stop)) == [(0, 7)]
    assert in_parts(0, 4, lambda part: (part.start, part.stop)) == [(0, 0)]


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
        monkeypatch.setattr(workspace, "BLOCK_BYTES", block)
        tower = Tower(config, torch.Generator().manual_seed(0)).double()
        rows = table.clone().requires_grad_()
        vectors = tower(rows, histories, None)
        (vectors * torch.sin(torch.arange(16))).sum().backward()
        found.append([vectors.detach(), rows.grad, *[p.grad for p in tower.parameters()]])
    torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_an_accelerator_takes_a_batch_in_few_blocks(two_threads, monkeypatch):
    gathered, gather = [], workspace.Workspace.maps

    def counted(self: object, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        gathered.append(len(index))
        return gather(self, rows, index)

    monkeypatch.setattr(workspace.Workspace, "maps", counted)
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
    gathered, gather = [], workspace.Workspace.maps

    def counted(self: object, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        gathered.append(index.numel())
        return gather(self, rows, index)

    monkeypatch.setattr(workspace.Workspace, "maps", counted)
    monkeypatch.setattr(workspace, "BLOCK_BYTES", 9 * 6 * 16 * 10)
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

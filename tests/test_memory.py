"""The limit of memory: what it accepts, and what it moves to files."""

from __future__ import annotations

import numpy as np
import pytest

import comet_rec as cr
from comet_rec import memory
from comet_rec.data import epoch_order, sampling
from comet_rec.data.epoch_order import EpochOrder
from comet_rec.errors import InputError
from tests.conftest import checkerboard_log


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("4 gib", 2**32), ("1500M", 1_500_000_000), ("2.5g", 2_500_000_000)],
)
def test_sizes_are_read(text, size):
    assert memory.parsed(text) == size


@pytest.mark.parametrize("text", ["", "4", "GB", "-4GB", "4XB", "1e9", "499MB", "nan"])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="--memory"):
        memory.parsed(text)


def test_large_arrays_are_in_files_and_hold_the_same():
    values = np.arange(10_000)
    assert memory.kept(values) is values
    with memory.limited(500_000):
        kept = memory.kept(values)
        assert memory.is_mapped(kept)
        assert not memory.is_mapped(memory.kept(values[:100]))
        assert memory.noted
    assert np.array_equal(kept, values)
    assert not memory.noted


def test_a_model_is_the_same_under_a_limit(monkeypatch):
    rows = checkerboard_log()
    frame = {"user": rows.users, "item": rows.items, "time": rows.times}
    free = cr.MF(preset="static", epochs=2, embedding_dim=4).fit(cr.leave_one_out(cr.read(frame)))
    monkeypatch.setattr(memory, "FILE_SHARE", 1e-6)  # even these arrays are large
    with memory.limited(10**9):
        log = cr.read(frame)
        assert memory.is_mapped(log.items)
        assert memory.is_mapped(log.times)
        assert not memory.is_mapped(log.items + 1)
        model = cr.MF(preset="static", epochs=2, embedding_dim=4).fit(cr.leave_one_out(log))
        lists = model.recommend(k=5)
    assert list(lists.rows()) == list(free.recommend(k=5).rows())


@pytest.fixture
def large(monkeypatch):
    """Treat every log as a large one, in many blocks and segments."""
    monkeypatch.setattr(epoch_order, "LARGE", 0)
    monkeypatch.setattr(epoch_order, "BLOCK_ROWS", 100)
    monkeypatch.setattr(sampling, "BLOCK_ROWS", 100)


def order_of(log, epoch=0, positives=None, size=64):
    order = EpochOrder(log, np.ones(log.n_users, dtype=np.int64), positives, 3, epoch)
    return [rows for _, rows in order.batches(size)]


def test_the_order_of_a_large_log_spreads_the_rows_of_a_user(large):
    log = checkerboard_log()
    batches = order_of(log)
    rows = np.concatenate(batches)
    assert sorted(rows.tolist()) == list(range(len(log)))
    assert {len(batch) for batch in batches[:-1]} == {64}
    counts = np.diff(log.user_starts)
    place = np.empty(len(log))
    place[rows] = np.arange(len(log))
    for user in range(log.n_users):  # row g of G stands in the g-th part of the epoch
        own = np.sort(place[log.user_starts[user] : log.user_starts[user + 1]])
        assert np.abs(np.diff(own) - len(log) / counts[user]).max() < 0.1 * len(log)
    assert not np.array_equal(rows, np.concatenate(order_of(log, epoch=1)))


def test_segments_change_no_order(large):
    log = checkerboard_log()
    whole = order_of(log)
    with memory.limited(16 * 300 * 5):
        parts = order_of(log)
    assert [batch.tolist() for batch in parts] == [batch.tolist() for batch in whole]
    positives = np.random.default_rng(0).random(len(log)) < 0.5
    kept = np.concatenate(whole)
    assert np.concatenate(order_of(log, positives=positives)).tolist() == (
        kept[positives[kept]].tolist()
    )


def test_an_order_goes_on_at_any_batch(large):
    log = checkerboard_log()
    order = EpochOrder(log, np.ones(log.n_users, dtype=np.int64), None, 3, 0)
    assert [number for number, _ in order.batches(64, 7)] == list(range(7, -(-len(log) // 64)))
    assert [rows.tolist() for _, rows in order.batches(64, 7)] == [
        rows.tolist() for rows in order_of(log)[7:]
    ]


def test_blocks_change_no_negative(large, monkeypatch):
    log = checkerboard_log()
    small = sampling.unobserved_items(log)
    monkeypatch.setattr(sampling, "BLOCK_ROWS", 1 << 22)
    whole = sampling.unobserved_items(log)
    for a, b in zip(small.rows(), whole.rows(), strict=True):
        assert np.array_equal(a, b)

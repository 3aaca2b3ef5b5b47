"""Batches of whole sequences: each row once, and no history that shows its row or a later one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comet_rec.data.batches import Batches
from comet_rec.data.histories import Histories, HistorySettings
from comet_rec.data.prefixes import pieces, prefixes
from comet_rec.data.sequences import SequenceBatches
from comet_rec.random import generator
from tests.conftest import make_log

COUNTS = [1, 12, 3, 7, 8, 2, 25]
"""Rows of each user: fewer than a piece, exactly a piece of 8, and several pieces."""


@pytest.fixture
def log(rng):
    rows = [(user, item) for user, n in enumerate(COUNTS) for item in rng.permutation(30)[:n]]
    return make_log(np.array(rows), n_items=30)


def settings(length: int = 5, steps: int = 8, context: int = 1) -> HistorySettings:
    return HistorySettings(
        length=length, policy="causal", exclude_target=True, dropout=0.0, items=False, steps=steps,
        context=context,
    )  # fmt: skip


def sequence_batches(log, histories=None, **changes) -> SequenceBatches:
    fields = {"batch_size": 5, "negatives": 2, "seed": 0} | changes
    return SequenceBatches(log, histories=histories or settings(), **fields)


@pytest.mark.parametrize("steps", [1, 3, 8, 40])
def test_pieces_hold_each_row_once_and_never_rows_of_two_users(log, steps):
    first, end = pieces(log, steps, generator(0, "test"))
    rows = np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)])
    assert np.array_equal(rows, np.arange(len(log)))
    assert (end - first).min() >= 1
    assert (end - first).max() <= steps
    assert np.array_equal(log.users[first], log.users[end - 1])
    if steps == 8:  # only users with more rows are cut, at places that change
        numbers = np.bincount(log.users[first])
        assert (numbers[[0, 2, 3, 4, 5]] == 1).all()
        assert (numbers[[1, 6]] > 1).all()
        again = [tuple(pieces(log, steps, generator(0, "test", n))[0]) for n in range(9)]
        assert len(set(again)) > 3


@pytest.mark.parametrize("context", [0, 1, 5])
@pytest.mark.parametrize("steps", [1, 3, 40])
def test_a_history_is_the_rows_of_its_piece_and_context_before_the_row(log, steps, context):
    first, end = pieces(log, steps, generator(0, "test"))
    rows, histories = prefixes(log, first, end, context)
    padded = histories.padded(50, 30)
    at = 0
    for a, b in zip(first, end, strict=True):
        start = log.user_starts[log.users[a]]
        for row in range(a, b):
            expected = log.items[max(start, a - context) : row]
            assert rows[at] == row
            assert np.array_equal(padded[at][50 - len(expected) :], expected)
            assert (padded[at][: 50 - len(expected)] == 30).all()
            at += 1
    assert at == len(log) == len(histories)


def test_with_a_context_of_n_rows_the_histories_are_those_of_padded_batches(log):
    first, end = pieces(log, 4, generator(0, "test"))
    rows, histories = prefixes(log, first, end, 5)
    expected = Histories(log).users.before(rows, log.users[rows], 5)
    assert np.array_equal(histories.padded(5, 30), expected)


@pytest.mark.parametrize("softmax", [{}, {"softmax_items": 0}, {"softmax_items": 12}])
@pytest.mark.parametrize("batch_size", [1, 5, 500])
def test_every_positive_occurs_once_an_epoch_with_its_history(log, softmax, batch_size):
    source = sequence_batches(log, batch_size=batch_size, **softmax)
    for epoch in range(3):
        seen = []
        for batch in source.epoch(epoch):
            assert batch.positives > 0
            assert bool((batch.pair_users.diff() >= 0).all())
            assert len(batch.users) == len(batch.user_histories) == batch.positives
            padded = batch.user_histories.padded(5, 30)
            positive = batch.labels > 0
            for place, item in zip(
                batch.pair_users[positive], batch.items[batch.pair_items[positive]], strict=True
            ):
                user = int(batch.users[place])
                items = log.items_of(user)
                before = items[: items.tolist().index(int(item))].tolist()
                history = [x for x in padded[place].tolist() if x != 30]
                assert history == before[len(before) - len(history) :]
                assert bool(history) == bool(before)  # one row of context
                seen.append((user, int(item)))
            for place, item in zip(
                batch.pair_users[~positive], batch.items[batch.pair_items[~positive]], strict=True
            ):
                assert int(item) not in log.items_of(int(batch.users[place]))
        assert sorted(seen) == sorted(zip(log.users.tolist(), log.items.tolist(), strict=True))


def test_a_batch_depends_only_on_seed_epoch_and_number(log):
    source = sequence_batches(log)
    batches = list(source.epoch(2))
    assert len(batches) == len(source) > 2
    (again, *_) = sequence_batches(log).epoch(2, first=len(source) - 1)
    for name in ("users", "items", "pair_users", "pair_items", "labels", "groups"):
        assert torch.equal(getattr(again, name), getattr(batches[-1], name))
    assert torch.equal(again.user_histories.last, batches[-1].user_histories.last)
    other = next(sequence_batches(log, seed=1).epoch(2))
    assert not torch.equal(other.users, batches[0].users)


def test_batches_have_about_the_size_asked_for(random_log):
    log = random_log(300, 80, 23)
    source = sequence_batches(log, settings(steps=10), batch_size=100)
    sizes = [batch.positives for batch in source.epoch(0)]
    assert sum(sizes) == len(log)
    assert len(sizes) == len(source) == len(log) // 100
    assert min(sizes) > 80
    assert max(sizes) < 120


def test_rows_that_are_no_positives_occur_in_histories_alone(log):
    positives = np.zeros(len(log), dtype=bool)
    positives[[3, 4, 30, 57]] = True
    source = sequence_batches(log, positives=positives, softmax_items=0)
    batches = list(source.epoch(0))
    users = np.concatenate([batch.users for batch in batches])
    assert sorted(users) == sorted(log.users[positives])
    histories = [row for batch in batches for row in batch.user_histories.padded(40, 30)]
    assert max(int((row < 30).sum()) for row in histories) > 1


def test_the_numbers_of_other_batches_do_not_depend_on_the_new_settings(log):
    plain = HistorySettings(
        length=5, policy="causal", exclude_target=True, dropout=0.0, items=False
    )
    sources = [
        Batches(log, batch_size=5, negatives=2, seed=0, histories=histories)
        for histories in (plain, settings())
    ]
    for a, b in zip(*(source.epoch(0) for source in sources), strict=True):
        assert torch.equal(a.user_histories, b.user_histories)
        assert torch.equal(a.pair_items, b.pair_items)


def test_a_log_without_rows_has_no_batches(log):
    empty = log.select(np.zeros(len(log), dtype=bool))
    assert list(sequence_batches(empty).epoch(0)) == []


@pytest.mark.parametrize(("steps", "context"), [(4, 5), (1, 5), (30, 5), (6, 2)])
def test_windows_of_prefixes_are_their_padded_form(random_log, steps, context):
    log = random_log(25, 60, 14)
    settings = HistorySettings(
        length=5, policy="causal", exclude_target=True, dropout=0.0, items=False, steps=steps,
        context=context,
    )  # fmt: skip
    only = np.random.default_rng(0).random(len(log)) < 0.6  # positives of an update
    for positives in (None, only):
        source = SequenceBatches(
            log, batch_size=40, negatives=0, histories=settings, seed=0, softmax_items=0,
            positives=positives,
        )  # fmt: skip
        for batch in source.epoch(1):
            histories = batch.user_histories
            windows, place = histories.windows(5, 60)
            assert len(windows) == len(windows.padded()) == int(windows.counts.sum())
            assert torch.equal(windows.padded()[place].int(), histories.padded(5, 60))
            assert (windows.padded()[0] == 60).all()

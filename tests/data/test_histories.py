"""Input histories: order, padding, targets left out, draws that are fair and repeatable."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from comet_rec.data.batches import Batches
from comet_rec.data.histories import Histories, HistorySettings, Ragged, fold_in
from comet_rec.random import generator
from tests.conftest import make_log

N = 4


def settings(policy: str = "sampled", **changes) -> HistorySettings:
    fields = {"length": N, "policy": policy, "exclude_target": True, "dropout": 0.0} | changes
    return HistorySettings(**fields)


def shown(row: np.ndarray, pad: int) -> list[int]:
    """The real entries, after checking that padding stands in front only."""
    real = row != pad
    assert not (np.diff(real.astype(int)) < 0).any()
    return row[real].tolist()


def test_recent_shows_the_latest_newest_last():
    log = make_log(np.array([(0, i) for i in (5, 3, 1, 4, 2, 0)] + [(1, 2)]))
    users = Histories(log).users.fixed(settings("recent"), generator(0, "t"))
    assert users.tolist() == [[1, 4, 2, 0], [6, 6, 6, 2]]


def test_causal_shows_the_latest_of_users_and_a_sample_of_items(random_log):
    log = random_log(60, 5, 4)
    histories = Histories(log)
    users, items = (
        side.fixed(settings("causal"), generator(0, "t"))
        for side in (histories.users, histories.items)
    )
    assert np.array_equal(users, histories.users.fixed(settings("recent"), generator(0, "t")))
    assert np.array_equal(items, histories.items.fixed(settings("sampled"), generator(0, "t")))


def test_item_histories_are_in_time_order_only_where_times_compare():
    pairs = np.array([(2, 0), (0, 0), (1, 0)])  # in time order
    global_times = Histories(make_log(pairs))
    assert global_times.items.members.tolist() == [2, 0, 1]
    per_user = Histories(make_log(pairs, scope="per_user"))
    assert per_user.items.members.tolist() == [0, 1, 2]


def test_recent_users_of_an_item_are_a_sample_where_times_do_not_compare(random_log):
    log = replace(random_log(60, 5, 4), time_scope="per_user")
    items = Histories(log).items
    drawn = items.fixed(settings("recent"), generator(0, "t"))
    assert np.array_equal(drawn, items.fixed(settings("sampled"), generator(0, "t")))
    highest = [sorted(log.users[log.items == item])[-N:] for item in range(5)]
    assert drawn.tolist() != highest  # the last in the order of ids would be no sample


@pytest.mark.parametrize("policy", ["sampled", "recent"])
@pytest.mark.parametrize("per_user", [3, 7, 8, 9, 40])
def test_targets_are_never_shown_on_either_side(random_log, policy, per_user):
    log = random_log(30, 60, per_user)
    histories = Histories(log)
    hidden = np.zeros(len(log), dtype=bool)
    rng = generator(0, "test", per_user)
    hidden[rng.choice(len(log), len(log) // 10, replace=False)] = True
    pairs = set(zip(log.users[hidden].tolist(), log.items[hidden].tolist(), strict=True))
    for _ in range(5):
        of_users = histories.users.drawn(np.arange(30), hidden, settings(policy), rng)
        of_items = histories.items.drawn(np.arange(60), hidden, settings(policy), rng)
        for user in range(30):
            items = shown(of_users[user], 60)
            assert len(set(items)) == len(items)
            assert set(items) <= set(log.items[log.users == user].tolist())
            assert not {(user, item) for item in items} & pairs
        for item in range(60):
            users = shown(of_items[item], 30)
            assert set(users) <= set(log.users[log.items == item].tolist())
            assert not {(user, item) for user in users} & pairs


def test_nothing_is_hidden_when_the_target_is_kept(random_log):
    log = random_log(10, 20, 3)
    kept = settings(exclude_target=False, dropout=0.9)
    drawn = Histories(log).users.drawn(np.arange(10), None, kept, generator(0, "t"))
    assert ((drawn != 20).sum(axis=1) == 3).all()


@pytest.mark.parametrize("per_user", [6, 8, 30])
def test_sampled_draws_are_uniform_and_in_order(random_log, per_user):
    log = random_log(1, 40, per_user)
    side = Histories(log).users
    counts = np.zeros(40)
    rng = generator(0, "uniform", per_user)
    rounds = 4000
    for _ in range(rounds // 100):
        # The same owner many times over: each row is a draw of its own.
        for row in side.drawn(np.zeros(100, dtype=np.int64), None, settings(), rng):
            items = shown(row, 40)
            assert len(items) == N
            place = [log.items.tolist().index(item) for item in items]
            assert place == sorted(place)
            counts[items] += 1
    expected = rounds * N / per_user
    error = np.sqrt(rounds * (N / per_user) * (1 - N / per_user))
    assert (np.abs(counts[log.items] - expected) < 5 * error).all()


@pytest.mark.parametrize("policy", ["sampled", "recent"])
@pytest.mark.parametrize("per_item", [1, 2, 3, 6])
def test_how_many_rows_are_shown_does_not_tell_a_target(random_log, policy, per_item):
    """Only items with a positive have a hidden target: the number shown must be the same."""
    log = random_log(4000, 50, per_item)
    side, open_ = Histories(log).users, settings(policy, dropout=0.6, length=8)
    owners = np.arange(4000)
    hidden = np.zeros(len(log), dtype=bool)
    hidden[::per_item] = True
    rng = generator(0, "a", per_item)
    numbers = [
        (side.drawn(owners, flags, open_, rng) != 50).sum(axis=1)
        for flags in (hidden, np.zeros_like(hidden))
    ]
    shares = np.stack([np.bincount(n, minlength=per_item + 1) / 4000 for n in numbers])
    assert np.abs(shares[0] - shares[1]).max() < 5 * np.sqrt(0.5 / 4000)
    assert shares[:, per_item].max() == 0  # never all of them, so "all shown" tells nothing


def test_fixed_draws_are_full_and_repeatable(random_log):
    log = random_log(20, 60, 9)
    a, b = (Histories(log).users.fixed(settings(), generator(0, "shown")) for _ in range(2))
    assert np.array_equal(a, b)
    assert (a != 60).all()
    assert all(len(set(row)) == N for row in a.tolist())


def test_fold_in_pads_in_front_and_keeps_the_newest():
    out = fold_in(
        [np.array([7, 8]), np.array([], dtype=np.int64), np.arange(6)],
        settings("recent"), 9,
    )  # fmt: skip
    assert out.tolist() == [[9, 9, 7, 8], [9, 9, 9, 9], [2, 3, 4, 5]]


def test_fold_in_leaves_a_sample_of_a_long_history_in_its_order():
    rows = fold_in([np.arange(length) for length in range(8, 30)], settings("sampled"), 99).numpy()
    assert (np.diff(rows) > 0).all()
    assert (rows[:, -1] < np.arange(8, 30)).all()
    assert (rows[:, -1] < np.arange(7, 29)).any()  # not just the newest


def test_recent_fills_the_place_of_a_target_with_an_older_row():
    log = make_log(np.array([(0, i) for i in range(30)]))
    hidden = np.zeros(30, dtype=bool)
    hidden[[27, 29]] = True
    users = Histories(log).users
    (row,) = users.drawn(np.array([0]), hidden, settings("recent"), generator(0, "t"))
    assert row.tolist() == [24, 25, 26, 28]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_how_many_rows_are_left_out_is_drawn_anew_for_each_history(random_log, share):
    """From 0 up to the share of what is not a target: else the number would be a constant."""
    log = random_log(4000, 30, 9)
    hidden = np.zeros(len(log), dtype=bool)
    hidden[::9] = True
    drawn = Histories(log).users.drawn(
        np.arange(4000), hidden, settings(length=9, dropout=share), generator(0, "t")
    )
    shown_rows = (drawn != 30).sum(axis=1)
    if share == 0:
        assert (shown_rows == 8).all()
        return
    # Of nine rows 1 + ⌊9·U[0, share] + U[0, 1]⌋ stay hidden, the target among them.
    wanted = 4000 * np.array([0, 0, 0, 1 / 36, 7 / 36, 2 / 9, 2 / 9, 2 / 9, 1 / 9, 0])
    counts = np.bincount(shown_rows, minlength=10)
    assert np.abs(counts - wanted).max() < 5 * np.sqrt(wanted.max())
    assert not counts[wanted == 0].any()


def test_an_empty_side_is_all_pad():
    log = make_log(np.array([(0, 0), (0, 1), (1, 0)]))
    empty = Histories(log.select(np.zeros(3, dtype=bool)))
    for policy in ("sampled", "recent"):
        assert (empty.users.fixed(settings(policy), generator(0, "t")) == 2).all()
        assert (
            empty.users.drawn(np.arange(2), None, settings(policy), generator(0, "t")) == 2
        ).all()


ROWS = [[3, 1, 4], [], [1, 5], [9], []]


@pytest.fixture
def ragged() -> Ragged:
    return Ragged.of_rows([np.array(row, dtype=np.int64) for row in ROWS])


def lists(ragged: Ragged) -> list[list[int]]:
    bounds = itertools.pairwise(ragged.starts.tolist())
    return [ragged.values[start:stop].tolist() for start, stop in bounds]


def test_rows_come_back_as_they_were_given(ragged):
    assert lists(ragged) == ROWS
    assert len(ragged) == 5
    assert ragged.counts.tolist() == [3, 0, 2, 1, 0]
    assert ragged.rows.tolist() == [0, 0, 0, 2, 2, 3]
    assert ragged.values.dtype == ragged.starts.dtype == torch.int64


@pytest.mark.parametrize("chosen", [[2, 0, 2], [1], [4, 3, 1, 0], []])
def test_chosen_rows_stand_in_the_order_asked_for(ragged, chosen):
    found = ragged[torch.tensor(chosen, dtype=torch.int64)]
    assert lists(found) == [ROWS[row] for row in chosen]


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (1, 4), (2, 2), (4, 5)])
def test_neighbouring_rows_are_a_slice(ragged, start, stop):
    assert lists(ragged[start:stop]) == ROWS[start:stop]


def test_no_rows_at_all():
    empty = Ragged.of_rows([])
    assert len(empty) == 0
    assert lists(empty) == []


def test_a_batch_moves_all_its_tensors_and_keeps_what_is_missing(random_log):
    log = random_log(20, 30, 10)
    settings = HistorySettings(length=4, policy="causal", exclude_target=True, dropout=0.1)
    source = Batches(
        log, batch_size=8, negatives=1, histories=settings, seed=0, softmax_items=5,
        mask_known_positives=True,
    )  # fmt: skip
    batch = next(source.epoch(0))
    moved = batch.to(torch.device("meta"))
    tensors = [moved.users, moved.user_histories, moved.labels, moved.shared.columns]
    tensors += [moved.shared.log_weights, moved.masked.values, moved.masked.starts]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.pair_items.shape == batch.pair_items.shape
    plain = next(Batches(log, batch_size=8, negatives=1, histories=None, seed=0).epoch(0))
    assert plain.to(torch.device("meta")).shared is None
    assert batch.positives == 8


def test_a_log_is_read_and_split_without_importing_torch(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user,item,time\n" + "".join(f"{u},{i},{i}\n" for u in range(4) for i in range(u, u + 4))
    )
    code = (
        "import sys, comet_rec as cr; split = cr.leave_one_out(cr.read(sys.argv[1])); "
        "assert len(split.test) == 4, split; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log.csv")], check=True)

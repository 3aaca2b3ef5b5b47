"""Batches: every positive once an epoch, negatives untouched, few of a user's positives at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comet_rec.data.batches import Batches
from comet_rec.data.histories import Histories, HistorySettings

SETTINGS = HistorySettings(length=5, policy="sampled", exclude_target=True, dropout=0.3)
CAUSAL = HistorySettings(length=5, policy="causal", exclude_target=True, dropout=0.3)


def batches(log, **changes) -> Batches:
    fields = {"batch_size": 32, "negatives": 4, "histories": SETTINGS, "seed": 0} | changes
    return Batches(log, **fields)


def test_an_epoch_holds_every_positive_once_with_its_negatives(random_log):
    log = random_log(40, 60, 10)
    found = []
    for batch in batches(log).epoch(0):
        users, items = batch.users[batch.pair_users], batch.items[batch.pair_items]
        positive = batch.labels == 1
        assert (np.diff(batch.pair_users) >= 0).all()
        assert positive.sum() == batch.positives
        assert np.bincount(users[~positive]).sum() == 4 * batch.positives
        known = set(zip(log.users.tolist(), log.items.tolist(), strict=True))
        pairs = list(zip(users.tolist(), items.tolist(), strict=True))
        assert not known & {p for p, y in zip(pairs, positive, strict=True) if not y}
        # index identity, not only shapes: each positive's user has its own four negatives
        own = np.bincount(users[positive], minlength=40)
        assert np.array_equal(np.bincount(users[~positive], minlength=40), 4 * own)
        found += [p for p, y in zip(pairs, positive, strict=True) if y]
    assert sorted(found) == sorted(known)


def test_a_batchs_positives_are_not_in_the_histories_it_shows(random_log):
    log = random_log(40, 60, 10)
    for batch in batches(log).epoch(1):
        positive = batch.labels == 1
        for u, i in zip(batch.pair_users[positive], batch.pair_items[positive], strict=True):
            assert batch.items[i] not in batch.user_histories[u]
            assert batch.users[u] not in batch.item_histories[i]


def test_no_batch_holds_more_of_a_history_than_its_share(random_log):
    log = random_log(40, 60, 30)
    source = batches(log, batch_size=10_000)
    assert source.batch_size == len(log) // 10
    for batch in source.epoch(0):
        assert np.bincount(batch.pair_users[batch.labels == 1]).max() <= 30 // 10 + 1


def test_batches_are_a_pure_function_of_seed_epoch_and_number(random_log):
    log = random_log(40, 60, 10)
    source = batches(log)
    whole = list(source.epoch(3))
    resumed = list(batches(log).epoch(3, first=2))
    assert len(whole) == len(source) == len(resumed) + 2
    for a, b in zip(whole[2:], resumed, strict=True):
        for field in ("users", "items", "user_histories", "pair_items", "labels"):
            assert np.array_equal(getattr(a, field), getattr(b, field))
    other = next(batches(log, seed=1).epoch(3))
    assert not np.array_equal(whole[0].pair_items, other.pair_items)


@pytest.mark.parametrize("settings", [SETTINGS, CAUSAL, None])
def test_a_negative_is_its_positives_own(random_log, settings):
    """Of the same user; under causal histories beside the history of that very positive."""
    log = random_log(40, 60, 10)
    known = set(zip(log.users.tolist(), log.items.tolist(), strict=True))
    seen = 0
    for batch in batches(log, histories=settings).epoch(0):
        users, positive = batch.users[batch.pair_users], batch.labels == 1
        owner = np.full(batch.positives, -1)
        owner[batch.groups[positive]] = users[positive]
        assert np.array_equal(owner[batch.groups], users)
        assert (np.bincount(batch.groups) == 5).all()
        items = batch.items[batch.pair_items][~positive].tolist()
        assert not known & set(zip(users[~positive].tolist(), items, strict=True))
        seen += len(items)
    assert seen == 4 * len(log)


def test_users_begin_at_random_places_of_an_epoch_and_in_an_order_of_their_own(random_log):
    log = random_log(300, 60, 3)
    source = batches(log, batch_size=90, histories=None, negatives=1)
    assert len(source) == 10
    firsts = []
    for epoch in range(4):
        met = list(source.epoch(epoch))
        for batch in met:  # a user's three rows are evenly spaced
            assert np.bincount(batch.users[batch.pair_users[batch.labels == 1]]).max() == 1
        own: dict[int, int] = {}
        for batch in met[:3]:
            positive = batch.labels == 1
            users = batch.users[batch.pair_users[positive]].tolist()
            own |= zip(users, batch.items[batch.pair_items[positive]].tolist(), strict=True)
        firsts.append((set(met[0].users.tolist()), own))
    of_log = {user: log.items[log.users == user][0] for user in range(300)}
    for (users, own), (before, _) in zip(firsts, [firsts[-1], *firsts], strict=False):
        assert len(users & before) < 50  # 27 of 90 by chance
        same = [user for user, item in own.items() if of_log[user] == item]
        assert 0.2 < len(same) / len(own) < 0.47  # a third


def test_a_model_without_histories_gets_none(random_log):
    batch = next(batches(random_log(10, 20, 5), histories=None).epoch(0))
    assert batch.user_histories is None
    assert batch.item_histories is None


def test_grouped_positives_still_occur_once_and_stay_within_the_share(random_log):
    log = random_log(40, 60, 40)
    source = batches(log, batch_size=80, positives_per_user=8)
    found = np.zeros(log.n_users * 60, dtype=int)
    for batch in source.epoch(0):
        positive = batch.labels == 1
        users, items = batch.users[batch.pair_users], batch.items[batch.pair_items]
        found[users[positive] * 60 + items[positive]] += 1
        assert np.bincount(batch.pair_users[positive]).max() <= 2 * (40 // 10)
    assert found.sum() == len(log)
    assert found.max() == 1
    uniform = next(batches(log, batch_size=80).epoch(0))
    grouped = next(source.epoch(0))
    assert len(grouped.users) < 0.7 * len(uniform.users)


def test_pooled_negatives_are_few_and_each_uniform_over_the_untouched(random_log):
    log = random_log(30, 50, 10)
    counts = np.zeros((30, 50))
    source = batches(log, batch_size=30, negative_pool=12)
    for epoch in range(60):
        for batch in source.epoch(epoch):
            negative = batch.labels == 0
            items = batch.items[batch.pair_items[negative]]
            assert len(np.unique(items)) <= 12
            np.add.at(counts, (batch.users[batch.pair_users[negative]], items), 1)
    touched = np.zeros((30, 50), dtype=bool)
    touched[log.users, log.items] = True
    assert counts[touched].sum() == 0
    # 60 epochs of 10 positives with 4 negatives over 40 untouched items: 60 each, with the
    # variance of a shared pool (up to 4 · 10 draws meet the same one).
    assert np.abs(counts[~touched].reshape(30, 40).mean(axis=0) - 60).max() < 12


def test_a_user_who_touched_the_whole_pool_draws_from_the_catalogue(random_log):
    log = random_log(5, 50, 49)
    for batch in batches(log, batch_size=20, negative_pool=1).epoch(0):
        items = batch.items[batch.pair_items[batch.labels == 0]]
        users = batch.users[batch.pair_users[batch.labels == 0]]
        known = set(zip(log.users.tolist(), log.items.tolist(), strict=True))
        assert not known & set(zip(users.tolist(), items.tolist(), strict=True))


def test_a_causal_positive_sees_what_came_just_before_and_nothing_else(random_log):
    log = random_log(40, 60, 10)
    seen = 0
    for batch in batches(log, histories=CAUSAL).epoch(0):
        positive = batch.labels == 1
        assert len(batch.users) == batch.positives
        for row, i in zip(batch.pair_users[positive], batch.pair_items[positive], strict=True):
            user, item = batch.users[row], batch.items[i]
            own = log.items[log.users == user].tolist()
            before = own[: own.index(item)][-5:]
            assert batch.user_histories[row].tolist() == [60] * (5 - len(before)) + before
            assert user not in batch.item_histories[i]
            seen += 1
        assert np.array_equal(batch.pair_users, batch.groups)
        assert (np.bincount(batch.pair_users) == 5).all()
    assert seen == len(log)


def test_what_comes_later_changes_no_causal_history_before_it(random_log):
    log = random_log(40, 60, 10)
    later = log.items.copy()
    tail = np.arange(len(log)) % 10 >= 6  # each user's rows from the seventh on
    later[tail] = log.items[tail][::-1]
    sides = [Histories(replace(log, items=items)).users for items in (log.items, later)]
    rows = np.flatnonzero(~tail)
    a, b = (side.before(rows, log.users[rows].astype(np.int64), 5) for side in sides)
    assert np.array_equal(a, b)

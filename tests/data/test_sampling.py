"""Sampling: complements, popularity, negatives of a positive, items of a sampled softmax."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comet_rec.data import sampling
from comet_rec.data.batches import Batches
from comet_rec.data.sampling import Complement, Negatives, Popularity, distinct_integers
from comet_rec.random import generator
from tests.conftest import make_log

pairs_of = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30)


@given(pairs_of)
def test_pick_enumerates_exactly_the_missing_items(pairs):
    users = np.array([u for u, _ in pairs], dtype=np.int32)
    items = np.array([i for _, i in pairs], dtype=np.int32)
    complement = Complement(users, items, 5, 7)
    for user in range(5):
        touched = {i for u, i in pairs if u == user}
        size = int(complement.size(np.array([user]))[0])
        assert size == 7 - len(touched)
        found = complement.pick(np.full(size, user), np.arange(size)).tolist()
        assert found == [i for i in range(7) if i not in touched]


def test_draws_are_uniform_over_the_missing():
    complement = Complement(np.array([0, 0]), np.array([1, 4]), 1, 6)
    drawn = complement.draw(np.zeros(1000, dtype=np.int64), 6, generator(0, "t")).ravel()
    counts = np.bincount(drawn, minlength=6)
    assert counts[1] == counts[4] == 0
    assert np.abs(counts[[0, 2, 3, 5]] - 1500).max() < 5 * np.sqrt(1500 * 0.75)


def test_a_user_who_touched_everything_has_no_negatives():
    complement = Complement(np.zeros(3, int), np.arange(3), 2, 3)
    assert complement.draw(np.array([0, 1]), 2, generator(0, "t"))[0].tolist() == [-1, -1]
    rows = complement.draw_distinct(np.array([0, 1]), 2, generator(0, "t"))
    assert rows[0].tolist() == [3, 3]
    assert len(set(rows[1].tolist())) == 2


@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 1000))
def test_distinct_integers_are_distinct_and_in_range(count, extra, seed):
    bounds = np.full(5, count + extra)
    drawn = distinct_integers(bounds, count, np.random.default_rng(seed))
    assert ((drawn >= 0) & (drawn < count + extra)).all()
    assert (np.diff(drawn, axis=1) > 0).all()


def test_distinct_integers_are_uniform_over_sets():
    drawn = distinct_integers(np.full(12_000, 4), 2, np.random.default_rng(0))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize("missing", [6, 10, 12])  # nearly all of what is missing, and half
def test_distinct_draws_are_uniform_over_the_sets_of_missing_items(missing):
    touched = np.array([2, 3, 7])
    complement = Complement(np.zeros(3, int), touched, 1, missing + 3)
    rows = complement.draw_distinct(np.zeros(20_000, int), 5, generator(0, "t"))
    assert not np.isin(rows, touched).any()
    sets, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(sets) == comb(missing, 5)
    assert (np.diff(sets, axis=1) > 0).all()
    expected = 20_000 / len(sets)
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_blocks_change_no_draw(monkeypatch):
    bounds = np.arange(5, 60)
    whole = distinct_integers(bounds, 5, np.random.default_rng(0))
    monkeypatch.setattr(sampling, "BLOCK", 7)
    assert np.array_equal(distinct_integers(bounds, 5, np.random.default_rng(0)), whole)


def test_random_numbers_depend_on_their_arguments_alone():
    a = generator(1, "negatives", 2, 3).random(4)
    assert np.array_equal(a, generator(1, "negatives", 2, 3).random(4))
    for other in [(2, "negatives", 2, 3), (1, "order", 2, 3), (1, "negatives", 3, 2)]:
        assert not np.array_equal(a, generator(*other).random(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("left", [1, 5, 30])
def test_fewer_missing_than_asked_gives_all(left):
    touched = np.arange(left, 40)
    complement = Complement(np.zeros(len(touched), int), touched, 1, 40)
    row = complement.draw_distinct(np.array([0]), 30, generator(0, "t"))[0]
    assert row.tolist() == [*range(left), *[40] * (30 - left)]


N_ITEMS = 12


@pytest.fixture
def skewed():
    """40 users with 2 to 4 of 12 items, early items far more often; item 11 has no row."""
    rng = np.random.default_rng(3)
    shares = 1.0 / np.arange(1, N_ITEMS)
    rows = []
    for user in range(40):
        own = rng.choice(N_ITEMS - 1, rng.integers(2, 5), replace=False, p=shares / shares.sum())
        rows += [(user, item) for item in own]
    return make_log(np.array(rows), n_items=N_ITEMS)


def touched_of(log) -> np.ndarray:
    touched = np.zeros((log.n_users, N_ITEMS), dtype=bool)
    touched[log.users, log.items] = True
    return touched


def powers(log, power: float) -> np.ndarray:
    """max(count, 1) ** power, item by item."""
    counts = [int((log.items == item).sum()) for item in range(N_ITEMS)]
    return np.array([max(count, 1) ** power for count in counts], dtype=float)


def assert_proportions(counts: np.ndarray, weights: np.ndarray) -> None:
    """Each count within five standard errors of what its weight gives."""
    total, shares = counts.sum(), weights / weights.sum()
    assert counts[weights == 0].sum() == 0
    assert (np.abs(counts - total * shares) <= 5 * np.sqrt(total * shares) + 1e-9).all()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_popularity_draws_every_item_in_proportion(skewed, power):
    popularity = Popularity(np.bincount(skewed.items, minlength=N_ITEMS), power)
    drawn = popularity.draw(40_000, np.random.default_rng(0))
    assert_proportions(np.bincount(drawn, minlength=N_ITEMS), powers(skewed, power))


def test_an_exact_draw_is_in_proportion_among_the_missing(skewed):
    popularity = Popularity(np.bincount(skewed.items, minlength=N_ITEMS), 0.5)
    complement = Complement(skewed.users, skewed.items, skewed.n_users, N_ITEMS)
    users = np.repeat([7, 3], 20_000)
    drawn = popularity.draw_missing(complement, users, np.random.default_rng(0))
    for user in (7, 3):
        weights = np.where(touched_of(skewed)[user], 0, powers(skewed, 0.5))
        assert_proportions(np.bincount(drawn[users == user], minlength=N_ITEMS), weights)


@pytest.mark.parametrize(
    ("sampling", "pool", "each"), [("popularity", 0, 500), ("popularity", 6, 1)]
)
def test_negatives_by_popularity_are_in_proportion_and_untouched(skewed, sampling, pool, each):
    source = Negatives(skewed, sampling=sampling, power=0.5, pool=pool)
    users, none = np.array([0, 5, 9]), np.empty(0, np.int64)
    counts = np.zeros((3, N_ITEMS))
    for step in range(60_000 // each // 3):
        drawn = source.of_users(users, each, none, np.random.default_rng(step))
        np.add.at(counts, (np.repeat(np.arange(3), each), drawn), 1)
    for row, user in enumerate(users):
        weights = np.where(touched_of(skewed)[user], 0, powers(skewed, 0.5))
        assert_proportions(counts[row], weights)


def test_negatives_in_the_batch_are_its_other_positives(skewed):
    source = Negatives(skewed, sampling="in-batch", power=0.0, pool=0)
    users, positives = np.array([0, 1]), np.repeat(np.arange(11), 1 + np.arange(11) % 3)
    drawn = source.of_users(users, 20_000, positives, np.random.default_rng(0))
    for user, own in zip(users, drawn.reshape(2, -1), strict=True):
        weights = np.bincount(positives, minlength=N_ITEMS) * ~touched_of(skewed)[user]
        assert_proportions(np.bincount(own, minlength=N_ITEMS), weights)


def test_in_a_batch_the_power_means_nothing(skewed):
    shares = Negatives(skewed, sampling="in-batch", power=0.0, pool=0)._popularity.shares
    counts = np.maximum(np.bincount(skewed.items, minlength=N_ITEMS), 1)
    np.testing.assert_allclose(shares, counts / counts.sum())


def test_who_touched_the_whole_batch_draws_elsewhere_and_who_touched_everything_not_at_all():
    pairs = [(0, item) for item in range(5)] + [(1, item) for item in range(6)] + [(2, 5)]
    log = make_log(np.array(pairs))
    for name in ("in-batch", "popularity"):
        source = Negatives(log, sampling=name, power=1.0, pool=2)
        positives = np.array([0, 1, 2])
        drawn = source.of_users(np.array([0, 1]), 3, positives, np.random.default_rng(0))
        assert drawn.tolist() == [5, 5, 5, -1, -1, -1]


@pytest.mark.parametrize("sampling", ["uniform", "popularity", "in-batch"])
def test_the_weighted_sum_over_shared_items_has_the_catalogues_as_its_expectation(skewed, sampling):
    source = Negatives(skewed, sampling=sampling, power=0.5, pool=0)
    values = np.exp(np.random.default_rng(1).normal(size=N_ITEMS))
    sums = []
    for step in range(6000):
        rng = np.random.default_rng(step)
        positives = rng.choice(skewed.items.astype(np.int64), 8)
        items, log_weights = source.shared(5, positives, rng)
        assert (np.diff(items) > 0).all()
        assert sampling != "in-batch" or set(items) <= set(positives)
        sums.append((np.exp(log_weights) * values[items]).sum())
    # Batches hold no item without a row.
    expected = values.sum() if sampling != "in-batch" else values[:-1].sum()
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - expected) < 5 * error


def test_drawing_the_whole_catalogue_weighs_nothing(skewed):
    source = Negatives(skewed, sampling="uniform", power=0.0, pool=0)
    items, log_weights = source.shared(99, np.array([1]), np.random.default_rng(0))
    assert items.tolist() == list(range(N_ITEMS))
    assert log_weights.tolist() == [0.0] * N_ITEMS


@pytest.mark.parametrize("sampling", ["uniform", "popularity", "in-batch"])
def test_a_softmax_batch_knows_where_each_positive_and_each_drawn_item_stands(skewed, sampling):
    source = Batches(
        skewed, batch_size=10, negatives=4, histories=None, seed=0, sampling=sampling,
        popularity_power=0.5, softmax_items=4,
    )  # fmt: skip
    found, hits = [], 0
    for batch in source.epoch(0):
        assert batch.labels.tolist() == [1.0] * batch.positives
        users, items = batch.users[batch.pair_users], batch.items[batch.pair_items]
        found += zip(users.tolist(), items.tolist(), strict=True)
        drawn = batch.items[batch.shared.columns].tolist()
        assert len(drawn) <= 4
        for item, place in zip(items.tolist(), batch.shared.positive_columns.tolist(), strict=True):
            assert (drawn.index(item) if item in drawn else -1) == place
            hits += place >= 0
    assert sorted(found) == sorted(zip(skewed.users.tolist(), skewed.items.tolist(), strict=True))
    assert 0 < hits < len(skewed)


def test_a_softmax_over_the_catalogue_has_all_items_in_their_order(skewed):
    source = Batches(skewed, batch_size=10, negatives=4, histories=None, seed=0, softmax_items=0)
    for batch in source.epoch(0):
        assert batch.items.tolist() == list(range(N_ITEMS))
        assert batch.shared is None


# Pairs that a complement excludes, and positives among some items


@given(pairs_of.filter(bool))
def test_excluded_pairs_are_known_as_pairs_and_as_rows(pairs):
    users, items = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    complement = Complement(users, items, 5, 7)
    asked = [(user, item) for user in range(5) for item in range(7)]
    found = complement.excludes(*(np.array(column) for column in zip(*asked, strict=True)))
    assert [pair for pair, known in zip(asked, found, strict=True) if known] == sorted(set(pairs))
    rows, starts = complement.rows()
    for user in range(5):
        own = sorted({i for u, i in pairs if u == user})
        assert rows[starts[user] : starts[user + 1]].tolist() == own
    assert complement.size(np.array([[0, 4], [2, 2]])).shape == (2, 2)


@pytest.mark.parametrize("items", [None, [1, 2, 5, 9], [0], list(range(N_ITEMS))])
def test_other_positives_of_a_user_among_some_items_equal_a_loop(skewed, items):
    negatives = Negatives(skewed, sampling="uniform", power=0.0, pool=0)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(skewed), 25)
    users, positives = skewed.users[rows].astype(np.int64), skewed.items[rows].astype(np.int64)
    given_items = None if items is None else np.array(items)
    values, starts = negatives.positives_among(users, positives, given_items)
    assert len(starts) == 26
    chosen = list(range(N_ITEMS)) if items is None else items
    for row, (user, positive) in enumerate(zip(users, positives, strict=True)):
        own = set(skewed.items[skewed.users == user].tolist()) - {positive}
        wanted = [place for place, item in enumerate(chosen) if item in own]
        assert values[starts[row] : starts[row + 1]].tolist() == wanted
    assert starts[-1] == len(values)


def test_shared_items_of_a_batch_are_some_of_its_positives_each_once(skewed):
    positives = np.arange(N_ITEMS - 1)  # distinct
    for name in ("uniform", "popularity", "in-batch"):
        negatives = Negatives(skewed, sampling=name, power=0.5, pool=0)
        items, weights = negatives.shared(7, positives, generator(1, "t"))
        assert weights.dtype == np.float32
        assert (np.diff(items) > 0).all()
        assert len(items) == 7 or name == "popularity"
    items, _ = negatives.shared(99, positives, generator(1, "t"))
    assert items.tolist() == positives.tolist()


@pytest.mark.parametrize("name", ["uniform", "in-batch"])
def test_a_pool_has_distinct_items(skewed, name):
    """All of its five items come up among many draws, and no sixth."""
    negatives = Negatives(skewed, sampling=name, power=0.0, pool=5)
    for positives in (np.arange(11), np.arange(5)):  # more than the pool, or as many
        draw = negatives._source(positives, generator(0, f"{len(positives)}"))
        assert len(np.unique(draw(2_000))) == 5
    one = Negatives(skewed, sampling=name, power=0.0, pool=1)
    assert len(np.unique(one._source(np.arange(11), generator(0, "t"))(200))) == 1


@pytest.mark.parametrize("name", ["uniform", "popularity"])
def test_the_last_resort_keeps_the_proportions(skewed, name, monkeypatch):
    monkeypatch.setattr(sampling, "ROUNDS", 0)
    negatives = Negatives(skewed, sampling=name, power=1.0, pool=5)
    drawn = negatives.of_users(np.zeros(4_000, int), 1, np.arange(4), generator(0, "t"))
    touched = touched_of(skewed)[0]
    assert not touched[drawn].any()
    exact = negatives._exactly(np.zeros(4_000, int), generator(0, "t"))
    weights = powers(skewed, 1.0 if name == "popularity" else 0.0) * ~touched
    assert_proportions(np.bincount(exact, minlength=N_ITEMS), weights)


def test_a_user_alone_and_one_with_a_single_missing_item_get_their_draws():
    complement = Complement(np.array([0, 0, 1]), np.array([0, 2, 1]), 2, 3)
    assert complement.draw(np.array([0]), 4, generator(0, "t")).tolist() == [[1] * 4]
    alone = complement.draw_distinct(np.array([1]), 1, generator(0, "t"))
    assert alone.tolist() in ([[0]], [[2]])
    assert alone.dtype == np.int32
    assert complement.draw_distinct(np.array([1]), 2, generator(0, "t")).tolist() == [[0, 2]]

"""Draws from what a user has not touched: exact, uniform, never a touched item."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comet_rec.data import sampling
from comet_rec.data.sampling import Complement, distinct_integers
from comet_rec.random import generator

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

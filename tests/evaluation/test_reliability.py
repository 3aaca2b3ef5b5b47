"""Expectations over draws against enumeration and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.evaluation import reliability
from comet_rec.evaluation.ranking import Ranks, full_ranks
from comet_rec.evaluation.reliability import (
    _hypergeometric,
    _stretches,
    agreement,
    agreement_interval,
    by_popularity,
    expected_figures,
    redrawn,
    stratum_of,
    unseen_others,
)
from comet_rec.evaluation.scoring import VectorScores
from comet_rec.random import generator
from tests.conftest import make_log, random_pairs


def test_the_expectation_is_the_mean_over_every_draw():
    better, others, negatives, k = np.array([0, 2, 4, 6]), 6, 3, 2
    hits, gains = [], []
    for b in better:
        draws = list(itertools.combinations(range(others), negatives))
        places = [sum(item < b for item in draw) for draw in draws]
        hits.append(np.mean([place < k for place in places]))
        gains.append(np.mean([1 / np.log2(place + 2) if place < k else 0 for place in places]))
    ranks = Ranks(better, np.zeros(4, np.int64))
    hr, ndcg = expected_figures(ranks, np.full(4, others), negatives, k)
    assert hr == pytest.approx(np.mean(hits))
    assert ndcg == pytest.approx(np.mean(gains))


def test_the_chances_are_the_hypergeometric_ones(rng):
    from scipy.stats import hypergeom

    others = rng.integers(1, 12_000, 3_000)
    better = (rng.random(3_000) * (others + 1)).astype(np.int64)
    drawn = np.minimum(rng.choice([1, 3, 99, 1_000, 12_000], 3_000), others)
    wanted = hypergeom.pmf(np.arange(10), others[:, None], better[:, None], drawn[:, None])
    np.testing.assert_allclose(_hypergeometric(others, better, drawn, 10), wanted, atol=1e-9)
    assert (others - better < drawn).any()  # where there must be better ones among them


def test_ties_stand_in_every_order():
    """Exactly for few of them; many, as a model without a score for most items has, nearly so."""
    hr, gain = expected_figures(
        Ranks(np.array([8, 0]), np.array([3, 0])), np.array([60, 60]), 60, 10
    )
    assert hr == pytest.approx((2 / 4 + 1) / 2)  # two of the four places are among the ten
    assert gain == pytest.approx(((1 / np.log2(10) + 1 / np.log2(11)) / 4 + 1) / 2)
    for m in (99, 1000, 4000, 5000):  # a place among m + 1 that are alike
        many, _ = expected_figures(Ranks(np.array([0]), np.array([5000])), np.array([5000]), m, 10)
        assert many == pytest.approx(10 / (m + 1), rel=0.03)
    none, _ = expected_figures(Ranks(np.array([0]), np.array([0])), np.array([5000]), 99, 10)
    assert none == 1


@pytest.fixture
def ranked(rng):
    split = cr.leave_one_out(make_log(random_pairs(rng, 200, 90, 12), n_items=90), negatives=20)
    vectors = [torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32)) for n in (200, 90)]
    return split, VectorScores(*vectors)


def test_redrawn_figures_scatter_around_the_expectation_and_all_items_give_the_full_one(ranked):
    split, scores = ranked
    ranks = full_ranks(scores, split.test, split.known)
    others = unseen_others(split.test, split.known)
    assert (others == 90 - 12).all()
    drawn = redrawn(scores, split.interactions, split.test, range(30), "expected")
    means = np.array([figures["HR@10"] for figures in drawn])
    hr, _ = expected_figures(ranks, others, 20, 10)
    assert abs(means.mean() - hr) < 4 * means.std() / np.sqrt(30)
    assert len(set(means)) > 5
    everything, _ = expected_figures(ranks, others, 10_000, 10)
    assert everything == pytest.approx(np.mean(ranks.better < 10))


def test_negatives_of_some_items_alone_are_bounded_from_full_ranks(ranked):
    """Counted item by item: who is compared, and the exact figure, which the bound is below."""
    split, scores = ranked
    held, some = split.test, np.arange(90) < 60
    unseen = np.ones((200, 90), dtype=bool)
    unseen[split.known.users, split.known.items] = False
    unseen[np.arange(200), held.positives] = False
    compared = unseen & some
    others = unseen_others(held, split.known, some)
    np.testing.assert_array_equal(others, compared.sum(axis=1))
    values = scores.score_all(held.users)
    above = values > values[np.arange(200), held.positives][:, None]
    exact = Ranks((above & compared).sum(axis=1), np.zeros(200, dtype=np.int64))
    ranks = full_ranks(scores, held, split.known)
    wanted = expected_figures(exact, others, 20, 10)
    bound = expected_figures(ranks, others, 20, 10)
    assert all(low < value for low, value in zip(bound, wanted, strict=True))
    assert bound[0] > 0


def test_strata_hold_a_third_of_the_rows_each_and_every_user_stands_in_one(ranked):
    popularity = np.array([50, 1, 30, 20, 0, 9, 40])
    assert stratum_of(np.arange(7), popularity).tolist() == [0, 2, 1, 2, 2, 2, 1]
    split, scores = ranked
    ranks = full_ranks(scores, split.test, split.known)
    found = by_popularity(ranks, split.test, split.train, "expected")
    assert sum(row["users"] for row in found.values()) == 200
    whole = sum(row["users"] * row["HR@10"] for row in found.values()) / 200
    assert whole == pytest.approx(np.mean(ranks.better < 10))


def test_the_interval_of_agreement_is_a_point_only_where_users_leave_no_doubt(rng):
    users = np.arange(100)
    sure = np.array([0 * users + level for level in (1.0, 2.0, 3.0)])
    assert agreement_interval(sure, sure * 5) == (1.0, 1.0)
    noisy = np.array([rng.normal(level, 1, 100) for level in (0.0, 0.05, 0.1, 3.0)])
    other = noisy + rng.normal(0, 1, noisy.shape)
    low, high = agreement_interval(noisy, other)
    assert -1 <= low < high <= 1
    assert low <= agreement(noisy.mean(axis=1), other.mean(axis=1)) <= high
    assert high - low >= 1 / 3  # three models that users cannot tell apart: some pair turns


def test_agreement_is_one_for_the_same_order_and_minus_one_for_the_reverse():
    assert agreement([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert agreement([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_draws_have_names_and_seeds_of_their_own(ranked, monkeypatch):
    """Names of streams do not change: figures of before come back."""
    split, scores = ranked
    asked = []

    def spy(seed, name):
        asked.append((seed, name))
        return generator(seed, name)

    monkeypatch.setattr(reliability, "generator", spy)
    redrawn(scores, split.interactions, split.test, [3, 5], "expected")
    values = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5]])
    agreement_interval(values, values)
    agreement_interval(values, values, 7)
    assert asked == [
        (3, "candidates.again"), (5, "candidates.again"), (0, "agreement.bootstrap"),
        (7, "agreement.bootstrap"),
    ]  # fmt: skip


def test_redrawn_ranks_count_ties_as_they_are_told(ranked):
    split, _ = ranked
    alike = VectorScores(torch.zeros(200, 1), torch.zeros(90, 1))
    hits = {
        ties: redrawn(alike, split.interactions, split.test, [0], ties)[0]["HR@10"]
        for ties in ("expected", "pessimistic")
    }
    assert hits == {"expected": pytest.approx(10 / 21), "pessimistic": 0.0}


def test_items_without_a_row_are_of_the_tail():
    """Also if the few rows there are leave them no other items before them."""
    assert stratum_of(np.arange(3), np.array([0, 0, 0])).tolist() == [2, 2, 2]
    assert stratum_of(np.arange(3), np.array([1, 1, 0])).tolist() == [0, 1, 2]


def test_strata_of_items_that_no_training_row_has(ranked):
    split, scores = ranked
    ranks = full_ranks(scores, split.test, split.known)
    few = split.train.select(split.train.items < 30)
    found = by_popularity(ranks, split.test, few, "expected")
    assert found["tail"]["users"] >= (split.test.positives >= 30).sum()


def test_stretches_of_places_grow_by_an_eighth():
    for places in (1, 16, 17, 18, 100, 5000):
        edges = _stretches(places)
        assert edges[:17].tolist() == list(range(17))
        assert edges[-1] >= places
        assert len(edges) == 17 or edges[-2] < places
        assert all(b - a == a // 8 for a, b in itertools.pairwise(edges[16:]))

"""HR and NDCG of one positive: hand-worked cases, ties, invariants, an independent library."""

from __future__ import annotations

from itertools import permutations
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from comet_rec.evaluation.metrics import figures, hit_rate, ndcg, rank

ints = st.integers(0, 20)


def one(metric, better: int, tied: int, k: int, **rule) -> float:
    return float(metric(np.array([better]), np.array([tied]), k, **rule)[0])


@pytest.mark.parametrize(
    ("better", "tied", "k", "hr", "gain"),
    [
        (0, 0, 5, 1, 1),
        (4, 0, 5, 1, 1 / log2(6)),
        (5, 0, 5, 0, 0),
        (0, 1, 1, 1 / 2, 1 / 2),
        (0, 99, 10, 1 / 10, sum(1 / log2(r + 1) for r in range(1, 11)) / 100),
        (9, 1, 10, 1 / 2, 1 / log2(11) / 2),
        (10, 5, 10, 0, 0),
    ],
)
def test_hand_worked(better, tied, k, hr, gain):
    assert one(hit_rate, better, tied, k) == pytest.approx(hr)
    assert one(ndcg, better, tied, k) == pytest.approx(gain)


@pytest.mark.parametrize(("better", "tied", "k"), [(0, 2, 2), (1, 2, 2), (1, 3, 3), (3, 2, 3)])
def test_expected_is_the_mean_over_all_orders_of_the_tied(better, tied, k):
    places = [better + 1 + order.index(0) for order in permutations(range(tied + 1))]
    assert one(hit_rate, better, tied, k) == pytest.approx(np.mean([p <= k for p in places]))
    gains = [1 / log2(p + 1) if p <= k else 0 for p in places]
    assert one(ndcg, better, tied, k) == pytest.approx(np.mean(gains))
    assert float(rank(np.array([better]), np.array([tied]))[0]) == pytest.approx(np.mean(places))


def test_a_constant_scorer_gets_what_chance_gets():
    assert one(hit_rate, 0, 99, 10) == pytest.approx(0.1)
    assert one(hit_rate, 0, 99, 10, ties="pessimistic") == 0
    assert one(ndcg, 0, 99, 10, ties="pessimistic") == 0


@given(ints, ints, st.integers(1, 12))
def test_invariants(better, tied, k):
    hr, gain = one(hit_rate, better, tied, k), one(ndcg, better, tied, k)
    assert 0 <= gain <= hr + 1e-12 <= 1 + 1e-9
    assert hr <= one(hit_rate, better, tied, k + 1) + 1e-12
    assert gain <= one(ndcg, better, tied, k + 1) + 1e-12
    assert one(hit_rate, better, tied, k, ties="pessimistic") <= hr + 1e-12
    assert one(ndcg, better, tied, k, ties="pessimistic") <= gain + 1e-12


def test_agrees_with_torchmetrics_where_nothing_ties():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.permuted(np.tile(np.arange(100.0), (50, 1)), axis=1))
    target = torch.zeros(50, 100, dtype=torch.bool)
    target[:, 0] = True
    better = (scores > scores[:, :1]).sum(dim=1).numpy()
    means, _ = figures(better, np.zeros_like(better))
    query = torch.arange(50).repeat_interleave(100)
    for k in (5, 10):
        hits = RetrievalHitRate(top_k=k)(scores.flatten(), target.flatten(), indexes=query)
        gains = RetrievalNormalizedDCG(top_k=k)(scores.flatten(), target.flatten(), indexes=query)
        assert means[f"HR@{k}"] == pytest.approx(float(hits))
        assert means[f"NDCG@{k}"] == pytest.approx(float(gains), rel=1e-6)


def test_standard_error_is_that_of_a_mean():
    better = np.array([0, 0, 50, 50])
    means, errors = figures(better, np.zeros(4, dtype=int))
    assert means["HR@10"] == 0.5
    assert errors["HR@10"] == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)

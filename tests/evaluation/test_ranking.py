"""Ranks among candidates and among the catalogue, against a loop."""

from __future__ import annotations

import numpy as np
import pytest

from comet_rec.data.split import leave_one_out
from comet_rec.errors import NonFiniteError
from comet_rec.evaluation.ranking import (
    drawn_users,
    full_ranks,
    sampled_ranks,
    weighed_full_ranks,
    weighed_ranks,
)


@pytest.fixture
def split(random_log):
    return leave_one_out(random_log(40, 60, 8), negatives=20)


class Given:
    """Scores that are there already, [m, n]."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.n_items = scores.shape[1]

    def score_all(self, users):
        return self.scores[users]

    def score_pairs(self, users, items):
        return self.scores[users[:, None], items]


def scores_with_ties() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 12, size=(40, 60)).astype(np.float32)


def test_both_rankings_equal_a_loop(split):
    scores = scores_with_ties()
    sampled = sampled_ranks(Given(scores), split.test)
    full = full_ranks(Given(scores), split.test, split.known)
    for t, (user, positive) in enumerate(zip(split.test.users, split.test.positives, strict=True)):
        own = scores[user, positive]
        drawn = scores[user, split.test.candidates[t]]
        assert (sampled.better[t], sampled.tied[t]) == ((drawn > own).sum(), (drawn == own).sum())
        seen = set(split.known.items[split.known.users == user].tolist())
        others = [i for i in range(60) if i not in seen and i != positive]
        rest = scores[user, others]
        assert (full.better[t], full.tied[t]) == ((rest > own).sum(), (rest == own).sum())


def test_ranks_under_several_weights_are_those_of_the_sums(split):
    scores, more = scores_with_ties(), scores_with_ties()[::-1].copy()
    weights = (0.0, 0.5, 2.0)
    found = weighed_ranks(Given(scores), Given(more), weights, split.test)
    for weight, ranks in zip(weights, found, strict=True):
        wanted = sampled_ranks(Given(scores + np.float32(weight) * more), split.test)
        np.testing.assert_array_equal(ranks.better, wanted.better)
        np.testing.assert_array_equal(ranks.tied, wanted.tied)
    assert (found[0].better != found[2].better).any()


def test_the_whole_catalogue_under_several_weights_is_ranked_by_the_sums(split):
    scores, more = scores_with_ties(), scores_with_ties()[::-1].copy()
    weights = (0.0, 0.5, 2.0)
    found = weighed_full_ranks(Given(scores), Given(more), weights, split.test, split.known)
    for weight, ranks in zip(weights, found, strict=True):
        summed = Given(scores + np.float32(weight) * more)
        wanted = full_ranks(summed, split.test, split.known)
        np.testing.assert_array_equal(ranks.better, wanted.better)
        np.testing.assert_array_equal(ranks.tied, wanted.tied)
    assert (found[0].better != found[2].better).any()


def test_drawn_users_are_some_of_them_and_always_the_same(split):
    few = drawn_users(split.test, 7)
    assert len(few) == 7
    assert (np.diff(few.users) > 0).all()
    rows = np.searchsorted(split.test.users, few.users)
    for name in ("users", "positives", "candidates"):
        np.testing.assert_array_equal(getattr(few, name), getattr(split.test, name)[rows])
    np.testing.assert_array_equal(few.users, drawn_users(split.test, 7).users)
    assert drawn_users(split.test, None) is drawn_users(split.test, 40) is split.test


def test_missing_candidates_do_not_count(random_log):
    split = leave_one_out(random_log(5, 12, 8), negatives=6)
    ranks = sampled_ranks(Given(np.ones((5, 12), np.float32)), split.test)
    assert ranks.tied.tolist() == [4] * 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused(split, bad):
    scores = scores_with_ties()
    scores[3, 7] = bad
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        full_ranks(Given(scores), split.test, split.known)

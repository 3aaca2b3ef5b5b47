"""The approximate index: lists as the exact search gives them, but for missed items."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from comet_rec.errors import ConfigError
from comet_rec.retrieval import approximate
from comet_rec.retrieval.approximate import ApproximateIndex, recall, widened
from comet_rec.retrieval.exact import top_k


def vectors(n: int, queries: int = 60, width: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    shapes = (queries, width), (n, width)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def exact(users, items, k, masked=None):
    parts = list(top_k(torch.from_numpy(users), torch.from_numpy(items), k, masked=masked))
    return np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])


def pairs(rng, queries: int, n: int, share: float):
    return tuple(np.argwhere(rng.random((queries, n)) < share).T.astype(np.int64))


@pytest.fixture
def no_exact_search(monkeypatch):
    """Make every search go through the graph."""

    def refused(*_, **__):
        raise AssertionError("searched exactly")

    monkeypatch.setattr(approximate, "top_k", refused)


def test_a_search_through_the_graph_gives_the_exact_lists(no_exact_search):
    users, items = vectors(4000)
    masked = pairs(np.random.default_rng(1), 60, 4000, 0.005)
    found, scores = ApproximateIndex.build(items).search(users, 10, masked=masked)
    best, best_scores = exact(users, items, 10, masked)
    same = found == best
    assert same.mean() > 0.97
    assert np.array_equal(scores[same], best_scores[same])  # the same rounding, too
    assert (np.diff(scores, axis=1) <= 0).all()


def test_masked_items_are_never_found_though_they_are_the_best(no_exact_search):
    users, items = vectors(4000)
    best = exact(users, items, 100)[0]
    masked = np.repeat(np.arange(60), 100), best.ravel()
    found, _ = ApproximateIndex.build(items).search(users, 10, masked=masked)
    assert (found >= 0).all()
    assert not (found[:, :, None] == best[:, None, :]).any()
    assert (found == exact(users, items, 10, masked)[0]).mean() > 0.9


@pytest.mark.parametrize("n", [1, 2, 7, 300])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_small_catalogues_and_long_lists_are_searched_exactly(n, k):
    users, items = vectors(n)
    masked = pairs(np.random.default_rng(1), 60, n, 0.5)
    found, scores = ApproximateIndex.build(items).search(users, k, masked=masked)
    best, best_scores = exact(users, items, k, masked)
    assert np.array_equal(found, best)
    assert np.array_equal(scores, best_scores)


def test_a_user_who_has_seen_everything_gets_an_empty_list():
    users, items = vectors(2000, queries=3)
    masked = np.full(2000, 1), np.arange(2000)
    found, scores = ApproximateIndex.build(items).search(users, 5, masked=masked)
    assert (found[1] == -1).all()
    assert (scores[1] == -np.inf).all()
    assert (found[[0, 2]] >= 0).all()


def test_a_user_who_has_seen_nearly_everything_gets_the_rest():
    users, items = vectors(2000, queries=1)
    masked = np.zeros(1998, np.int64), np.delete(np.arange(2000), [5, 9])
    found, _ = ApproximateIndex.build(items).search(users, 5, masked=masked)
    assert sorted(found[0].tolist()) == [-1, -1, -1, 5, 9]


def test_no_users_get_no_lists():
    users, items = vectors(50, queries=0)
    found, scores = ApproximateIndex.build(items).search(users, 5)
    assert found.shape == scores.shape == (0, 5)


def test_lists_do_not_depend_on_the_other_users():
    users, items = vectors(3000)
    masked = pairs(np.random.default_rng(1), 60, 3000, 0.02)
    index = ApproximateIndex.build(items)
    together = index.search(users, 10, masked=masked)[0]
    for row in (0, 31, 59):
        mine = masked[1][masked[0] == row]
        one = index.search(users[row : row + 1], 10, masked=(np.zeros_like(mine), mine))
        assert np.array_equal(one[0][0], together[row])


def test_equal_items_are_in_the_order_of_indices():
    users, items = vectors(30)
    items = np.ascontiguousarray(np.tile(items, (3, 1)))
    found = ApproximateIndex.build(items).search(users, 9)[0]
    assert np.array_equal(found, exact(users, items, 9)[0])


def test_recall_counts_places_that_items_as_good_fill():
    best = np.array([[3, 2, 1], [5, -np.inf, -np.inf], [-np.inf] * 3], dtype=np.float32)
    assert recall(best, best) == 1
    missed = np.array([[3, 1, 0], [4, -np.inf, -np.inf], [-np.inf] * 3], dtype=np.float32)
    assert recall(missed, best) == pytest.approx(2 / 4)
    assert recall(best[2:], best[2:]) == 1


def test_a_search_is_widened_until_the_recall_is_reached(monkeypatch):
    users, items = vectors(20_000, width=32)
    none = np.empty(0, np.int64), np.empty(0, np.int64)
    monkeypatch.setattr(approximate, "NARROWEST", 2)
    index = ApproximateIndex.build(items)
    first = recall(index.search(users, 1)[1], exact(users, items, 1)[1])
    reached = widened(index, users, 1, none, 0.95)
    assert first < 0.95 <= reached
    assert 2 < index.width < approximate.WIDEST


def test_widening_ends_though_the_recall_is_not_reached(monkeypatch):
    users, items = vectors(3000)
    none = np.empty(0, np.int64), np.empty(0, np.int64)
    monkeypatch.setattr(approximate, "WIDEST", 256)
    index = ApproximateIndex.build(items)
    assert widened(index, users, 10, none, 1.1) <= 1
    assert index.width == 256


def test_a_missing_library_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r'faiss.*pip install "comet-rec\[ann\]"'):
        ApproximateIndex.build(vectors(3)[1])


def test_equally_long_vectors_give_the_same_lists(no_exact_search):
    users, items = vectors(4000)
    items *= np.random.default_rng(1).uniform(0.8, 1.2, size=(4000, 1)).astype(np.float32)
    index = ApproximateIndex.build(items, equal_lengths=True)
    assert index.equal_lengths
    found, scores = index.search(users, 10)
    best, best_scores = exact(users, items, 10)
    same = found == best
    assert same.mean() > 0.9
    assert np.array_equal(scores[same], best_scores[same])


@pytest.mark.parametrize("better", [False, True])
def test_the_graph_with_the_higher_recall_is_kept(better, monkeypatch):
    users, items = vectors(50)
    none = np.empty(0, np.int64), np.empty(0, np.int64)
    recalls = {False: 0.8, True: 0.9 if better else 0.7}
    monkeypatch.setattr(approximate, "widened", lambda index, *_: recalls[index.equal_lengths])
    index, reached = approximate.best_index(items, users, 10, none, 0.99)
    assert index.equal_lengths == better
    assert reached == max(recalls.values())

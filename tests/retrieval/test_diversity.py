"""Maximal marginal relevance against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comet_rec.retrieval.diversity import diversified


def loop(items, scores, factors, k, diversity):
    """One list, step by step."""
    candidates = [(int(i), float(s)) for i, s in zip(items, scores, strict=True) if i >= 0]
    low, high = min(s for _, s in candidates), max(s for _, s in candidates)
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    picked: list[int] = []
    while candidates and len(picked) < k:
        merits = []
        for item, score in candidates:
            relevance = (score - low) / max(high - low, 1e-12)
            likeness = max((float(unit[item] @ unit[j]) for j in picked), default=0.0)
            merits.append((1 - diversity) * relevance - diversity * likeness)
        best = int(np.argmax(merits))
        picked.append(candidates.pop(best)[0])
    return picked


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.7, 1.0])
def test_each_list_is_the_loops(diversity):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(50, 6))
    items = np.stack([rng.permutation(50)[:20] for _ in range(300)])
    scores = -np.sort(-rng.normal(size=items.shape), axis=1).astype(np.float32)
    for row, length in ((0, 3), (7, 1), (9, 12)):
        items[row, length:], scores[row, length:] = -1, -np.inf
    picked, picked_scores = diversified(items, scores, torch.from_numpy(factors), 8, diversity)
    assert picked.shape == picked_scores.shape == (300, 8)
    for row in range(300):
        expected = loop(items[row], scores[row], factors, 8, diversity)
        assert picked[row, : len(expected)].tolist() == expected
        assert (picked[row, len(expected) :] == -1).all()
        by_item = dict(zip(items[row].tolist(), scores[row].tolist(), strict=True))
        assert picked_scores[row].tolist() == [by_item[i] for i in picked[row].tolist()]


def test_without_diversity_the_order_is_that_of_the_scores():
    items = np.array([[4, 2, 7, 1]])
    scores = np.array([[3, 2, 2, 1]], dtype=np.float32)
    picked, _ = diversified(items, scores, torch.eye(8), 3, 0.0)
    assert picked.tolist() == [[4, 2, 7]]


def test_equal_items_are_spread():
    factors = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    items, scores = np.array([[0, 1, 2]]), np.array([[3, 2.9, 1]], dtype=np.float32)
    assert diversified(items, scores, factors, 2, 0.0)[0].tolist() == [[0, 1]]
    assert diversified(items, scores, factors, 2, 0.6)[0].tolist() == [[0, 2]]

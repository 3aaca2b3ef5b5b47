"""Exact top-k and diverse lists, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comet_rec.parallel import in_parts
from comet_rec.retrieval import exact
from comet_rec.retrieval.diversity import diversified
from comet_rec.verify import VerificationError
from tests.conftest import fast_form


def collect(*arguments, **keywords):
    parts = list(exact.top_k(*arguments, **keywords))
    return np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 15), st.integers(0, 10_000))
def test_equals_a_stable_sort_with_ties_by_index(queries, n, k, seed):
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 3, size=(queries, 2)).astype(np.float32)
    items = rng.integers(0, 3, size=(n, 2)).astype(np.float32)
    masked = np.argwhere(rng.random((queries, n)) < 0.4)
    allowed = rng.random(n) < 0.8
    scores = users @ items.T
    scores[:, ~allowed] = -np.inf
    scores[masked[:, 0], masked[:, 1]] = -np.inf
    found, values = collect(
        torch.from_numpy(users), torch.from_numpy(items), k,
        masked=(masked[:, 0], masked[:, 1]), allowed=allowed,
    )  # fmt: skip
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(scores, order, axis=1)
    assert np.array_equal(values, expected)
    assert np.array_equal(found, np.where(np.isinf(expected), -1, order))


@pytest.mark.parametrize("queries", [1, 3, 7, 40])
@pytest.mark.parametrize(("n", "dims"), [(43, 64), (3706, 64), (3706, 130), (8201, 65)])
def test_equal_items_have_equal_scores_and_the_order_of_ids(queries, n, dims):
    """In float32 the last bits of a product depend on the item's place: 3704, 0, 1, … came out."""
    rng = torch.Generator().manual_seed(n + dims)
    users = torch.randn(queries, dims, generator=rng)
    kinds = torch.randn(5, dims, generator=rng)
    items = kinds[torch.arange(n) * 5 // n]  # in five long stretches, over tiles and runs
    found, values = collect(users, items, 8)
    best = (users.double() @ kinds.double().T).argmax(1).numpy()
    first = -(-best * n // 5)
    assert np.array_equal(found, first[:, None] + np.arange(8))
    assert (values == values[:, :1]).all()
    alone = [collect(users[row : row + 1], items, 8)[1][0] for row in range(queries)]
    assert np.array_equal(values, alone)


def test_a_known_length_of_the_longest_item_changes_no_list():
    rng = torch.Generator().manual_seed(0)
    users, items = torch.randn(5, 32, generator=rng), torch.randn(9000, 32, generator=rng)
    longest = float(torch.linalg.vector_norm(items, dim=1).max())
    plain, known = collect(users, items, 10), collect(users, items, 10, longest=longest)
    assert np.array_equal(plain[0], known[0])
    assert np.array_equal(plain[1], known[1])


def test_the_best_of_pairs_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 6, size=40))
    items, scores = rng.permutation(40), rng.integers(0, 5, size=40).astype(np.float32)
    found, values = exact.top_k_of_pairs(scores, rows, items, 7, 4)
    for row in range(7):
        mine = sorted(
            (-score, item) for r, item, score in zip(rows, items, scores, strict=True) if r == row
        )[:4]
        unused = 4 - len(mine)
        assert found[row].tolist() == [item for _, item in mine] + [-1] * unused
        assert values[row].tolist() == [-score for score, _ in mine] + [-np.inf] * unused


@pytest.mark.parametrize("length", [1.0, 1e3])
def test_scores_near_zero_are_ordered_as_in_float64(length):
    rng = torch.Generator().manual_seed(0)
    user = torch.randn(1, 128, generator=rng) * length
    across = torch.randn(2000, 128, generator=rng)
    across -= (across @ user.T) / (user @ user.T) * user  # products of rounding alone
    found, values = collect(user, across, 3)
    scores = (user.double() @ across.double().T).float()
    order = scores.argsort(descending=True, stable=True)[:, :3]
    assert np.array_equal(found, order)
    assert np.array_equal(values, scores.gather(1, order))


def test_long_items_at_right_angles_are_ordered_as_in_float64():
    """Rounding may take one out of the list though the items that take its place are short."""
    rng = torch.Generator().manual_seed(0)
    users, items = torch.randn(200, 64, generator=rng), torch.randn(3000, 64, generator=rng)
    long = torch.randn(200, 64, generator=rng) * 1e5
    for user, one in zip(users, long, strict=True):
        last = (items @ user).topk(5).values[-1]
        items[1234] = one - (one @ user - last) / (user @ user) * user  # a score near the last
        found, values = collect(user[None], items, 5)
        scores = (user.double() @ items.double().T).float()
        order = scores.argsort(descending=True, stable=True)[:5]
        assert np.array_equal(found[0], order)
        assert np.array_equal(values[0], scores[order])


def test_blocks_do_not_change_the_lists(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    users, items = torch.rand(50, 8, generator=rng), torch.rand(30, 8, generator=rng)
    masked = (np.arange(50), np.arange(50) % 30)
    whole = collect(users, items, 5, masked=masked)
    monkeypatch.setattr(exact, "QUERIES", 7)
    assert len(list(exact.top_k(users, items, 5, masked=masked))) == 8
    blocked = collect(users, items, 5, masked=masked)
    assert np.array_equal(whole[0], blocked[0])
    assert blocked[1] == pytest.approx(whole[1], rel=1e-6)


@fast_form
def test_long_lists_are_made_a_part_at_a_time(monkeypatch):
    """Of a quarter of the catalogue, through its runs, and of more than that."""
    rng = torch.Generator().manual_seed(0)
    users, items = torch.rand(9, 4, generator=rng), torch.rand(640, 4, generator=rng)
    monkeypatch.setattr(exact, "RUN", 8)
    monkeypatch.setattr(exact, "TILE", 64)
    whole = [collect(users, items, k) for k in (19, 100)]
    looked = []
    einsum = torch.einsum

    def watched(form, block, picked):
        looked.append(picked.numel())
        return einsum(form, block, picked)

    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 * 2 * 19 * 8 * 4)
    monkeypatch.setattr(torch, "einsum", watched)
    assert len(list(exact.top_k(users, items, 100))) > 1
    for k, (found, scores) in zip((19, 100), whole, strict=True):
        again = collect(users, items, k)
        assert np.array_equal(found, again[0])
        assert again[1] == pytest.approx(scores, rel=1e-6)
    assert max(looked) <= 2 * 19 * 8 * 4
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4)
    looked.clear()
    collect(users, items, 19)
    assert max(looked) == 19 * 8 * 4  # one query at a time


@given(
    st.integers(1, 5), st.integers(30, 90), st.integers(1, 3), st.integers(0, 10_000),
    st.sampled_from([(4, 8, 64), (2, 6, 64), (8, 8, 64), (4, 8, 1), (2, 6, 2)]),
)  # fmt: skip
def test_runs_give_what_a_whole_sort_gives(queries, n, k, seed, sizes):
    rng = np.random.default_rng(seed)
    levels = int(rng.choice([3, 1000]))  # many ties, or hardly any
    users = rng.integers(-levels, levels, size=(queries, 2)).astype(np.float32)
    items = rng.integers(-levels, levels, size=(n, 2)).astype(np.float32)
    masked = np.argwhere(rng.random((queries, n)) < 0.3)
    allowed = rng.random(n) < rng.choice([0.02, 0.8])
    scores = users @ items.T
    scores[:, ~allowed] = -np.inf
    scores[masked[:, 0], masked[:, 1]] = -np.inf
    before = exact.RUN, exact.TILE, exact.LEAST_PART
    exact.RUN, exact.TILE, exact.LEAST_PART = sizes  # with a small last one, of many tiles
    try:
        found, values = collect(
            torch.from_numpy(users), torch.from_numpy(items), k,
            masked=(masked[:, 0], masked[:, 1]), allowed=allowed,
        )  # fmt: skip
    finally:
        exact.RUN, exact.TILE, exact.LEAST_PART = before
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(scores, order, axis=1)
    assert np.array_equal(values, expected)
    assert np.array_equal(found, np.where(np.isinf(expected), -1, order))


def test_queries_of_several_threads_keep_their_order(monkeypatch, two_threads):
    rng = torch.Generator().manual_seed(0)
    users, items = torch.rand(50, 8, generator=rng), torch.rand(30, 8, generator=rng)
    masked = (np.arange(50), np.arange(50) % 30)
    whole = collect(users, items, 5, masked=masked)
    monkeypatch.setattr(exact, "LEAST_PART", 3)
    monkeypatch.setattr(exact, "QUERIES", 20)
    parts = list(exact.top_k(users, items, 5, masked=masked))
    assert [part for part, _, _ in parts] == [slice(0, 20), slice(20, 40), slice(40, 50)]
    assert np.array_equal(np.concatenate([found for _, found, _ in parts]), whole[0])


def test_wrong_lists_are_told_by_what_is_wrong_with_them():
    """In the verification mode, against all scores; masked and closed items count."""
    rng = torch.Generator().manual_seed(0)
    users, items = torch.rand(4, 3, generator=rng), torch.rand(9, 3, generator=rng)
    mask = exact.Mask(np.array([1, 2, 2, 3]), np.array([0, 4, 5, 8]), torch.arange(9) == 7)
    scores = (users.double() @ items.double().T).float()
    scores[torch.from_numpy(mask.rows), torch.from_numpy(mask.items)] = float("-inf")
    scores[:, 7] = float("-inf")
    values, found = scores.sort(dim=1, descending=True)
    values, found = values[2:, :8], found[2:, :8].masked_fill(values[2:, :8].isinf(), -1)

    def check(found, values):
        exact._verify(users[2:], items, found, values, mask, 2)

    check(found, values)
    check(found, values * (1 + 1e-7))
    with pytest.raises(VerificationError, match=r"^items in lists: "):
        check(found, values.masked_fill(torch.arange(8) == 5, float("-inf")))
    with pytest.raises(VerificationError, match=r"^scores of lists: "):
        check(found, values * 1.001)
    other = found.clone()
    other[0, 0] = found[0, 3]
    with pytest.raises(VerificationError, match=r"^scores of listed items: "):
        check(other, values)


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("filtered", [False, True])
def test_lists_of_computed_scores_equal_a_sort(monkeypatch, block, filtered):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, size=(7, 12)).astype(np.float64)  # they become float32
    masked = np.argwhere(rng.random((7, 12)) < 0.3)
    masked = np.concatenate([masked, [[6, item] for item in range(12)]])  # one has no item at all
    masked = np.unique(masked, axis=0)
    allowed = rng.random(12) < 0.6
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 * 12 * block)
    asked = []

    def rows(part):
        asked.append(part)
        return scores[part]

    rules = {"masked": (masked[:, 0], masked[:, 1]), "allowed": allowed} if filtered else {}
    parts = list(exact.top_k_of_rows(rows, 7, 12, 5, **rules))
    assert [part for part, _, _ in parts] == asked
    assert {part.stop - part.start for part in asked[:-1]} <= {block}  # no smaller than may be
    assert asked[-1].stop - asked[-1].start <= block
    found, values = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    wanted = scores.copy()
    if filtered:
        wanted[:, ~allowed] = -np.inf
        wanted[masked[:, 0], masked[:, 1]] = -np.inf
    order = np.argsort(-wanted, axis=1, kind="stable")[:, :5]
    best = np.take_along_axis(wanted, order, axis=1)
    np.testing.assert_array_equal(values, best)
    np.testing.assert_array_equal(found, np.where(np.isinf(best), -1, order))
    assert values.dtype == np.float32
    assert found.dtype == np.int64


def test_an_empty_list_has_no_items():
    for n in (3, 400):  # with and without runs
        found, values = collect(torch.ones(2, 1), torch.ones(n, 1), 0)
        assert found.shape == values.shape == (2, 0)
        assert found.dtype == np.int64
        assert values.dtype == np.float32


def test_blocks_are_as_large_as_memory_allows(monkeypatch):
    users, items = torch.rand(20, 2), torch.rand(10, 2)
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 * 10 * 6)
    parts = [part for part, _, _ in exact.top_k(users, items, 3)]
    assert parts == [slice(0, 6), slice(6, 12), slice(12, 18), slice(18, 20)]


def test_a_thread_gets_no_fewer_queries_than_pay(monkeypatch):
    asked = []

    def spy(count, least, run):
        asked.append((count, least))
        return in_parts(count, least, run)

    monkeypatch.setattr(exact, "in_parts", spy)
    collect(torch.rand(20, 2), torch.rand(10, 2), 3)
    assert asked == [(20, exact.LEAST_PART)]


@fast_form
def test_only_uncertain_queries_are_ranked_again_a_few_at_a_time(monkeypatch):
    """Items at 1, 2, … are far apart; those of equal vectors at the end of a list are not."""
    asked = []

    def spy(block, *more):
        asked.append(len(block))
        return scores(block, *more)

    scores = exact._exact_scores
    monkeypatch.setattr(exact, "_exact_scores", spy)
    monkeypatch.setattr(exact, "RUN", 8)
    monkeypatch.setattr(exact, "TILE", 64)
    apart = torch.arange(1.0, 641.0)[:, None]
    found, _ = collect(torch.ones(5, 1), apart, 3)
    assert found.tolist() == [[639, 638, 637]] * 5
    assert asked == []
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 * 640)
    found, _ = collect(torch.ones(5, 1), torch.ones(640, 1), 3)
    assert found.tolist() == [[0, 1, 2]] * 5
    assert asked == [1] * 5


def test_a_list_longer_than_the_catalogue_has_all_of_it():
    scores = np.array([[1.0, 3.0, 2.0]])
    ((_, found, values),) = exact.top_k_of_rows(lambda part: scores[part], 1, 3, 10)
    assert found.tolist() == [[1, 2, 0]]
    assert values.tolist() == [[3.0, 2.0, 1.0]]
    found, values = collect(torch.ones(1, 1), torch.tensor([[1.0], [3.0], [2.0]]), 10)
    assert found.tolist() == [[1, 2, 0]]
    found, values = exact.top_k_of_pairs(
        np.array([2.0], dtype=np.float32), np.array([0]), np.array([7]), 1, 2
    )
    assert (found.dtype, values.dtype) == (np.int64, np.float32)


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

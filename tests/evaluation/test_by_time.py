"""Metrics and rankings of splits by time, against loops over all orders and all items."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comet_rec.data.split import TEST, TRAIN
from comet_rec.data.time_split import time_split
from comet_rec.errors import UnknownNameError
from comet_rec.evaluation import ranking
from comet_rec.evaluation.audit import audit
from comet_rec.evaluation.by_time import findings, list_figures
from comet_rec.evaluation.metrics import clustered_error, hit_rate, ndcg, standard_error
from comet_rec.evaluation.ranking import (
    Ranks,
    drawn_users,
    full_ranks,
    sampled_ranks,
    weighed_full_ranks,
)
from tests.data.test_time_split import TARGETS, random_log

NAMES = [f"{metric}@{k}" for metric in ("HR", "NDCG", "Recall", "MRR") for k in (1, 2, 3, 10)]


class Given:
    """Scores that are there already, [Q, I]."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.n_items = scores.shape[1]

    def score_all(self, lists):
        return self.scores[lists]

    def score_pairs(self, lists, items):
        return self.scores[lists[:, None], items]


def split_of(target: str = "all", **options):
    return time_split(random_log(7), at=650, validation=400, target=target, negatives=8, **options)


def given_scores(split, levels: int = 7, seed: int = 0) -> Given:
    shape = len(split.test.queries), split.interactions.n_items
    return Given(np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32))


def figure_of(order: list[bool], name: str) -> float:
    """A metric of one list, whose places are positive or not."""
    metric, k = name.split("@")
    ranks = [place + 1 for place, positive in enumerate(order) if positive]
    inside = [rank for rank in ranks if rank <= int(k)]
    if metric == "HR":
        return float(bool(inside))
    if metric == "MRR":
        return 1 / inside[0] if inside else 0.0
    if metric == "Recall":
        return len(inside) / len(ranks)
    ideal = sum(1 / log2(rank + 1) for rank in range(1, min(len(ranks), int(k)) + 1))
    return sum(1 / log2(rank + 1) for rank in inside) / ideal


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_metrics_of_a_list_are_means_over_all_orders_of_its_ties(items):
    scores = [score for score, _ in items]
    is_positive = [positive for _, positive in items]
    if not any(is_positive):
        is_positive[0] = True
    positives = [s for s, p in zip(scores, is_positive, strict=True) if p]
    better = np.array([sum(s > own for s in scores) for own in positives])
    tied = np.array([sum(s == own for s in scores) - 1 for own in positives])
    ranks = Ranks(better, tied, np.zeros(len(better), int), np.zeros(1, int))
    orders = [
        [is_positive[i] for i in sorted(range(len(items)), key=lambda i, o=o: (-scores[i], o[i]))]
        for o in permutations(range(len(items)))
    ]
    worst = [
        is_positive[i]
        for i in sorted(range(len(items)), key=lambda i: (-scores[i], is_positive[i]))
    ]
    for name in NAMES:
        wanted = np.mean([figure_of(order, name) for order in orders])
        assert ranks.figure(name, "expected")[0] == pytest.approx(wanted)
        assert ranks.figure(name, "pessimistic")[0] == pytest.approx(figure_of(worst, name))


def test_lists_of_one_positive_have_the_metrics_of_before():
    rng = np.random.default_rng(0)
    better, tied = rng.integers(0, 20, (2, 50))
    ranks = Ranks(better, tied, np.arange(50), np.arange(50))
    for ties in ("expected", "pessimistic"):
        np.testing.assert_allclose(ranks.figure("HR@5", ties), hit_rate(better, tied, 5, ties))
        np.testing.assert_allclose(ranks.figure("Recall@5", ties), hit_rate(better, tied, 5, ties))
        np.testing.assert_allclose(ranks.figure("NDCG@5", ties), ndcg(better, tied, 5, ties))
    with pytest.raises(UnknownNameError, match="HR@k or NDCG@k or Recall@k or MRR@k"):
        ranks.figure("Precision@5", "expected")
    with pytest.raises(UnknownNameError, match="use HR@k or NDCG@k with"):
        Ranks(better, tied).figure("MRR@5", "expected")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("repeats", ["hide", "keep"])
def test_full_and_sampled_ranks_equal_a_loop(target, repeats):
    split = split_of(target, repeats=repeats)
    held, queries, log = split.test, split.test.queries, split.interactions
    scores = given_scores(split)
    full, sampled = full_ranks(scores, held, split.known), sampled_ranks(scores, held)
    exists = set(split.known.items.tolist())
    for row, query in enumerate(queries.of_rows):
        user, positive = held.users[row], held.positives[row]
        target_row = np.flatnonzero((log.users == user) & (log.items == positive))[0]
        end = target_row if target != "all" else len(log)
        before = (log.users == user) & (np.arange(len(log)) < end)
        if target == "all":
            before &= log.times < 650
        seen = set() if repeats == "keep" else set(log.items[before].tolist())
        own = scores.scores[query]
        rest = own[[i for i in exists - seen if i != positive]]
        mine = own[positive]
        assert (full.better[row], full.tied[row]) == ((rest > mine).sum(), (rest == mine).sum())
        others = held.positives[(queries.of_rows == query) & (held.positives != positive)]
        drawn = held.candidates[row]
        rest = own[np.concatenate([drawn[drawn < log.n_items], others])]
        found = sampled.better[row], sampled.tied[row]
        assert found == ((rest > mine).sum(), (rest == mine).sum())


def test_items_that_did_not_exist_never_count_and_are_in_no_list():
    log = random_log(7)
    log = replace(log, times=np.where(log.items < 6, 700 + log.times // 10, log.times))
    order = np.lexsort((log.times, log.users))
    log = replace(log, items=log.items[order], times=log.times[order])
    split = time_split(log, at=650, validation=400, negatives=8)
    exists = split.test.queries.exists
    assert not exists[:6].any()
    assert (split.test.positives >= 6).all()
    assert (split.test.candidates >= 6).all()
    scores = given_scores(split)
    scores.scores[:, :6] = 99
    ranks = full_ranks(scores, split.test, split.known)
    scores.scores[:, :6] = -99
    again = full_ranks(scores, split.test, split.known)
    np.testing.assert_array_equal(ranks.better, again.better)
    scores.scores[:, :6] = 99
    found = list_figures(scores, split.test, np.where(exists, 1, 10**6), 10)
    assert found["popularity@10"] == 1


@pytest.mark.parametrize("target", ["last", "all", "successive"])
def test_coverage_and_popularity_equal_a_loop(target, monkeypatch):
    split = split_of(target)
    queries, scores = split.test.queries, given_scores(split)
    popularity = np.bincount(split.known.items, minlength=scores.n_items)
    listed = []
    for query in range(len(queries)):
        _, seen = queries.histories(np.array([query]))
        allowed = sorted(set(np.flatnonzero(queries.exists).tolist()) - set(seen.tolist()))
        listed.append(sorted(allowed, key=lambda i, q=query: (-scores.scores[q, i], i))[:10])
    figures = list_figures(scores, split.test, popularity, 10)
    covered = len({item for row in listed for item in row}) / queries.exists.sum()
    assert figures["coverage@10"] == pytest.approx(covered)
    every = [popularity[item] for row in listed for item in row]
    assert figures["popularity@10"] == pytest.approx(np.mean(every))
    monkeypatch.setattr(ranking, "BLOCK_BYTES", 2 * 16 * scores.n_items)  # two queries
    assert list_figures(scores, split.test, popularity, 10) == pytest.approx(figures)


def test_values_of_users_have_the_mean_and_the_errors_of_lists():
    split = split_of("successive")
    ranks = full_ranks(given_scores(split), split.test, split.known)
    values = ranks.figure("NDCG@10", "expected")
    users = ranks.of_users("NDCG@10", "expected")
    assert len(users) == len(np.unique(split.test.users)) < len(values)
    assert users.mean() == pytest.approx(values.mean())
    owners = np.unique(ranks.owners, return_inverse=True)[1]
    deviations = [(values - values.mean())[owners == user].sum() for user in range(len(users))]
    wanted = np.sqrt(np.sum(np.square(deviations)) * len(users) / (len(users) - 1)) / len(values)
    assert ranks.error("NDCG@10", "expected") == pytest.approx(wanted)
    alone = np.arange(len(values))
    assert clustered_error(values, alone) == pytest.approx(standard_error(values))
    assert clustered_error(values, np.zeros(len(values), int)) == 0


def test_a_sample_of_lists_keeps_each_of_them_whole():
    split = split_of("all")
    few = drawn_users(split.test, 3)
    assert len(np.unique(few.lists)) == 3
    for query in np.unique(few.lists):
        assert (few.lists == query).sum() == (split.test.lists == query).sum()
    scores = given_scores(split)
    every, some = (full_ranks(scores, held, split.known) for held in (split.test, few))
    rows = np.isin(split.test.lists, few.lists)
    np.testing.assert_array_equal(every.better[rows], some.better)


def test_weights_of_a_blend_are_ranked_by_the_sums():
    split = split_of("all")
    first, second = given_scores(split), given_scores(split, seed=1)
    (ranks,) = weighed_full_ranks(first, second, (0.5,), split.test, split.known)
    summed = Given(first.scores + np.float32(0.5) * second.scores)
    wanted = full_ranks(summed, split.test, split.known)
    np.testing.assert_array_equal(ranks.better, wanted.better)


@pytest.mark.parametrize("target", TARGETS)
def test_the_audit_finds_no_error_in_a_split_by_time(target):
    assert not [f for f in audit(split_of(target)) if f.severity == "error"]


def test_the_audit_finds_rows_of_the_wrong_part_and_items_of_the_future():
    split = split_of("last")
    part = split.part.copy()
    part[np.flatnonzero(part == TEST)[:2]] = TRAIN
    found = {f.check: f for f in audit(replace(split, part=part))}
    assert found["rows-in-the-wrong-part"].count == 2
    item = int(split.test.candidates[0, 0])
    keep = (split.interactions.items != item) | (split.part == TEST)
    fewer = replace(split, interactions=split.interactions.select(keep), part=split.part[keep])
    found = {f.check: f for f in audit(fewer)}
    assert found["test-candidates-future"].severity == "error"


def test_findings_equal_loops_over_users_and_items():
    split = split_of("successive")
    held, scores = split.test, given_scores(split)
    sampled, full = sampled_ranks(scores, held), full_ranks(scores, held, split.known)
    found = findings(scores, split, sampled, held, full)
    known_users, trained = set(split.known.users.tolist()), set(split.train.items.tolist())
    wanted = {
        "known users": [user in known_users for user in held.users],
        "new users": [user not in known_users for user in held.users],
        "items without a training row": [item not in trained for item in held.positives],
    }
    assert found["groups"].keys() == {name for name, rows in wanted.items() if any(rows)}
    assert len(found["groups"]) >= 2
    for name, group in found["groups"].items():
        rows = np.array(wanted[name])
        assert group["users"] == len(set(held.users[rows].tolist()))
        assert group["items"] == rows.sum()
        for kind, ranks in (("sampled", sampled), ("full", full)):
            values = ranks.figure("NDCG@10", "expected")  # each list has one item
            assert group[kind]["NDCG@10"] == pytest.approx(values[rows].mean())
    popularity = np.bincount(split.known.items, minlength=scores.n_items)
    lists = list_figures(scores, held, popularity)
    assert {name: found[name] for name in lists} == lists
    assert lists.keys() == {"coverage@10", "popularity@10"}
    assert (found["target"], found["lists"]) == ("successive", len(held.queries))
    assert found["rows"] == (split.part == TEST).sum()

    without = findings(scores, split, sampled, None, None)
    assert without["coverage@10"] is None
    assert without["popularity@10"] is None
    for name, group in without["groups"].items():
        assert group["full"] is None
        assert group["sampled"] == found["groups"][name]["sampled"]


def test_findings_count_ties_by_the_protocol():
    split = split_of("all", ties="pessimistic")
    scores = given_scores(split, levels=2)
    sampled = sampled_ranks(scores, split.test)
    full = full_ranks(scores, split.test, split.known)
    found = findings(scores, split, sampled, split.test, full)["groups"]["known users"]
    known = np.isin(split.test.users, split.known.users)
    for kind, ranks in (("sampled", sampled), ("full", full)):
        assert found[kind] == ranks.take(known).means("pessimistic")[0]
        assert found[kind] != ranks.take(known).means("expected")[0]


def test_ranks_of_some_positives_keep_their_lists_and_owners():
    ranks = Ranks(
        np.array([0, 3, 1, 2]), np.array([0, 1, 0, 2]), np.array([0, 0, 1, 2]), np.array([5, 6, 5])
    )
    some = ranks.take(np.array([False, True, False, True]))
    assert some.better.tolist() == [3, 2]
    assert some.tied.tolist() == [1, 2]
    assert some.lists.tolist() == [0, 1]
    assert some.owners.tolist() == [5, 5]
    assert some.n_users == 1


def test_the_error_of_two_users_is_that_of_their_sums():
    values, users = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])
    deviations = np.array([1.0 - 1.5, 2.0 - 1.5])  # sums of (value − mean), user by user
    wanted = np.sqrt(2 / 1 * (deviations**2).sum()) / 4
    assert clustered_error(values, users) == pytest.approx(wanted)

"""Ranks among candidates and the catalogue, against a loop; reports as mappings of figures."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from itertools import permutations
from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

import comet_rec as cr
from comet_rec.data.split import leave_one_out
from comet_rec.errors import InputError, NonFiniteError, UnknownNameError
from comet_rec.evaluation.metrics import figures, hit_rate, ndcg, rank
from comet_rec.evaluation.ranking import (
    caution,
    drawn_users,
    full_ranks,
    sampled_ranks,
    weighed_full_ranks,
    weighed_ranks,
)

LISTED = ["HR@5", "NDCG@5", "HR@10", "NDCG@10"]


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


@pytest.fixture
def report(random_log):
    split = cr.leave_one_out(random_log(40, 60, 8), negatives=20)
    return cr.evaluate(cr.Popularity().fit(split), split)


def test_a_report_is_a_mapping_of_sampled_figures(report):
    assert list(report) == list(report.keys()) == LISTED
    assert len(report) == 4
    assert dict(report) == report.to_dict()["sampled"]
    assert list(report.items()) == [(name, report[name]) for name in LISTED]
    assert list(report.values()) == [report[name] for name in LISTED]
    assert {**report} == dict(report)
    assert report.get("HR@10") == report["HR@10"]
    assert report.get("HR@3") == report["HR@3"]
    assert report.get("Recall@3") is None
    assert report.get("Recall@3", 0.5) == 0.5


@pytest.mark.parametrize("room", ["report", "sampled", "full", "sampled_se", "full_se"])
def test_what_is_in_a_report_can_be_had_from_it(report, room):
    figures = report if room == "report" else getattr(report, room)
    for name in ("HR@10", "HR@1", "NDCG@20", "NDCG@1000000"):
        assert name in figures
        assert isinstance(figures[name], float)
    for name in ("Recall@10", "hr@10", "HR", "HR@0", "HR@-1", "HR@1.5", "HR@ 5", "HR@05", 10, None):
        assert name not in figures
        with pytest.raises(UnknownNameError, match="use HR@k or NDCG@k") as caught:
            figures[name]
        assert isinstance(caught.value, KeyError)
        assert isinstance(caught.value, InputError)
        assert "\n" not in str(caught.value)
    assert [] not in figures
    assert figures.get([], "none") == "none"


def test_full_figures_and_their_errors_are_there_at_any_k(report):
    for k in (1, 5, 10, 20, 37):
        for metric in ("HR", "NDCG"):
            values = report.of_users(f"{metric}@{k}", full=True)
            assert report.full[f"{metric}@{k}"] == pytest.approx(values.mean())
            error = values.std(ddof=1) / np.sqrt(len(values))
            assert report.full_se[f"{metric}@{k}"] == pytest.approx(error)
    assert report.full["HR@60"] == 1.0
    assert list(report.full) == LISTED


def test_figures_are_plain_data_for_json_and_survive_pickling(report):
    assert json.loads(json.dumps(report.full)) == report.to_dict()["full"]
    assert json.loads(json.dumps(dict(report))) == dict(report)
    assert type(report.to_dict()["full"]) is dict
    again = pickle.loads(pickle.dumps(report))
    assert again.full["HR@20"] == report.full["HR@20"]


def test_plain_data_of_a_report_have_these_names(report):
    data = report.to_dict()
    assert list(data) == [
        "model", "protocol", "n_users", "n_users_full", "sampled", "sampled_se", "full", "full_se",
    ]  # fmt: skip
    assert (data["model"], data["protocol"]) == (report.model, report.protocol)
    assert data["n_users"] == data["n_users_full"] == len(report.users)
    assert data["sampled_se"] == dict(report.sampled_se)
    by_time = replace(report, time_split={"target": "last"}).to_dict()
    assert by_time == data | {"time_split": {"target": "last"}}
    assert (report.of_users("HR@10") == report.of_users("HR@10", full=False)).all()
    assert report.of_users("HR@10").mean() == report["HR@10"]


def test_few_test_users_are_a_reason_for_caution():
    assert caution(30) == []
    (line,) = caution(29)
    assert line == "caution: only 29 test users, so chance decides; measure on 30 or more"
    assert "only 1 test user," in caution(1)[0]


def test_reports_are_told_apart_and_may_be_keys(report):
    assert report == report
    assert report != pickle.loads(pickle.dumps(report))
    assert {report: 1}[report] == 1


def test_the_text_of_a_report_names_model_users_and_both_kinds_of_figures(report):
    text = repr(report)
    assert text.startswith(f"Report(popularity, 40 users: sampled HR@5 {report['HR@5']:.4f} ")
    assert f"; full HR@5 {report.full['HR@5']:.4f} " in text
    assert str(report) == text


def test_without_a_full_ranking_there_are_no_full_figures(random_log):
    split = cr.leave_one_out(random_log(40, 60, 8), negatives=20)
    report = cr.evaluate(cr.Popularity().fit(split), split, full=False)
    assert report.full is None
    assert "full" not in repr(report)
    with pytest.raises(UnknownNameError, match="without a full ranking"):
        report.of_users("HR@10", full=True)


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


@pytest.mark.parametrize("k", [1, 3, 10])
def test_pessimistic_is_the_last_of_the_tied_places(k):
    for better in range(12):
        for tied in range(4):
            place = better + tied + 1
            hit = float(place <= k)
            assert one(hit_rate, better, tied, k, ties="pessimistic") == hit
            gain = hit / log2(place + 1)
            assert one(ndcg, better, tied, k, ties="pessimistic") == pytest.approx(gain)


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

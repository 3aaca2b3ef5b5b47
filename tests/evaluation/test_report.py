"""Reports as mappings: the figures that are listed, and those at any other k."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.errors import InputError, UnknownNameError

LISTED = ["HR@5", "NDCG@5", "HR@10", "NDCG@10"]


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
        with pytest.raises(UnknownNameError, match="there are HR@k and NDCG@k") as caught:
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
    with pytest.raises(UnknownNameError, match="the whole catalogue was not ranked"):
        report.of_users("HR@10", full=True)

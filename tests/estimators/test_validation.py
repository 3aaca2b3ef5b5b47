"""What epochs are chosen by: NDCG@10 among drawn items or over the whole catalogue."""

from __future__ import annotations

import pytest

import comet_rec as cr
from comet_rec.estimators import validation
from comet_rec.estimators.scoring import model_scores
from comet_rec.estimators.validation import Validation, validation_text
from comet_rec.evaluation.ranking import full_ranks

SETTINGS = {"epochs": 6, "patience": 0, "embedding_dim": 8}


@pytest.fixture
def split(random_log):
    return cr.leave_one_out(random_log(80, 60, 12), negatives=30)


def epochs_of(run):
    return [line["validation"] for line in run.log if line["stage"] == "validation"]


def test_the_chosen_epoch_is_the_best_by_that_figure(split):
    """On a log without structure the two disagree, if the seed is right."""
    chosen = {}
    for select_by, name in (("sampled", "NDCG@10"), ("full", "full NDCG@10")):
        run = cr.MF(select_by=select_by, learning_rate=0.05, **SETTINGS).fit(split).run
        found = [figures[name] for figures in epochs_of(run)]
        assert run.epochs == 1 + found.index(max(found))
        chosen[select_by] = run.epochs
    assert chosen["sampled"] != chosen["full"]


def test_training_itself_is_the_same(split):
    runs = [cr.MF(select_by=by, **SETTINGS).fit(split).run for by in ("sampled", "full")]
    losses = [[line["loss"] for line in run.log] for run in runs]
    assert losses[0] == losses[1]
    sampled = [{k: v for k, v in f.items() if "full" not in k} for f in epochs_of(runs[1])]
    assert sampled == epochs_of(runs[0])


def test_figures_are_of_the_validation_items_and_training_rows_are_left_out(split, monkeypatch):
    run = cr.EASE(select_by="full").fit(split).run
    scores = model_scores(run.model, split.train)
    ranks = full_ranks(scores, split.validation, split.train)
    (line,) = run.log
    hits = float((ranks.rank <= 10).mean())
    assert line["validation"]["full HR@10"] == pytest.approx(hits, abs=0.03)  # ties are shared
    monkeypatch.setattr(validation, "FULL_SCORES", 60 * 5)
    few = Validation(run.config, split.validation, split.train).figures(scores)
    assert few["full HR@10"] * 5 == pytest.approx(round(few["full HR@10"] * 5), abs=0.2)
    assert few["NDCG@10"] == line["validation"]["NDCG@10"]


def test_patience_waits_for_that_figure(split, monkeypatch):
    """The one among drawn items goes on rising."""
    figures = iter([{"NDCG@10": 0.1 * n, "full NDCG@10": 0.1 / n} for n in range(1, 9)])
    monkeypatch.setattr(Validation, "figures", lambda self, scores: next(figures))
    settings = SETTINGS | {"patience": 2}
    run = cr.MF(select_by="full", **settings).fit(split).run
    assert (run.epochs, len(run.log)) == (1, 3)


def test_a_companion_is_chosen_the_same_way(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    settings = {
        "preset": "best", "embedding_dim": 8, "history_length": 6, "hidden": (8,), "epochs": 2,
        "batch_size": 256, "taste_dim": 4, "select_by": "full",
    }  # fmt: skip
    run = cr.COMET(**settings).fit(split).run
    assert all("full NDCG@10" in line["validation"] for line in run.log)
    assert {line["stage"] for line in run.log} == {"fism validation", "validation"}


def test_models_that_score_pairs_rank_a_sample(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    run = cr.MLP(select_by="full", epochs=1, embedding_dim=4, hidden=(4,)).fit(split).run
    assert "full NDCG@10" in run.log[0]["validation"]


def test_what_a_line_of_progress_says():
    figures = {"HR@5": 0.1, "HR@10": 0.25, "NDCG@10": 0.5}
    assert validation_text(figures) == "HR@10 0.2500 NDCG@10 0.5000"
    assert validation_text(figures | {"full NDCG@10": 0.0625}).endswith("full NDCG@10 0.0625")

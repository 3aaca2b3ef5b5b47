"""Yardsticks: their figures, the paired comparison, the advice, and what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.artefact.run import load_run, save_run
from comet_rec.errors import ConfigError
from comet_rec.estimators import yardsticks
from comet_rec.estimators.yardsticks import advice, compared, too_large
from tests.conftest import checkerboard_log

SMALL = {"embedding_dim": 4, "history_length": 5, "epochs": 3}


@pytest.fixture(scope="module")
def split():
    return cr.leave_one_out(checkerboard_log(), negatives=30)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "refit"])
def comet(request, split):
    model = cr.COMET(**SMALL, selection_metric="sampled").fit(split, refit=request.param)
    model.yardsticks()
    return model


def entries(model):
    return {entry["model"]: entry for entry in model.run.yardsticks["models"]}


def test_the_models_validation_figure_is_the_one_that_chose_its_epoch(comet):
    validation = comet.run.validation["NDCG@10"]
    assert entries(comet)["comet"]["validation"] == pytest.approx(validation, abs=1e-6)


@pytest.mark.parametrize("name", yardsticks.NAMES)
def test_a_yardstick_has_the_figures_of_a_model_fitted_by_itself(comet, split, name):
    refit = comet.config.train.refit
    alone = {"popularity": cr.Popularity, "itemknn": cr.ItemKNN, "ease": cr.EASE}[name]()
    report = cr.evaluate(alone.fit(split, refit=refit))
    entry = entries(comet)[name]
    assert entry["sampled"] == pytest.approx(report["NDCG@10"])
    assert entry["full"] == pytest.approx(report.full["NDCG@10"])
    assert entry["validation"] == pytest.approx(alone.run.validation["NDCG@10"])
    difference = entries(comet)["comet"]["validation"] - entry["validation"]
    assert entry["difference"] == pytest.approx(difference)
    assert entry["low"] < entry["difference"] < entry["high"]


def test_the_table_has_a_row_for_each_model(comet):
    table = comet.yardsticks()
    assert table["model"].tolist() == ["comet", *yardsticks.NAMES]
    assert table["test sampled"][0] == comet.run.metrics["sampled"]["NDCG@10"]
    assert np.isnan(table["difference"]).tolist() == [True, False, False, False]


def test_a_model_is_not_its_own_yardstick(split):
    model = cr.EASE().fit(split)
    assert model.yardsticks()["model"].tolist() == ["ease", "popularity", "itemknn"]
    other = cr.ItemKNN().fit(split)
    other.yardsticks()
    assert entries(model)["itemknn"]["difference"] == -entries(other)["ease"]["difference"]


def test_full_metrics_are_compared_where_they_choose_the_epoch(split):
    model = cr.MF(embedding_dim=4, epochs=2, selection_metric="full").fit(split)
    model.yardsticks()
    assert model.run.yardsticks["metric"] == "full NDCG@10"
    validation = model.run.validation["full NDCG@10"]
    assert entries(model)["mf"]["validation"] == pytest.approx(validation, abs=1e-6)


def test_a_run_keeps_the_comparison_and_a_final_model_too(comet, tmp_path):
    comet.save(tmp_path / "run")
    assert cr.load_model(tmp_path / "run").run.yardsticks == comet.run.yardsticks
    again = cr.load_model(tmp_path / "run").final()
    assert again.run.yardsticks == comet.run.yardsticks
    save_run(replace(comet.run, yardsticks=None), tmp_path / "without")
    without = cr.load_model(tmp_path / "without").final()
    with pytest.raises(ConfigError, match="call yardsticks before final"):
        without.yardsticks()
    with pytest.raises(ConfigError, match="knows all rows"):
        cr.EASE().fit(checkerboard_log()).yardsticks()


def test_a_run_of_before_has_no_comparison(before):
    assert load_run(before / "comet").yardsticks is None


def test_test_items_do_not_change_the_comparison(split):
    """The figures that the advice rests on stay the same with other test items."""
    run = cr.EASE().fit(split).run
    run = replace(run, metrics=cr.evaluate(cr.EASE().fit(split)).to_dict())
    moved = replace(split.test, positives=split.test.candidates[:, 0].astype(np.int64))
    other = compared(replace(run, split=replace(split, test=moved)))
    same = compared(run)
    keys = ("validation", "difference", "low", "high")
    for one, two in zip(same["models"], other["models"], strict=True):
        assert [one[key] for key in keys] == [two[key] for key in keys]
    assert advice(same) == advice(other)


def comparison(**intervals: tuple[float, float]):
    """Comparison of comet with yardsticks that have these intervals of the difference."""
    models = [{"model": "comet", "validation": 0.5, "low": None, "high": None}]
    for name, (low, high) in intervals.items():
        middle = 0.5 - (low + high) / 2
        models.append({"model": name, "validation": middle, "low": low, "high": high})
    return {"models": models, "metric": "NDCG@10", "users": 100, "left_out": []}


def test_advice_names_the_best_yardstick_that_is_ahead_or_level():
    behind, level, ahead = (0.1, 0.2), (-0.1, 0.1), (-0.2, -0.1)
    text = advice(comparison(popularity=behind, itemknn=level, ease=ahead))
    assert text.startswith("ease is ahead of comet")
    text = advice(comparison(popularity=behind, itemknn=(-0.12, 0.06), ease=level))
    assert text.startswith("itemknn is level with comet")
    assert advice(comparison(popularity=behind)).startswith("comet is ahead")
    assert "not measured" in advice(comparison())


def test_yardsticks_that_cost_too_much_are_left_out_with_a_reason(split, monkeypatch):
    model = cr.MF(embedding_dim=4, epochs=1).fit(split)
    with monkeypatch.context() as patch:
        patch.setattr(yardsticks, "MEMORY_GIB", 1e-5)
        model.yardsticks()
    assert [entry["model"] for entry in model.run.yardsticks["models"]] == ["mf", "popularity"]
    assert [reason.split(":")[0] for reason in model.run.yardsticks["left_out"]] == [
        "itemknn",
        "ease",
    ]
    assert "GiB" in model.run.yardsticks["left_out"][1]
    monkeypatch.setattr(yardsticks, "PAIRS_PER_ROW", 10)
    assert "pairs" in too_large(cr.EASE().config_for(split.interactions), split.train)


def test_a_yardstick_that_fails_costs_no_trained_model(split, monkeypatch):
    from comet_rec.models.ease import EASE

    def fails(self, log):
        raise MemoryError

    model = cr.MF(embedding_dim=4, epochs=1).fit(split)
    monkeypatch.setattr(EASE, "fit", fails)
    model.yardsticks()
    assert model.run.yardsticks["left_out"] == ["ease: not enough memory"]


def test_memory_of_ease_is_the_estimate_at_most(random_log):
    """Both ways to invert: over items, and over users."""
    import tracemalloc

    config = cr.EASE().config_for(checkerboard_log())
    for users, items in ((1500, 1200), (300, 1500)):
        log = random_log(users, items, 6)
        tracemalloc.start()
        yardsticks._fitted(config, log)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        estimate = yardsticks.memory_of(config, log)
        assert estimate / 3 < peak < estimate, (users, items)

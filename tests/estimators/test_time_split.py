"""Models on splits by time: training, evaluation, artefact, lists, comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.run import second_config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import TEST, TRAIN, VALIDATION
from comet_rec.data.time_split import time_split
from comet_rec.errors import ConfigError, UnknownNameError
from comet_rec.estimators.audit import audit_run
from comet_rec.estimators.newcomers import folded_in
from comet_rec.evaluation.scoring import run_scores
from comet_rec.experiments import compare
from comet_rec.experiments.inspection import figures_by_group
from tests.data.test_time_split import TARGETS, random_log

SMALL = {"embedding_dim": 8, "epochs": 2, "batch_size": 64}
CPU = torch.device("cpu")


def split_of(target: str = "successive", **options):
    return time_split(random_log(7), at=650, validation=400, target=target, negatives=8, **options)


def comet(**settings: object) -> cr.COMET:
    blend = {"blend_model": "fism", "blend_embedding_dim": 8, "blend_epochs": 2}
    return cr.COMET(preset="best", hidden=[8], history_length=6, **{**blend, **SMALL, **settings})


MODELS = {
    "comet": lambda: comet(),
    "fism": lambda: cr.FISM(**SMALL, refit=True),
    "mf": lambda: cr.MF(**SMALL),
    "blend": lambda: cr.MF(blend_model="fism", blend_embedding_dim=8, blend_epochs=1, **SMALL),
    "neumf": lambda: cr.NeuMF(embedding_dim=8, epochs=1),
    "ease": lambda: cr.EASE(),
    "itemknn": lambda: cr.ItemKNN(),
    "popularity": lambda: cr.Popularity(),
    "random": lambda: cr.Random(),
}


@pytest.mark.parametrize(
    ("model", "target"),
    [
        # A target decides which rows are test rows, whatever the model. So in the fast suite only
        # one model that encodes histories and one that reads rows have all targets.
        pytest.param(
            model,
            target,
            marks=[] if model in ("comet", "ease") or target == "successive" else pytest.mark.slow,
        )
        for model in MODELS
        for target in TARGETS
    ],
)
def test_a_run_is_saved_loaded_and_measured_again(model, target, tmp_path):
    split = split_of(target)
    fitted = MODELS[model]().fit(split)
    report = cr.evaluate(fitted, split)
    fitted.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    assert again.run.split.hash == split.hash
    assert cr.evaluate(again).to_dict() == report.to_dict() == again.run.metrics
    assert set(report.sampled) == {f"{m}@{k}" for m in ("HR", "NDCG", "Recall", "MRR")
                                   for k in (5, 10)}  # fmt: skip
    values = report.of_users("NDCG@10", full=True)
    assert values.mean() == pytest.approx(report.full["NDCG@10"])
    assert len(values) == len(report.users) == split.n_test_users
    found = report.to_dict()["time_split"]
    assert found["lists"] == len(split.test.queries)
    groups = found["groups"]
    assert sum(groups[name]["users"] for name in ("known users", "new users") if name in groups) \
        == len(report.users)  # fmt: skip


def test_queries_are_encoded_as_folded_in_histories():
    """A user with training rows keeps the own embedding, others are new users."""
    split = split_of("successive")
    for fitted in (comet().fit(split), comet(refit=False).fit(split)):
        run, queries = fitted.run, split.test.queries
        scores = run_scores(run, split.test)
        every = np.arange(len(queries))
        rows, items = queries.histories(every)
        found = scores.score_all(every)
        learned = split.known if run.config.train.refit else split.train
        trained = np.isin(queries.users, learned.users)
        assert trained.any()
        assert not trained.all()
        for query in (*np.flatnonzero(trained)[:3], *np.flatnonzero(~trained)[:3]):
            history = items[rows == query]
            users = queries.users[[query]] if trained[query] else None
            vectors = folded_in(run, [history], CPU, users)
            wanted = vectors @ run.item_vectors.T
            np.testing.assert_allclose(found[query], wanted[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_blended_model_reads_the_histories_of_queries():
    """The main model reads none; the second one does, also in the figures of the run."""
    split = split_of("successive")
    fitted = cr.MF(blend_model="fism", blend_embedding_dim=8, refit=False, **SMALL).fit(split)
    run, queries = fitted.run, split.test.queries
    trained = np.flatnonzero(np.isin(queries.users, split.train.users))
    found = run_scores(run, split.test).score_all(trained[:5])
    for place, query in enumerate(trained[:5]):
        _, history = queries.histories(np.array([query]))
        main = run.user_vectors[queries.users[query], : len(run.model.weight)]
        second = folded_in(replace(run, blend=None, config=second_config(run.config),
                                   state=run.blend.state), [history], CPU,
                           queries.users[[query]])[0]  # fmt: skip
        wanted = torch.cat([main, second * run.blend.weight]) @ run.item_vectors.T
        np.testing.assert_allclose(found[place], wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_later_rows_change_no_weight_and_no_figure_of_validation():
    """Bit for bit, for a blend with a causal history, a refit and a validation in the future."""
    log = random_log(6)
    rng = np.random.default_rng(1)
    items = log.items.copy()
    for user in range(log.n_users):
        own = np.flatnonzero(log.users == user)
        later = own[log.times[own] >= 650]
        free = np.setdiff1d(np.arange(log.n_items), items[own])
        items[later] = rng.permutation(free)[: len(later)]
    runs = []
    for each in (log, replace(log, items=items)):
        split = time_split(each, at=650, validation=400, target="successive", negatives=8)
        runs.append(comet(refit=True).fit(split).run)
    one, other = runs
    assert one.split.hash != other.split.hash
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    for name in ("stage", "epoch", "loss", "validation"):
        assert [line[name] for line in one.log] == [line[name] for line in other.log]


def test_later_rows_of_a_user_change_no_earlier_list():
    """The list of a target stays bit-equal if rows after the target change."""
    split = split_of("successive")
    fitted = comet().fit(split)
    log = split.interactions
    user = int(np.bincount(split.test.users).argmax())
    rows = np.flatnonzero((log.users == user) & (split.part == TEST))
    last = int(rows[-1])
    free = np.setdiff1d(np.flatnonzero(split.test.queries.exists), log.items[log.users == user])
    items = log.items.copy()
    items[last] = free[0]
    other = time_split(replace(log, items=items), at=650, validation=400, target="successive",
                       negatives=8)  # fmt: skip
    earlier = np.flatnonzero(split.test.queries.ends < last)
    twin = np.flatnonzero(other.test.queries.ends < last)
    first = run_scores(fitted.run, split.test).score_all(earlier)
    second = run_scores(replace(fitted.run, split=other), other.test).score_all(twin)
    np.testing.assert_array_equal(first, second)


def test_lists_hold_no_item_of_the_future_until_the_final_training():
    log = random_log(7)
    late = log.items < 6
    log = replace(log, times=np.where(late, 700 + log.times // 10, log.times))
    order = np.lexsort((log.times, log.users))
    log = replace(log, items=log.items[order], times=log.times[order])
    split = time_split(log, at=650, validation=400, negatives=8)
    for model in (comet(), cr.EASE(), cr.Popularity()):
        fitted = model.fit(split)
        listed = fitted.recommend(None, k=40).to_pandas()
        assert (listed["item_id"] >= 5006).all()
        new = np.setdiff1d(np.arange(log.n_users), split.known.users)
        assert len(new) > 0
        assert set(listed["user_id"]) >= set((new + 1000).tolist())
        assert (fitted.final().recommend(None, k=40).to_pandas()["item_id"] < 5006).any()


def test_new_users_have_the_list_of_an_empty_history():
    split = split_of()
    fitted = comet().fit(split)
    new = np.setdiff1d(np.arange(30), split.known.users)
    table = fitted.recommend((new[:1] + 1000).tolist(), k=5).to_pandas()
    empty = fitted.recommend_for_history([[]], k=5).to_pandas()
    assert table["item_id"].tolist() == empty["item_id"].tolist()


def test_one_model_is_measured_on_every_target_of_its_moments():
    fitted = cr.EASE().fit(split_of("successive"))
    reports = {target: cr.evaluate(fitted, split_of(target)) for target in TARGETS}
    for target, report in reports.items():
        assert report.protocol["target"] == target
        assert report.to_dict() == cr.evaluate(cr.EASE().fit(split_of(target))).to_dict()
    with pytest.raises(ConfigError, match="another log or split"):
        cr.evaluate(fitted, time_split(random_log(7), at=700, validation=400))


def test_a_function_is_asked_by_user():
    split = split_of("last")
    report = cr.evaluate(lambda user, items: [-abs(item - user) for item in items], split)
    assert report.full["HR@10"] >= report.full["HR@5"]
    assert len(report.users) == split.n_test_users


def test_yardsticks_and_comparison_share_the_lists():
    split = split_of("successive")
    fitted = cr.FISM(**SMALL).fit(split)
    table = fitted.yardsticks().to_pandas()
    assert table["model"].tolist() == ["fism", "popularity", "itemknn", "ease"]
    report = cr.evaluate(fitted, split)
    assert table["test full"][0] == pytest.approx(report.full["NDCG@10"])
    entries = compare.compare(split, ["ease", "popularity"], refit=True)
    data = compare.as_data(entries)
    columns = compare.as_table(data).columns
    assert {"full HR@10", "coverage", "popularity"} <= set(columns)
    assert "items from the future" in compare.as_markdown(data)
    difference = data["models"][1]["against_reference"]["NDCG@10"]["difference"]
    figures = [row["sampled"]["NDCG@10"] for row in data["models"]]
    assert difference == pytest.approx(figures[1] - figures[0])


@pytest.mark.parametrize("make", [split_of, lambda: cr.leave_one_out(random_log(7))])
def test_options_of_the_split_are_no_settings_of_a_model(make):
    with pytest.raises(ConfigError, match="time_split and --split take it"):
        cr.EASE(**{"protocol.target": "all"}).fit(make())


def test_the_audit_of_a_run_has_no_error():
    split = split_of("all")
    fitted = comet().fit(split)
    cr.evaluate(fitted)
    assert not [f for f in audit_run(fitted.run) if f.severity == "error"]


@pytest.mark.parametrize("model", [lambda: cr.FISM(**SMALL), lambda: comet(epochs=1)])
def test_a_log_without_structure_has_the_figures_of_chance(model):
    log = random_log(0, users=300, items=150, each=20)
    split = time_split(log, at=700, validation=500, target="successive")
    report = cr.evaluate(model().fit(split), split)
    assert split.protocol.negatives == 99
    assert abs(report["HR@10"] - 0.10) < 3.5 * report.sampled_se["HR@10"]
    assert report.sampled_se["HR@10"] < 0.01


def test_figures_by_group_are_for_other_splits():
    run = cr.Popularity().fit(split_of("last")).run
    assert "a split by time has groups of its own" in str(figures_by_group(run))


def test_metrics_of_leave_one_out_stay_two():
    split = cr.leave_one_out(random_log(0), negatives=5)
    report = cr.evaluate(cr.Popularity().fit(split), split)
    assert list(report) == ["HR@5", "NDCG@5", "HR@10", "NDCG@10"]
    assert "time_split" not in report.to_dict()
    assert {"at", "target", "repeats"}.isdisjoint(report.protocol)
    with pytest.raises(UnknownNameError):
        report["MRR@10"]


def dated_log() -> Interactions:
    log = random_log(2)
    return replace(log, times=1_500_000_000 + log.times * 86_400)


def test_popularity_of_the_last_days_counts_only_them():
    log = dated_log()
    split = time_split(log, quantile=0.8)
    fitted = cr.Popularity(days=30, refit=True).fit(split)
    known = split.known
    recent = known.items[known.times > known.times.max() - 30 * 86_400]
    counts = np.bincount(recent, minlength=log.n_items)
    np.testing.assert_array_equal(fitted.run.model.counts, counts)
    micro = replace(log, times=log.times * 1_000_000, dated=True)
    again = cr.Popularity(days=30, refit=True).fit(time_split(micro, quantile=0.8))
    np.testing.assert_array_equal(again.run.model.counts, counts)
    every = cr.Popularity(days=10_000).fit(log)
    np.testing.assert_array_equal(every.run.model.counts, cr.Popularity().fit(log).run.model.counts)


def test_popularity_of_the_last_days_needs_dates():
    with pytest.raises(ConfigError, match=r"days = 7: the times of this log are no dates"):
        cr.Popularity(days=7).fit(random_log(0))
    with pytest.raises(ConfigError, match="days = 7"):
        cr.Popularity(days=7).fit(replace(dated_log(), time_scope="per_user"))
    with pytest.raises(ConfigError, match="above 0"):
        cr.Popularity(days=0)


def test_parts_hold_all_rows_of_their_time():
    split = split_of("last")
    times = split.interactions.times
    assert times[split.part == TRAIN].max() < 400 <= times[split.part == VALIDATION].min()
    assert times[split.part == VALIDATION].max() < 650 <= times[split.part == TEST].min()

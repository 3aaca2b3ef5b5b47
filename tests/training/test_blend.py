"""The second model of a blend: trained first, by itself, weighed, kept, resumed from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.checkpoint import has_checkpoint
from comet_rec.errors import ConfigError, TrainingInterrupted
from comet_rec.estimators.audit import audit_run
from comet_rec.evaluation.scoring import VectorScores, blended, vectors
from comet_rec.experiments.jobs import Job
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import WEIGHTS, Validation

SETTINGS = {
    "preset": "best", "embedding_dim": 8, "history_length": 6, "hidden": (8,), "epochs": 3,
    "full_epochs": 2, "batch_size": 256, "blend_model": "fism", "blend_embedding_dim": 4,
    "blend_preset": "paper", "blend_epochs": 0, "refit": False, "selection_metric": "sampled",
}  # fmt: skip


ALONE = ("blend_embedding_dim", "blend_preset", "blend_epochs")
STAGES = ["fism validation", "fism refit", "validation", "refit"]


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A FISM of a few epochs."""
    from comet_rec.estimators import presets

    few = {"epochs": 4, "patience": 0}
    searched = {**presets.SEARCHED, ("fism", "small"): ({"embedding_dim": 64}, few)}
    monkeypatch.setattr(presets, "SEARCHED", searched)


def comet(**changes):
    settings = SETTINGS | changes
    if settings.get("blend_model") == "none":
        settings = {k: v for k, v in settings.items() if k not in ALONE}
    return cr.COMET(**settings)


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_the_second_model_is_the_fism_that_is_had_alone(split, preset):
    model = comet(blend_preset=preset).fit(split)
    precision = model.run.config.train.matmul_precision
    alone = cr.FISM(preset=preset, embedding_dim=4, matmul_precision=precision)
    alone.fit(split, refit=False)
    for name, value in alone.run.state.items():
        assert torch.equal(model.run.blend.state[name], value)
    assert not any("taste" in name or "blend" in name for name in model.run.state)
    assert model.run.blend.epochs == alone.run.epochs
    stages = [line["stage"] for line in model.run.log]
    assert stages == ["fism validation"] * 4 + ["validation"] * 3


def test_the_epochs_of_the_second_model_may_be_given(split):
    run = comet(blend_epochs=2).fit(split).run
    assert [line["stage"] for line in run.log][:3] == ["fism validation"] * 2 + ["validation"]


@pytest.mark.parametrize(
    ("selection_metric", "name"), [("sampled", "NDCG@10"), ("full", "full NDCG@10")]
)
def test_the_validation_items_choose_the_weight(split, selection_metric, name):
    run = comet(selection_metric=selection_metric).fit(split).run
    weight = run.blend.weight
    assert weight == pytest.approx(min(WEIGHTS, key=lambda w: abs(w - weight)))
    rows = split.train
    first, second = vectors(run.model, rows), vectors(run.second_model, rows)
    validating = Validation(run.config, split.validation, rows)
    figures = {
        other: validating.figures(VectorScores(*blended(*first, *second, other)))[name]
        for other in WEIGHTS
    }
    assert len(set(figures.values())) > 1
    assert max(figures, key=lambda w: figures[w]) == pytest.approx(weight)
    chosen = max(line["validation"][name] for line in run.log if line["stage"] == "validation")
    assert chosen == pytest.approx(max(figures.values()), abs=1e-6)


def test_a_refit_takes_the_weight_and_a_fism_that_knows_the_validation_rows(split):
    run = comet().fit(split, refit=True).run
    chosen = comet().fit(split, refit=False).run
    assert run.blend.weight == chosen.blend.weight
    name = "item_embedding"
    assert torch.equal(run.blend.selected[name], chosen.blend.state[name])
    assert not torch.equal(run.blend.state[name], run.blend.selected[name])
    alone = cr.FISM(preset="paper", embedding_dim=4).fit(split, refit=True).run
    assert torch.equal(run.blend.state[name], alone.state[name])


def test_the_second_model_is_finished_before_the_first_begins(split):
    heard = StopAt("never", 0)
    model = comet().fit(split, refit=True, hooks=Hooks(heard.report))
    assert heard.stages == STAGES
    assert list(dict.fromkeys(line["stage"] for line in model.run.log)) == STAGES


def test_scores_are_the_sum_of_both_and_the_first_is_trained_as_if_alone(checkerboard):
    """Of known users and of new ones; on a whole log, so that nothing is chosen."""
    model = comet(blend_weight=0.7, blend_epochs=2).fit(checkerboard)
    alone = comet(blend_model="none").fit(checkerboard)
    fism = cr.FISM(preset="paper", embedding_dim=4, full_epochs=2).fit(checkerboard)
    for name, value in alone.run.state.items():
        assert torch.equal(model.run.state[name], value), name
    users, items = list(range(40)), [7] * 40
    wanted = alone.score(users, items) + 0.7 * fism.score(users, items)
    np.testing.assert_allclose(model.score(users, items), wanted, rtol=1e-5, atol=1e-6)
    histories = [[3, 9, 1], list(range(20))]  # the second is longer than N
    lists = [
        m.recommend_for_history(histories, k=80, include_seen=True) for m in (model, alone, fism)
    ]
    found, first, second = (
        dict(zip(zip(t["user_id"], t["item_id"], strict=True), t["score"], strict=True))
        for t in lists
    )
    for pair, score in found.items():
        assert score == pytest.approx(first[pair] + 0.7 * second[pair], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("embedding_dim", 0), ("alpha", 1.5), ("weight", float("nan")), ("epochs", -1)],
)
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ConfigError, match=f"blend.{setting} = "):
        comet(**{f"blend_{setting}": value})


def test_settings_of_a_blend_that_is_not_there_are_refused():
    with pytest.raises(ConfigError, match=r'give blend\.model = "fism" too'):
        cr.COMET(preset="static", blend_alpha=0.2)


def test_only_models_with_vectors_are_blended(split):
    with pytest.raises(ConfigError, match="user and item vectors, and mlp has none"):
        cr.MLP(blend_model="fism")
    run = cr.MF(epochs=2, embedding_dim=8, blend_model="fism", blend_embedding_dim=4).fit(split).run
    assert run.user_vectors.shape[1] == (8 + 2) + (4 + 2)


def test_without_validation_items_the_weight_is_the_presets(checkerboard):
    model = comet(blend_weight=0.3).fit(checkerboard)
    assert model.run.blend.weight == pytest.approx(0.3)
    assert len(model.recommend(k=3)) > 0


def test_one_that_is_given_is_taken_and_another_size_refused(split):
    given = cr.FISM(embedding_dim=4, epochs=2).fit(split)
    model = comet().fit(split, init_from=[given])
    assert torch.equal(model.run.blend.state["item_embedding"], given.run.state["item_embedding"])
    assert [name.split()[0] for name in model.run.started_from] == ["fism"]
    assert "blend.epochs" not in model.run.chosen
    with pytest.raises(ConfigError, match="embedding_dim = 4 and this blend needs 6"):
        comet(blend_embedding_dim=6).fit(split, init_from=[given])
    with pytest.raises(ConfigError, match="it takes none"):
        comet(blend_model="none").fit(split, init_from=[given])


def test_a_saved_run_folds_in_as_before(split, tmp_path):
    model = comet().fit(split)
    model.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    history = [split.interactions.items[:4].tolist()]  # ids are indices here
    for name in ("item_id", "score"):
        before = model.recommend_for_history(history, k=5)[name]
        assert list(again.recommend_for_history(history, k=5)[name]) == list(before)


class StopAt:
    """Asks for a stop in one epoch of one stage, and notes the stages that were begun."""

    def __init__(self, stage: str, epoch: int):
        self.at, self.now, self.stages = (stage, epoch), None, []

    def report(self, stage, progress):
        self.now = stage, progress.epoch
        if stage not in self.stages:
            self.stages.append(stage)

    def stop(self):
        return self.now == self.at


@pytest.mark.parametrize("stage", ["fism validation", "fism refit", "validation", "refit"])
def test_stopped_anywhere_it_goes_on_to_the_same_model(split, tmp_path, stage):
    whole = comet().fit(split, refit=True)
    stopper = StopAt(stage, 1)
    with pytest.raises(TrainingInterrupted):
        comet().fit(split, refit=True, hooks=Hooks(stopper.report, stopper.stop, tmp_path / "c"))
    assert has_checkpoint(tmp_path / "c")
    rest = StopAt("never", 0)
    hooks = Hooks(rest.report, rest.stop, tmp_path / "c", resume=True)
    model = comet().fit(split, refit=True, hooks=hooks)
    assert rest.stages == STAGES[STAGES.index(stage) :]
    assert_same(model.run, whole.run)


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_the_second_model_is_kept_it_goes_on_to_the_same_model(
    split, tmp_path, monkeypatch, when
):
    from comet_rec.training import kept

    whole, save = comet().fit(split, refit=True), kept.save_run

    def killed(run, place):
        if when == "after":
            save(run, place)
            (place.parent / "last.json").write_text("half of a removal")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(kept, "save_run", killed)
        with pytest.raises(Killed):
            comet().fit(split, refit=True, hooks=Hooks(checkpoints=tmp_path / "c"))
    hooks = Hooks(checkpoints=tmp_path / "c", resume=has_checkpoint(tmp_path / "c"))
    model = comet().fit(split, refit=True, hooks=hooks)
    assert_same(model.run, whole.run)


def assert_same(run, other):
    """Parameters, what was chosen, what it started from, and the log but for its seconds."""
    assert run.blend.weight == other.blend.weight
    states = (
        (run.state, other.state), (run.selected, other.selected),
        (run.blend.state, other.blend.state), (run.blend.selected, other.blend.selected),
    )  # fmt: skip
    for one, two in states:
        for name, value in two.items():
            assert torch.equal(one[name], value), name
    assert run.started_from == other.started_from
    untimed = [[{**line, "train_seconds": 0} for line in found.log] for found in (run, other)]
    assert untimed[0] == untimed[1]


def test_a_training_begun_from_a_given_fism_is_not_gone_on_with_without_it(split, tmp_path):
    given = cr.FISM(preset="paper", embedding_dim=4, epochs=2).fit(split, refit=True)
    whole = comet().fit(split, refit=True, init_from=[given])
    for stage in ("validation", "refit"):
        stopper = StopAt(stage, 1)
        hooks = Hooks(stopper.report, stopper.stop, tmp_path / stage)
        with pytest.raises(TrainingInterrupted):
            comet().fit(split, refit=True, init_from=[given], hooks=hooks)
        heard = StopAt("never", 0)
        hooks = Hooks(heard.report, heard.stop, tmp_path / stage, resume=True)
        with pytest.raises(ConfigError, match="began with a given fism run"):
            comet().fit(split, refit=True, hooks=hooks)
        assert heard.stages == []
        model = comet().fit(split, refit=True, init_from=[given], hooks=hooks)
        assert_same(model.run, whole.run)


def test_a_given_fism_must_have_the_settings_and_have_been_shown_no_targets(split):
    for changes, key in (({"alpha": 0.9}, "alpha"), ({"exclude_target": False}, "exclude_target")):
        given = cr.FISM(embedding_dim=4, epochs=1, **changes).fit(split)
        with pytest.raises(ConfigError, match=f"model.{key}"):
            comet().fit(split, init_from=[given])


def test_begun_anew_nothing_of_an_earlier_training_is_gone_on_from(split, tmp_path):
    hooks = [
        Hooks(stopper.report, stopper.stop, tmp_path / "c")
        for stopper in (StopAt("validation", 1), StopAt("fism validation", 1))
    ]
    for changes, each in zip(({"dropout": 0.1}, {"dropout": 0.2}), hooks, strict=True):
        with pytest.raises(TrainingInterrupted):
            comet(**changes).fit(split, hooks=each)
    rest = Hooks(checkpoints=tmp_path / "c", resume=True)
    model = comet(dropout=0.2).fit(split, hooks=rest)
    assert torch.equal(model.run.state["h"], comet(dropout=0.2).fit(split).run.state["h"])


def test_an_audit_finds_no_more_in_a_run_with_a_blend(split):
    found = audit_run(comet().fit(split).run)
    assert found == audit_run(comet(blend_model="none").fit(split).run)
    assert {finding.severity for finding in found} <= {"warning", "note"}


def test_what_decides_the_second_model_decides_the_job(split, monkeypatch):
    from comet_rec.estimators import presets

    chosen = (("blend.model", "fism"), ("blend.embedding_dim", 4), ("blend.epochs", 0))
    job = Job("log", "best", "comet", "best", (*chosen, ("blend.preset", "paper")))
    plain = Job("log", "best", "comet", "best", (("blend.model", "none"),))
    keys = job.key(split), plain.key(split)
    searched = {("fism", "small"): ({"embedding_dim": 64}, {"epochs": 5})}
    monkeypatch.setattr(presets, "SEARCHED", {**presets.SEARCHED, **searched})
    assert job.key(split) != keys[0]
    assert plain.key(split) == keys[1]


def test_one_of_other_settings_is_not_gone_on_from(split, tmp_path):
    stopper = StopAt("validation", 1)
    with pytest.raises(TrainingInterrupted):
        comet().fit(split, hooks=Hooks(stopper.report, stopper.stop, tmp_path / "c"))
    with pytest.raises(ConfigError, match="a fism model that was trained with other settings"):
        comet(blend_alpha=0.9).fit(split, hooks=Hooks(checkpoints=tmp_path / "c", resume=True))
    # Begun anew it is trained again.
    rest = StopAt("never", 0)
    model = comet(blend_alpha=0.9)
    model.fit(split, hooks=Hooks(rest.report, rest.stop, tmp_path / "c"))
    assert rest.stages == ["fism validation", "validation"]

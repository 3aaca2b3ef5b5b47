"""A model that another one holds: trained first, by itself, kept, gone on from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.checkpoint import has_checkpoint
from comet_rec.data.histories import shown
from comet_rec.errors import ConfigError, TrainingInterrupted
from comet_rec.estimators.audit import audit_run
from comet_rec.estimators.scoring import VectorScores
from comet_rec.estimators.session import Hooks
from comet_rec.estimators.validation import Validation
from comet_rec.experiments.jobs import Job
from comet_rec.models.comet_config import TASTE_WEIGHTS
from comet_rec.models.encoding import all_vectors

SETTINGS = {
    "preset": "best", "embedding_dim": 8, "history_length": 6, "hidden": (8,), "epochs": 3,
    "full_epochs": 2, "batch_size": 256, "taste_dim": 4,
    "taste_preset": "paper",
}  # fmt: skip


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
    return cr.COMET(**SETTINGS | changes)


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_it_is_the_fism_that_is_had_alone(split, preset):
    model = comet(taste_preset=preset).fit(split)
    alone = cr.FISM(preset=preset, embedding_dim=4).fit(split)
    for name, value in alone.run.state.items():
        assert torch.equal(model.run.state[f"taste.{name}"], value)
    assert [name.split()[0] for name in model.run.started_from] == ["fism"]
    stages = [line["stage"] for line in model.run.log]
    assert stages == ["fism validation"] * 4 + ["validation"] * 3


@pytest.mark.parametrize(("select_by", "name"), [("sampled", "NDCG@10"), ("full", "full NDCG@10")])
def test_the_validation_items_choose_its_weight(split, select_by, name):
    run = comet(select_by=select_by).fit(split).run
    weight = float(run.state["taste_weight"])
    assert weight == pytest.approx(min(TASTE_WEIGHTS, key=lambda w: abs(w - weight)))
    rows = split.train
    of_users, of_items = shown(rows, run.model.histories)
    validating = Validation(run.config, split.validation, rows)
    figures = {}
    for other in TASTE_WEIGHTS:
        run.model.taste_weight.fill_(other)
        vectors = all_vectors(run.model, of_users, of_items, rows.n_users, rows.n_items)
        figures[other] = validating.figures(VectorScores(*vectors))[name]
    assert len(set(figures.values())) > 1
    assert max(figures, key=lambda w: figures[w]) == pytest.approx(weight)
    chosen = max(line["validation"][name] for line in run.log if line["stage"] == "validation")
    assert chosen == pytest.approx(max(figures.values()), abs=1e-6)


def test_a_refit_takes_the_weight_and_a_fism_that_knows_the_validation_rows(split):
    run = comet().fit(split, refit=True).run
    assert run.selected is not None
    assert torch.equal(run.state["taste_weight"], run.selected["taste_weight"])
    name = "taste.item_embedding"
    assert not torch.equal(run.state[name], run.selected[name])
    alone = cr.FISM(preset="paper", embedding_dim=4).fit(split, refit=True).run
    assert torch.equal(run.state[name], alone.state["item_embedding"])


def test_its_refit_waits_for_what_the_validation_items_choose(split):
    heard = StopAt("never", 0)
    model = comet().fit(split, refit=True, hooks=Hooks(heard.report))
    stages = ["fism validation", "validation", "fism refit", "refit"]
    assert heard.stages == stages
    assert list(dict.fromkeys(line["stage"] for line in model.run.log)) == stages


def test_without_validation_items_the_weight_is_the_presets(checkerboard):
    model = comet(taste_weight=0.3).fit(checkerboard)
    assert float(model.run.state["taste_weight"]) == pytest.approx(0.3)
    assert len(model.recommend(k=3)) > 0


def test_one_that_is_given_is_taken_and_another_size_refused(split):
    given = cr.FISM(embedding_dim=4, epochs=2).fit(split)
    model = comet().fit(split, init_from=[given])
    assert torch.equal(model.run.state["taste.item_embedding"], given.run.state["item_embedding"])
    with pytest.raises(ConfigError, match="embedding_dim = 4 where this model needs 6"):
        comet(taste_dim=6).fit(split, init_from=[given])
    with pytest.raises(ConfigError, match="it takes none"):
        comet(taste_dim=0).fit(split, init_from=[given])


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
    stages = ["fism validation", "validation", "fism refit", "refit"]
    assert rest.stages == stages[stages.index(stage) :]
    assert_same(model.run, whole.run)


class Killed(BaseException):
    """Stands for a SIGKILL."""


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("place", ["save_run", "rmtree"])
def test_killed_between_stages_it_goes_on_to_the_same_model(
    split, tmp_path, monkeypatch, call, place
):
    from comet_rec.estimators import companions

    whole = comet().fit(split, refit=True)
    save, calls = companions.save_run, []

    def killed(*given, **more):
        calls.append(given)
        if len(calls) == call:
            raise Killed
        if place == "save_run":
            save(*given)

    with monkeypatch.context() as patched:
        patched.setattr(companions, "forget", lambda folder: None)  # it removes before all else
        if place == "save_run":
            patched.setattr(companions, place, killed)
        else:  # its own removals alone
            patched.setattr(companions, "shutil", SimpleNamespace(rmtree=killed))
        with pytest.raises(Killed):
            comet().fit(split, refit=True, hooks=Hooks(checkpoints=tmp_path / "c"))
    for file in tmp_path.glob("c/companions/fism/*-checkpoints/*.safetensors"):
        file.unlink()  # half of a removal
    hooks = Hooks(checkpoints=tmp_path / "c", resume=has_checkpoint(tmp_path / "c"))
    model = comet().fit(split, refit=True, hooks=hooks)
    assert_same(model.run, whole.run)


def assert_same(run, other):
    """Parameters, what was chosen, what it started from, and the log but for its seconds."""
    for one, two in ((run.state, other.state), (run.selected, other.selected)):
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
        with pytest.raises(ConfigError, match="begun from a fism that was given"):
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


def test_an_audit_finds_no_more_in_a_run_with_a_taste(split):
    found = audit_run(comet().fit(split).run)
    assert found == audit_run(comet(taste_dim=0).fit(split).run)
    assert {finding.severity for finding in found} <= {"warning", "note"}


def test_what_decides_the_companion_decides_the_job(split, monkeypatch):
    from comet_rec.estimators import presets

    job = Job("log", "best", "comet", "best", (("model.taste_dim", 4),))
    plain = Job("log", "best", "comet", "best", (("model.taste_dim", 0),))
    keys = job.key(split), plain.key(split)
    searched = {("fism", "small"): ({"embedding_dim": 64}, {"epochs": 5})}
    monkeypatch.setattr(presets, "SEARCHED", {**presets.SEARCHED, **searched})
    assert job.key(split) != keys[0]
    assert plain.key(split) == keys[1]


def test_one_of_other_settings_is_not_gone_on_from(split, tmp_path):
    stopper = StopAt("validation", 1)
    with pytest.raises(TrainingInterrupted):
        comet().fit(split, hooks=Hooks(stopper.report, stopper.stop, tmp_path / "c"))
    with pytest.raises(ConfigError, match="a fism of other settings or other data"):
        comet(taste_alpha=0.9).fit(split, hooks=Hooks(checkpoints=tmp_path / "c", resume=True))
    # Begun anew it is trained again.
    rest = StopAt("never", 0)
    model = comet(taste_alpha=0.9)
    model.fit(split, hooks=Hooks(rest.report, rest.stop, tmp_path / "c"))
    assert rest.stages == ["fism validation", "validation"]

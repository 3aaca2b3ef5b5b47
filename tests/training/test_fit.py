"""Fitting: selection of epochs, and initialisation from trained models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.errors import CometWarning, ConfigError, InputError
from comet_rec.evaluation import scoring
from comet_rec.evaluation.metrics import figures
from comet_rec.evaluation.ranking import drawn_users, full_ranks
from comet_rec.evaluation.scoring import model_scores
from comet_rec.training import fit as fit_module
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import Validation, validation_text

SETTINGS = {"epochs": 6, "patience": 0, "embedding_dim": 8}


@pytest.fixture
def split(random_log):
    return cr.leave_one_out(random_log(80, 60, 12), negatives=30)


def epochs_of(run):
    return [line["validation"] for line in run.log if line["stage"] == "validation"]


def test_the_chosen_epoch_is_the_best_by_that_figure(split):
    """On a log without structure the two disagree under most seeds."""
    chosen = {}
    for metric, name in (("sampled", "NDCG@10"), ("full", "full NDCG@10")):
        for seed in range(4):
            model = cr.MF(selection_metric=metric, learning_rate=0.05, seed=seed, **SETTINGS)
            run = model.fit(split).run
            found = [figures[name] for figures in epochs_of(run)]
            assert run.epochs == 1 + found.index(max(found))
            chosen[metric, seed] = run.epochs
    assert any(chosen["sampled", seed] != chosen["full", seed] for seed in range(4))


def test_training_itself_is_the_same(split):
    runs = [cr.MF(selection_metric=by, **SETTINGS).fit(split).run for by in ("sampled", "full")]
    losses = [[line["loss"] for line in run.log] for run in runs]
    assert losses[0] == losses[1]
    sampled = [{k: v for k, v in f.items() if "full" not in k} for f in epochs_of(runs[1])]
    assert sampled == epochs_of(runs[0])


def test_figures_are_of_the_validation_items_and_training_rows_are_left_out(split, monkeypatch):
    """The test item competes like any other: nobody knows of it."""
    run = cr.EASE(selection_metric="full").fit(split).run
    scores = model_scores(run.model, split.train)
    (line,) = run.log
    for held in (split.validation, drawn_users(split.validation, 5)):
        ranks = full_ranks(scores, held, split.train)
        wanted = figures(ranks.better, ranks.tied, "expected")[0]
        monkeypatch.setattr(fit_module, "FULL_SCORES", 60 * len(held))
        monkeypatch.setattr(fit_module, "LEAST_USERS", 1)
        found = Validation(run.config, split.validation, split.train).figures(scores)
        assert {k: v for k, v in found.items() if "full" in k} == {
            f"full {k}": v for k, v in wanted.items()
        }
        assert found["NDCG@10"] == line["validation"]["NDCG@10"]
    without = full_ranks(scores, split.validation, split.interactions)
    assert (without.better < full_ranks(scores, split.validation, split.train).better).any()


@pytest.mark.parametrize("pairs", [1, 7, 61, 200])
def test_blocks_of_pairs_are_the_same_scores(split, monkeypatch, pairs):
    """Of several users, or of a part of one user's items."""
    run = cr.MLP(embedding_dim=4, epochs=1).fit(split).run
    users = np.arange(5)
    whole = model_scores(run.model, split.train).score_all(users)
    monkeypatch.setattr(scoring, "PAIRS", pairs)
    np.testing.assert_allclose(
        model_scores(run.model, split.train).score_all(users), whole, 1e-5, 1e-6
    )


def test_ties_count_as_the_protocol_has_it(split):
    pessimistic = replace(split.protocol, ties="pessimistic")
    run = cr.Popularity(selection_metric="full").fit(replace(split, protocol=pessimistic)).run
    ranks = full_ranks(model_scores(run.model, split.train), split.validation, split.train)
    (line,) = run.log
    wanted, usual = (
        figures(ranks.better, ranks.tied, rule)[0] for rule in ("pessimistic", "expected")
    )
    assert line["validation"]["full HR@10"] == wanted["HR@10"] < usual["HR@10"]


def test_of_equal_ones_the_better_among_drawn_items_is_chosen(split, monkeypatch):
    """Few users of a wide catalogue have none at all in their first ten."""
    found = iter([{"NDCG@10": 0.1 * n, "full NDCG@10": 0.0} for n in (1, 3, 2)])
    monkeypatch.setattr(Validation, "figures", lambda self, scores: next(found))
    run = cr.MF(selection_metric="full", **SETTINGS | {"epochs": 3}).fit(split).run
    assert run.epochs == 2


def test_patience_waits_for_that_figure(split, monkeypatch):
    """The one among drawn items goes on rising."""
    figures = iter([{"NDCG@10": 0.1 * n, "full NDCG@10": 0.1 / n} for n in range(1, 9)])
    monkeypatch.setattr(Validation, "figures", lambda self, scores: next(figures))
    settings = SETTINGS | {"patience": 2}
    run = cr.MF(selection_metric="full", **settings).fit(split).run
    assert (run.epochs, len(run.log)) == (1, 3)


def test_the_second_model_of_a_blend_is_chosen_the_same_way(checkerboard):
    split = cr.leave_one_out(checkerboard, negatives=30)
    settings = {
        "preset": "best", "embedding_dim": 8, "history_length": 6, "hidden": (8,), "epochs": 2,
        "batch_size": 256, "blend_model": "fism", "blend_embedding_dim": 4,
        "selection_metric": "full", "refit": False,
    }  # fmt: skip
    run = cr.COMET(**settings).fit(split).run
    assert all("full NDCG@10" in line["validation"] for line in run.log)
    assert {line["stage"] for line in run.log} == {"fism validation", "validation"}


def test_how_many_users_are_ranked(split, monkeypatch):
    """Of wide catalogues 2,000 at least; of models that score pairs as many as are cheap."""
    ranked = []

    def spy(held, most, real=fit_module.drawn_users):
        ranked.append(most)
        return real(held, most)

    monkeypatch.setattr(fit_module, "drawn_users", spy)
    cr.EASE(selection_metric="full").fit(split)
    monkeypatch.setattr(fit_module, "FULL_SCORES", 60)
    cr.EASE(selection_metric="full").fit(split)
    monkeypatch.setattr(fit_module, "PAIR_SCORES", 60 * 7)
    tiny = {"epochs": 1, "selection_metric": "full"}
    cr.MLP(embedding_dim=4, hidden=(4,), **tiny).fit(split)
    monkeypatch.setattr(fit_module, "PAIR_SCORES", 60 * 1000)
    cr.ConvNCF(embedding_dim=4, **tiny).fit(split)
    assert ranked == [500_000_000 // split.interactions.n_items, 2_000, 7, 200]


def test_what_a_line_of_progress_says():
    figures = {"HR@5": 0.1, "HR@10": 0.25, "NDCG@10": 0.5}
    assert validation_text(figures) == "HR@10 0.2500 NDCG@10 0.5000"
    assert validation_text(figures | {"full NDCG@10": 0.0625}).endswith("full NDCG@10 0.0625")


SMALL = {"embedding_dim": 8, "epochs": 2, "batch_size": 256}


@pytest.fixture
def checkerboard_split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


def sources(checkerboard_split, **fit):
    return [
        cr.GMF(**SMALL).fit(checkerboard_split, **fit),
        cr.MLP(**SMALL, hidden=(8,)).fit(checkerboard_split, **fit),
    ]


def neumf(**changes):
    return cr.NeuMF(**SMALL | {"hidden": (8,), "learning_rate": 1e-9} | changes)


def test_without_steps_worth_the_name_it_is_the_mean_of_its_sources(checkerboard_split):
    gmf, mlp = sources(checkerboard_split)
    model = neumf(epochs=1).fit(checkerboard_split, init_from=[gmf, mlp])
    state = model.run.state
    torch.testing.assert_close(state["gmf.user_embedding"], gmf.run.state["user_embedding"])
    torch.testing.assert_close(state["gmf.h"], gmf.run.state["h"] / 2, rtol=1e-4, atol=1e-6)
    assert [name.split()[0] for name in model.run.started_from] == ["gmf", "mlp"]


def test_under_a_refit_each_stage_starts_from_its_own_stage(checkerboard_split, tmp_path):
    gmf, mlp = sources(checkerboard_split, refit=True)
    gmf.save(tmp_path / "gmf")
    gmf = cr.load_model(tmp_path / "gmf")  # the stage that validation chose is stored too
    model = neumf(epochs=1).fit(checkerboard_split, refit=True, init_from=[gmf, mlp])
    for state, source in ((model.run.selected, gmf.run.selected), (model.run.state, gmf.run.state)):
        torch.testing.assert_close(state["gmf.user_embedding"], source["user_embedding"])
    assert not torch.equal(gmf.run.selected["user_embedding"], gmf.run.state["user_embedding"])


def test_wrong_starts_are_refused(checkerboard_split, random_log):
    gmf, mlp = sources(checkerboard_split)
    with pytest.raises(ConfigError, match="needs one run each of gmf, mlp"):
        neumf().fit(checkerboard_split, init_from=[gmf])
    with pytest.raises(ConfigError, match="it takes none"):
        cr.MF(**SMALL).fit(checkerboard_split, init_from=[gmf])
    other = cr.leave_one_out(random_log(120, 80, 16), negatives=30)
    with pytest.raises(ConfigError, match="trained on another log"):
        neumf().fit(other, init_from=[gmf, mlp])
    moved = replace(
        checkerboard_split, part=np.roll(checkerboard_split.part, 1)
    )  # the same log, other rows held out
    with pytest.raises(ConfigError, match="trained on another split"):
        neumf().fit(moved, init_from=[gmf, mlp])
    with pytest.raises(ConfigError, match="refit = false"):
        neumf().fit(checkerboard_split, refit=True, init_from=[gmf, mlp])
    with pytest.raises(ConfigError, match="both hold items out, or neither"):
        neumf().fit(checkerboard_split.interactions, init_from=[gmf, mlp])
    with pytest.raises(ConfigError, match="sizes of the pre-trained models differ"):
        neumf(embedding_dim=4).fit(checkerboard_split, init_from=[gmf, mlp])


@pytest.mark.parametrize("nothing", [None, "", 0])
def test_what_is_no_model_to_start_from_is_refused(checkerboard_split, nothing):
    with pytest.raises(InputError, match="init_from"):
        cr.MF(embedding_dim=4, epochs=1).fit(checkerboard_split, init_from=nothing)


BLEND = {
    "preset": "best", "embedding_dim": 8, "history_length": 6, "epochs": 3,
    "hidden": (8,), "widths": (1, 4), "blend_model": "fism",
}  # fmt: skip


def tensors_of(model):
    return model.run.tensors | (model.run.selected or {})


def test_a_time_limit_that_is_over_leaves_one_validated_epoch_and_whole_later_trainings(split):
    hooks = Hooks(time_limit=0.0, final=True)
    with pytest.warns(CometWarning, match="was trained for 1 of") as notes:
        model = cr.COMET(**BLEND).fit(split, hooks=hooks)
    assert [str(note.message).split()[2] for note in notes] == ["fism", "comet"]
    stages = [line["stage"] for line in model.run.log]
    assert stages == ["fism validation", "fism refit", "validation", "refit"]
    assert model.run.epochs == model.run.blend.epochs == 1
    assert model.run.validation is not None
    model.final(hooks=hooks)
    assert [line["stage"] for line in model.run.log][4:] == ["fism all", "all"]


def test_a_time_limit_ends_a_training_on_all_rows_too(random_log):
    with pytest.warns(CometWarning, match="mf was trained for 1 of 6 epochs"):
        model = cr.MF(**SETTINGS).fit(random_log(80, 60, 12), hooks=Hooks(time_limit=0.0))
    assert model.run.epochs == 1
    plain = cr.MF(**SETTINGS | {"epochs": 1}).fit(random_log(80, 60, 12))
    # The learning rate does not fall, so one epoch of six equals one epoch of one.
    assert torch.equal(model.run.user_vectors, plain.run.user_vectors)


def test_a_distant_time_limit_and_an_estimate_change_no_number(split):
    estimates = []
    hooks = Hooks(time_limit=1e6, final=True, estimate=estimates.append)
    model = cr.COMET(**BLEND).fit(split, hooks=hooks)
    plain = cr.COMET(**BLEND).fit(split)
    assert len(estimates) == 1
    assert estimates[0] > 0
    for name, value in tensors_of(plain).items():
        assert torch.equal(tensors_of(model)[name], value), name


def test_a_model_without_epochs_needs_no_estimate(split):
    estimates = []
    cr.EASE().fit(split, hooks=Hooks(time_limit=0.0, estimate=estimates.append))
    assert estimates == []

"""Hooks of the parts of a training, and what a checkpoint must hold for a training to go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from comet_rec.data.batches import Batches
from comet_rec.errors import ArtefactError, ConfigError
from comet_rec.models import base
from comet_rec.training import checkpoints
from comet_rec.training.checkpoints import Found, Hooks, digest, digests, open_folder
from comet_rec.training.trainer import Progress, Trainer
from tests.conftest import make_log, random_pairs

LOG = make_log(random_pairs(np.random.default_rng(0), 12, 10, 4))
PROGRESS = Progress(0, 2, 1, 3, 0.5, 7, 1.23456)
LINE = {
    "stage": "all", "epoch": 1, "positives": 7, "train_seconds": 0.1, "loss": 0.5,
    "validation": None,
}  # fmt: skip


class Steps:
    """A training of matrix factorization, of which two steps are done."""

    def __init__(self, config) -> None:
        model = base.build("mf", config.model, LOG.n_users, LOG.n_items, 0)
        batches = Batches(LOG, batch_size=9, negatives=1, histories=model.histories, seed=0)
        self.trainer = Trainer(model, batches, config.train, seed=0, device=torch.device("cpu"))
        for _, part in zip(range(2), self.trainer.parts(0), strict=False):
            self.trainer._step(part)
        self.trainer.state.epoch, self.trainer.state.batch = 1, 2


def config(**settings):
    settings = {"refit": True} | settings
    return cr.MF(embedding_dim=3, epochs=5, full_epochs=5, **settings).config_for(LOG)


def found(folder, held="", resume=False, config=config()):  # noqa: B008
    return Found(config, LOG, Hooks(checkpoints=folder, resume=resume), held, "")


def saved(folder, stage="all", change=None, **settings):
    """A checkpoint after two steps; `change` changes what it is saved from."""
    state = found(folder, **settings)
    state.lines = [LINE | {"stage": stage}]
    state.epochs = 0 if stage == "validation" else 5  # known before the other stages begin
    if change:
        change(state)
    steps = Steps(state.config)
    state.save(stage, steps.trainer)
    return state, steps.trainer


def change_about(folder, **changes):
    """Change a saved checkpoint, and sign it again."""
    tensors, about = load_checkpoint(folder, lambda about: declared(folder, about))
    save_checkpoint(folder, tensors, {k: v for k, v in {**about, **changes}.items() if v != "no"})


def declared(folder, about):
    return checkpoints.checkpoint_arrays(config(), LOG.n_users, LOG.n_items)


# Hooks


def test_hooks_of_a_part_have_a_folder_and_names_of_stages_of_their_own(tmp_path):
    seen = []
    hooks = Hooks(
        report=lambda stage, progress: seen.append((stage, progress)), stop=lambda: True,
        checkpoints=tmp_path, time_limit=80.0, final=True, began=7.0,
    )  # fmt: skip
    blend, final = hooks.of_blend("fism", 0.25), hooks.of_final()
    blend.report("refit", PROGRESS)
    final.report("all", PROGRESS)
    final.report("validation", PROGRESS)
    stages = ["fism refit", "final", "validation"]
    assert seen == [(stage, PROGRESS) for stage in stages]
    assert blend.stop()
    assert final.stop()
    assert (blend.checkpoints, final.checkpoints) == (tmp_path / "blend", tmp_path / "final")
    assert (blend.time_limit, blend.final, blend.began) == (20.0, True, 7.0)
    assert (final.time_limit, final.final) == (None, False)  # a final training is always complete
    assert hooks.of_blend("fism").time_limit == 80.0


def test_hooks_without_a_folder_or_a_limit_give_parts_without_them():
    for part in (Hooks(resume=True).of_blend("fism"), Hooks(resume=True).of_final()):
        assert part.checkpoints is None
        assert part.time_limit is None
        assert not part.resume
    assert not Hooks().stop()
    assert Hooks().deadline() is None
    assert Hooks(time_limit=10.0, began=5.0).deadline() == 15.0
    assert Hooks(time_limit=10.0, began=5.0).deadline(3.0) == 12.0


@pytest.mark.parametrize("part", ["blend", "final"])
def test_a_part_resumes_if_the_whole_does_and_it_has_a_checkpoint(tmp_path, part):
    def resumes(resume):
        hooks = Hooks(checkpoints=tmp_path, resume=resume)
        return (hooks.of_blend("fism") if part == "blend" else hooks.of_final()).resume

    assert not resumes(True)
    save_checkpoint(tmp_path / part, {"w": torch.ones(1)}, {"stage": "all", "step": 1})
    assert resumes(True)
    assert not resumes(False)


# A folder before a training


def test_a_training_that_begins_anew_forgets_an_earlier_checkpoint(tmp_path):
    saved(tmp_path)
    open_folder(Hooks(checkpoints=tmp_path, resume=True), config())
    assert has_checkpoint(tmp_path)
    open_folder(Hooks(checkpoints=tmp_path), config())
    assert not has_checkpoint(tmp_path)


def test_a_folder_that_holds_nothing_to_resume_from_is_refused(tmp_path):
    open_folder(Hooks(resume=True), config())  # no folder: nothing to do
    with pytest.raises(ConfigError, match=f"^{tmp_path}: nothing to resume; leave --resume out"):
        open_folder(Hooks(checkpoints=tmp_path, resume=True), config())


def test_a_checkpoint_of_a_blend_is_for_blends_alone(tmp_path):
    saved(tmp_path)
    (tmp_path / "blend").mkdir()
    blended = cr.COMET(preset="blended").config_for(LOG)
    open_folder(Hooks(checkpoints=tmp_path, resume=True), blended)
    with pytest.raises(ConfigError, match=f"^{tmp_path}: this training began with another model"):
        open_folder(Hooks(checkpoints=tmp_path, resume=True), config())


# Saving and resuming


def test_a_training_goes_on_from_all_that_was_found(tmp_path):
    def refit(state):
        state.weights, state.epochs = [0.25, 0.5], 2
        model = base.build("mf", config().model, LOG.n_users, LOG.n_items, 1)
        state.selected = dict(model.state_dict())

    before, trainer = saved(tmp_path, "refit", refit, held="held")
    after = found(tmp_path, held="held", resume=True)
    after.resume()
    assert (after.lines, after.weights, after.epochs) == (before.lines, [0.25, 0.5], 2)
    assert after.selected.keys() == before.selected.keys()
    assert all(torch.equal(after.selected[k], v) for k, v in before.selected.items())

    again = Steps(config()).trainer
    again.state.epoch = again.state.batch = 0
    for parameter in again.model.parameters():
        parameter.data.zero_()
    after.restore("validation", again)  # another stage: nothing is restored
    assert again.state.epoch == 0
    after.restore("refit", again)
    assert (again.state.epoch, again.state.batch) == (1, 2)
    for a, b in zip(again.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again.state.epoch = 0
    after.restore("refit", again)  # only once
    assert again.state.epoch == 0


def test_a_checkpoint_says_which_step_it_is_of(tmp_path):
    _, trainer = saved(tmp_path)
    about = json.loads((tmp_path / "last.json").read_text())["about"]
    assert about["step"] == len(trainer.batches) + 2
    assert about["stage"] == "all"
    assert about["state"]["batch"] == 2


def test_without_a_folder_or_the_wish_nothing_is_saved_or_resumed(tmp_path):
    state, _ = saved(None)
    state.resume()
    assert state.lines == [LINE]
    saved(tmp_path)
    fresh = found(tmp_path)
    fresh.resume()
    assert fresh.lines == []
    fresh.restore("all", Steps(config()).trainer)  # nothing was loaded
    empty = found(tmp_path / "empty", resume=True)
    empty.resume()
    assert empty.lines == []


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"held": "held"}, {"held": "other"}),
        ({"config": config(learning_rate=0.1)}, {}),
        ({"held": "held"}, {"held": ""}),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, mine, theirs):
    saved(tmp_path, "validation" if theirs.get("held") else "all", **theirs)
    with pytest.raises(ConfigError, match=f"^{tmp_path}: this training began with another model"):
        found(tmp_path, resume=True, **mine).resume()


def test_a_checkpoint_of_another_training_says_what_to_do(tmp_path):
    assert str(checkpoints.begun_otherwise(tmp_path)) == (
        f"{tmp_path}: this training began with another model, other settings or other data; "
        "give the same command, or remove the folder to start anew"
    )


def test_starts_and_the_log_are_part_of_a_training(tmp_path):
    state = found(tmp_path)
    other = make_log(random_pairs(np.random.default_rng(1), 12, 10, 4))
    others = replace(state, starts="x"), replace(state, log=other)
    assert len({state.identity, *(each.identity for each in others)}) == 3
    assert state.identity.splitlines()[0] == config().to_toml().splitlines()[0]


@pytest.mark.parametrize(
    ("held", "stage", "changes", "message"),
    [
        ("", "all", {"stage": "validation"}, "5 of 5 epochs chosen, stage validation"),
        ("", "all", {"chosen_epochs": 0}, "0 of 5 epochs chosen, stage all"),
        ("", "all", {"stage": "refit"}, "5 of 5 epochs chosen, stage refit"),
        ("held", "validation", {"stage": "all"}, "0 of 5 epochs chosen, stage all"),
        ("held", "validation", {"stage": "refit"}, "0 of 5 epochs chosen, stage refit"),
        ("held", "validation", {"chosen_epochs": 1}, "1 of 5 epochs chosen, stage validation"),
        ("", "all", {"chosen_epochs": 6}, "6 of 5 epochs chosen"),
        ("", "all", {"state": "no"}, "it has no state, no log, or no number of epochs"),
        ("", "all", {"lines": "no"}, "it has no state, no log, or no number of epochs"),
        ("held", "validation", {"chosen_epochs": "no"}, "it has no state, no log, or no number"),
    ],
)
def test_content_that_contradicts_itself_is_refused(tmp_path, held, stage, changes, message):
    saved(tmp_path, stage, held=held)
    change_about(tmp_path, **changes)
    with pytest.raises(ArtefactError, match=f"damaged checkpoint .{message}"):
        found(tmp_path, held=held, resume=True).resume()


def test_a_refit_needs_a_setting_and_what_validation_chose(tmp_path):
    saved(tmp_path, "refit", held="held")
    with pytest.raises(ArtefactError, match="parameters that validation chose are missing; remove"):
        found(tmp_path, held="held", resume=True).resume()
    no_refit = config(refit=False)
    saved(tmp_path, "refit", held="held", config=no_refit)
    with pytest.raises(ArtefactError, match="5 of 5 epochs chosen, stage refit"):
        found(tmp_path, held="held", resume=True, config=no_refit).resume()


def test_a_blend_has_a_weight_for_each_validated_epoch(tmp_path):
    """The check stands before the tensors, which are those of another model here."""
    blended = cr.COMET(preset="blended").config_for(LOG)
    state = found(tmp_path, held="held", config=blended)
    about = {
        "lines": [], "chosen_epochs": 0, "stage": "validation", "state": {"epoch": 2},
        "weights": [0.5, 0.5], "identity": state.identity,
    }  # fmt: skip
    assert state._declared(about)
    for weights in ([], [0.5]):
        with pytest.raises(ValueError, match=f"{len(weights)} weights of the blend after 2 epochs"):
            state._declared({**about, "weights": weights})
    with pytest.raises(ValueError, match="0 weights of the blend after 2 epochs"):
        state._declared({k: v for k, v in about.items() if k != "weights"})
    refit = {**about, "stage": "refit", "chosen_epochs": 3}
    with pytest.raises(ValueError, match="2 weights of the blend after 3 epochs"):
        state._declared(refit)
    alone = replace(state, held="")
    assert alone._declared(
        {**about, "stage": "all", "weights": [], "chosen_epochs": 1, "identity": alone.identity}
    )


def test_a_trainer_that_the_checkpoint_does_not_fit_is_told_in_one_line(tmp_path):
    saved(tmp_path)
    state = found(tmp_path, resume=True)
    state.resume()
    tensors, about = state._resumed
    state._resumed = ({k: v for k, v in tensors.items() if "user" not in k}, about)
    with pytest.raises(ArtefactError, match=r"does not fit this training \(.+\); remove"):
        state.restore("all", Steps(config()).trainer)


# Reports


def test_steps_and_epochs_are_reported_and_checkpoints_follow_the_clock(tmp_path, monkeypatch):
    seen, now = [], 0.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    stop = [False]
    hooks = Hooks(
        report=lambda stage, progress: seen.append(stage), stop=lambda: stop[0],
        checkpoints=tmp_path,
    )  # fmt: skip
    state, trainer = Found(config(), LOG, hooks, "", ""), Steps(config()).trainer
    state._saved = now
    assert state.note("all", trainer, PROGRESS) is False
    now = 120.0  # two minutes are not over yet
    state.note("all", trainer, PROGRESS)
    assert not has_checkpoint(tmp_path)
    now = 120.5
    state.note("all", trainer, PROGRESS)
    assert has_checkpoint(tmp_path)
    (tmp_path / "last.json").unlink()
    now = 240.5
    state.note("all", trainer, PROGRESS)
    assert not has_checkpoint(tmp_path)
    assert state.lines == []

    stop[0] = True
    assert state.note("all", trainer, PROGRESS) is True
    now = 999.0
    done = replace(PROGRESS, epoch=1, finished_epoch=True, validation={"NDCG@10": 0.5})
    assert state.note("validation", trainer, done) is False  # it stops after the next step
    assert not has_checkpoint(tmp_path)
    assert seen == ["all"] * 5 + ["validation"]
    assert state.lines == [
        {
            "stage": "validation", "epoch": 1, "positives": 7, "train_seconds": 1.235, "loss": 0.5,
            "validation": {"NDCG@10": 0.5},
        }
    ]  # fmt: skip


# Digests


def test_a_digest_covers_names_and_values_in_the_order_of_the_names():
    a, b = torch.ones(2), torch.arange(6.0).reshape(2, 3)
    sha = hashlib.sha256(b"a" + a.numpy().tobytes() + b"b" + b.numpy().tobytes()).hexdigest()
    assert digest({"b": b, "a": a}) == sha
    column = torch.arange(6.0).reshape(3, 2).T  # not contiguous
    assert digest({"a": column}) == digest({"a": column.contiguous()})


def test_runs_are_told_apart_by_their_parameters_before_a_refit():
    split = cr.leave_one_out(LOG, negatives=5)
    few = {"embedding_dim": 3, "epochs": 1, "full_epochs": 1}
    run = cr.MF(**few).fit(split, refit=True).run
    assert digests([run, run]) == f"{digest(run.selected)} {digest(run.selected)}"
    alone = cr.MF(**few).fit(LOG).run
    assert digests([alone]) == digest(alone.state)
    assert checkpoints.started_from([run, alone]) == (
        f"mf {digest(run.state)}", f"mf {digest(alone.state)}",
    )  # fmt: skip

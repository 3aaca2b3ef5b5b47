"""The loop: Eq. 9, resuming bit for bit, stopping, non-finite losses, background batches."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.data.batches import Batches
from comet_rec.errors import ConfigError, NonFiniteError, TrainingInterrupted
from comet_rec.models import base
from comet_rec.models.layers import drop
from comet_rec.training import trainer
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import Validation
from comet_rec.training.losses import bayesian_personalised_ranking, binary_cross_entropy, objective
from comet_rec.training.trainer import Averaged, Trainer, TrainState, prefetched
from tests.conftest import checkerboard_log

SMALL = {"preset": "static", "embedding_dim": 8, "history_length": 8, "hidden": (16,), "epochs": 4}


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


def test_the_loss_is_eq_9():
    logits, labels = torch.tensor([0.3, -2.0, 50.0]), torch.tensor([1.0, 0.0, 0.0])
    by_hand = 0.0
    for x, y in zip(logits.tolist(), labels.tolist(), strict=True):
        sigma = 1 / (1 + math.exp(-x))
        by_hand -= math.log(sigma) if y else math.log1p(-sigma) if sigma < 1 else -x
    assert float(binary_cross_entropy(logits, labels, "sum")) == pytest.approx(by_hand, rel=1e-6)
    mean = float(binary_cross_entropy(logits, labels, "mean"))
    assert mean == pytest.approx(by_hand / 3, rel=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_bpr_is_a_loop_over_negatives_and_their_own_positive(reduction):
    logits = torch.tensor([0.5, -1.0, 2.0, 0.1, -0.3], requires_grad=True)
    labels, groups = torch.tensor([0.0, 1, 1, 0, 0]), torch.tensor([1, 0, 1, 0, 1])
    pairs = [(2, 0), (1, 3), (2, 4)]  # places of the positive and of its negative
    values = logits.tolist()
    terms = [math.log1p(math.exp(values[n] - values[p])) for p, n in pairs]
    expected = sum(terms) / (3 if reduction == "mean" else 1)
    loss = bayesian_personalised_ranking(logits, labels, groups, reduction)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_bpr_of_users_who_touched_everything_is_nothing(reduction):
    logits = torch.tensor([0.5, -1.0], requires_grad=True)
    labels, groups = torch.ones(2), torch.tensor([0, 1])
    loss = bayesian_personalised_ranking(logits, labels, groups, reduction)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_the_average_is_the_one_that_its_formula_says():
    model = torch.nn.Linear(3, 2)
    averaged = Averaged(model, 0.5)
    expected = model.weight.detach().clone()
    rng = torch.Generator().manual_seed(0)
    for step in range(8):
        model.weight.data = torch.randn(2, 3, generator=rng)
        averaged.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(averaged.values["weight"], expected)
    last = model.weight.detach().clone()
    with averaged.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, last)


def test_an_average_counts_the_steps_of_all_epochs(split, monkeypatch):
    """Its decay grows with them; begun anew each epoch would forget the epochs before."""
    steps, update = [], Averaged.update

    def spy(self, step):
        steps.append(step)
        update(self, step)

    monkeypatch.setattr(Averaged, "update", spy)
    cr.COMET(**SMALL, full_epochs=3, average=0.9, batch_size=100).fit(split.interactions)
    assert len(steps) % 3 == 0
    assert steps == list(range(len(steps)))


def test_what_validates_is_the_average_and_not_the_last_step(split, monkeypatch):
    seen, close = [], Trainer._close_epoch

    def spy(self):
        raw = self.model.h.detach().clone()
        seen.append((raw, self.averaged.values["h"].clone()))
        found = close(self)
        assert torch.equal(self.model.h, raw)
        return found

    def validate(self, model, histories):
        validated.append(model.h.detach().clone())
        return {"NDCG@10": 0.1 * len(validated)}

    validated: list[torch.Tensor] = []
    monkeypatch.setattr(Trainer, "_close_epoch", spy)
    monkeypatch.setattr(Validation, "__call__", validate)
    run = cr.COMET(**SMALL, average=0.9).fit(split).run
    for (raw, average), given in zip(seen, validated, strict=True):
        assert torch.equal(given, average)
        assert not torch.equal(given, raw)
    assert torch.equal(run.state["h"], validated[-1])


def test_each_step_has_a_dropout_of_its_own_that_is_rescaled():
    rng = torch.Generator().manual_seed(0)
    x = torch.ones(20_000)
    first, second = drop(x, 0.2, rng), drop(x, 0.2, rng)
    assert set(first.tolist()) == {0.0, 1.25}
    assert first.mean() == pytest.approx(1, abs=0.02)
    assert not torch.equal(first, second)


def test_the_masks_of_two_steps_differ_and_a_steps_own_come_back(split, monkeypatch):
    monkeypatch.delenv("COMET_VERIFY", raising=False)  # it draws each mask twice
    seeds = []

    def spy(model, batch, config, rng):
        seeds.append(torch.rand(1, generator=rng).item())
        return objective(model, batch, config, rng)

    monkeypatch.setattr(trainer, "objective", spy)
    settings = SMALL | {"batch_size": 200, "full_epochs": 2}
    for _ in range(2):
        cr.COMET(**settings).fit(split.interactions)
    once, again = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
    assert once == again
    assert len(set(once)) == len(once) > 8


@pytest.mark.parametrize(("on", "decays"), [("embeddings", [0.1, 0.0]), ("all", [0.1, 0.1])])
def test_decay_is_of_what_it_is_said_to_be(split, on, decays):
    config = cr.COMET(**SMALL, weight_decay=0.1, decay_on=on).config_for(split.train)
    model = base.build("comet", config.model, 5, 7, 0)
    groups = trainer._optimizer(model, config.train).param_groups
    assert [group["weight_decay"] for group in groups] == decays
    tables = {id(p) for p in (model.user_embedding, model.item_embedding)}
    assert {id(p) for p in groups[0]["params"]} == tables
    assert len(groups[1]["params"]) == len(list(model.parameters())) - 2


def test_of_equal_epochs_the_first_is_kept(split, monkeypatch):
    monkeypatch.setattr(Validation, "figures", lambda *_: {"NDCG@10": 0.2})
    assert cr.COMET(**SMALL, patience=0).fit(split).run.epochs == 1


def test_what_is_kept_is_the_average(split):
    plain, averaged = (
        cr.COMET(**SMALL, full_epochs=3, average=a).fit(split.interactions).run for a in (0.0, 0.9)
    )
    assert not torch.equal(plain.state["h"], averaged.state["h"])
    assert [line["loss"] for line in plain.log] == [line["loss"] for line in averaged.log]


@pytest.fixture(scope="module")
def unbroken():
    """Run that was never stopped, by its averaging; trained once."""

    @cache
    def train(average: float):
        split = cr.leave_one_out(checkerboard_log(), negatives=30)
        return cr.COMET(**SMALL | {"average": average}).fit(split, refit=True).run

    return train


class StopAfter:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("steps", "average"), [(0, 0.0), (3, 0.9), (9, 0.0), (10, 0.0), (25, 0.9), (47, 0.0)]
)
def test_a_stopped_training_goes_on_as_if_it_had_not(split, unbroken, tmp_path, steps, average):
    settings = SMALL | {"average": average}
    whole = unbroken(average)
    folder = tmp_path / "checkpoints"
    with pytest.raises(TrainingInterrupted, match="stopped in epoch"):
        cr.COMET(**settings).fit(
            split, refit=True, hooks=Hooks(stop=StopAfter(steps), checkpoints=folder)
        )
    go_on = Hooks(checkpoints=folder, resume=True)
    resumed = cr.COMET(**settings).fit(split, refit=True, hooks=go_on)
    assert all(torch.equal(whole.state[k], resumed.run.state[k]) for k in whole.state)
    assert all(torch.equal(whole.selected[k], resumed.run.selected[k]) for k in whole.state)
    drop = ("train_seconds",)
    for a, b in zip(whole.log, resumed.run.log, strict=True):
        assert {k: v for k, v in a.items() if k not in drop} == {
            k: v for k, v in b.items() if k not in drop
        }


def test_a_checkpoint_of_other_settings_or_data_is_refused(split, tmp_path, random_log):
    hooks = Hooks(stop=lambda: True, checkpoints=tmp_path)
    with pytest.raises(TrainingInterrupted):
        cr.COMET(**SMALL).fit(split, hooks=hooks)
    go_on = Hooks(checkpoints=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="began with another model, other settings or other data"):
        cr.COMET(**SMALL, seed=1).fit(split, hooks=go_on)
    with pytest.raises(ConfigError, match="began with another model, other settings or other data"):
        cr.COMET(**SMALL).fit(cr.leave_one_out(random_log(40, 50, 9)), hooks=go_on)
    with pytest.raises(ConfigError, match="began with another model, other settings or other data"):
        cr.COMET(**SMALL).fit(split.interactions, hooks=go_on)
    with pytest.raises(ConfigError, match="nothing to resume"):
        cr.COMET(**SMALL).fit(split, hooks=Hooks(checkpoints=tmp_path / "no", resume=True))


def test_validation_stops_it_and_the_best_weights_stay(split):
    run = cr.COMET(**SMALL | {"epochs": 30, "patience": 2}, learning_rate=0.05).fit(split).run
    scores = [line["validation"]["NDCG@10"] for line in run.log]
    assert run.epochs == int(np.argmax(scores)) + 1
    assert len(scores) == run.epochs + 2 < 30


def test_a_loss_that_is_not_finite_names_step_and_tensor(split):
    with pytest.raises(NonFiniteError, match=r"epoch \d+, batch \d+: [a-z_.0-9]+ is not finite"):
        cr.COMET(**SMALL, learning_rate=1e30).fit(split)


def test_background_batches_keep_their_order_and_hand_errors_on():
    assert list(prefetched(iter(range(20)))) == list(range(20))  # type: ignore[arg-type]

    def broken():
        yield 1
        raise ValueError("from the thread")

    source = prefetched(broken())
    assert next(source) == 1
    with pytest.raises(ValueError, match="from the thread"):
        next(source)


def test_a_falling_learning_rate_reaches_zero_and_a_shorter_refit_follows_the_same_line(split):
    config = cr.COMET(**SMALL, schedule="cosine", learning_rate=0.1).config_for(split.train)
    log = split.train
    model = base.build("comet", config.model, log.n_users, log.n_items, 0)
    batches = Batches(log, batch_size=100, negatives=1, histories=model.histories, seed=0)
    training = Trainer(model, batches, config.train, seed=0, device=torch.device("cpu"))
    seen = []
    training.report = lambda _: seen.append(training.optimizer.param_groups[0]["lr"])
    training.run(2)  # of the horizon of 4
    steps = 4 * len(batches)
    rates = [r for i, r in enumerate(seen, 1) if i % (len(batches) + 1)]  # epochs report too
    falling = [0.05 * (1 + math.cos(math.pi * step / steps)) for step in range(2 * len(batches))]
    assert rates == pytest.approx(falling)


def test_precision_of_products_is_for_training_steps_alone(split, monkeypatch):
    seen: dict[str, set[str]] = {"step": set(), "validation": set()}
    plain = torch.set_float32_matmul_precision

    def remember(precision: str) -> None:
        seen["step"].add(precision)
        plain(precision)

    def while_measuring(_stage, progress):
        if progress.finished_epoch:
            seen["validation"].add(torch.get_float32_matmul_precision())

    monkeypatch.setattr(torch, "set_float32_matmul_precision", remember)
    before = torch.get_float32_matmul_precision()
    rough = cr.COMET(**SMALL, matmul_precision="medium")
    rough.fit(split, hooks=Hooks(report=while_measuring))
    assert seen == {"step": {"medium", before}, "validation": {before}}
    assert torch.get_float32_matmul_precision() == before
    exact = cr.COMET(**SMALL).fit(split)
    pairs = zip(rough.run.log, exact.run.log, strict=True)
    for a, b in pairs:
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)


def test_precision_goes_back_when_a_step_fails(split):
    before = torch.get_float32_matmul_precision()
    with pytest.raises(NonFiniteError):
        cr.COMET(**SMALL, matmul_precision="medium", init_scale=1e30).fit(split)
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("repeats", "left", "late"),
    [(0, 4, False), (0, 2, True), (1, 7, True), (1, 10, False), (2, 10, True), (2, 16, False)],
)
def test_an_epoch_begins_only_if_it_and_later_trainings_end_in_time(
    monkeypatch, repeats, left, late
):
    """Two epochs of 2 s and 1 s of validation: the next takes 3 s, a later training 3 · 2 s."""
    monkeypatch.setattr(trainer.time, "monotonic", lambda: 100.0)
    training = object.__new__(Trainer)
    training.deadline, training.repeats, training.state = 100.0 + left, repeats, TrainState(epoch=2)
    training._epoch_seconds = [(2.0, 1.0), (2.0, 1.0)]
    assert training._is_late() == late
    training._epoch_seconds = []  # the first epoch always begins
    assert not training._is_late()

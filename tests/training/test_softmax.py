"""The softmax losses against loops, for every model that allows them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec import precision
from comet_rec.config import TrainConfig
from comet_rec.data.batches import Batch, Batches
from comet_rec.data.histories import Ragged
from comet_rec.errors import ConfigError, TrainingInterrupted
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.models import base
from comet_rec.models.comet import CometConfig
from comet_rec.training import losses as losses_module
from comet_rec.training.checkpoints import Hooks
from comet_rec.training.fit import batches_of
from comet_rec.training.losses import full_softmax, objective, sampled_softmax
from comet_rec.training.trainer import learning_rate
from tests.conftest import fast_form, make_log
from tests.models import reference

SMALL = {"preset": "static", "embedding_dim": 8, "history_length": 8, "hidden": (16,), "epochs": 4}
SHARED = [
    {},
    {"softmax_items": 30, "mask_known_positives": True},
    {"softmax_items": 30, "sampling": "popularity"},
    {"softmax_items": 30, "sampling": "in-batch"},
]
EXACT = {
    "comet": {"history_length": 5, "hidden": (6,), "widths": (1, 3)},
    "mf": {},
    "gmf": {},
    "svdpp": {"exclude_target": False},
    "fism": {"exclude_target": False},
    "sasrec": {"history_length": 5},
}


def fresh(name: str, log, **changes):
    """A model whose parameters are all away from zero."""
    config = base.config_class(name)(embedding_dim=6, **EXACT[name] | changes)
    model = base.build(name, config, log.n_users, log.n_items, 0)
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.5
    return model


def softmax_batch(model, log, items: int, sampling: str = "uniform") -> Batch:
    source = Batches(
        log, batch_size=20, negatives=1, histories=model.histories, seed=0, softmax_items=items,
        sampling=sampling,
    )  # fmt: skip
    return next(source.epoch(0))


@pytest.mark.parametrize("items", [0, 6])
def test_masked_items_are_left_out_of_the_loop(random_log, items):
    log = random_log(12, 15, 5)
    model = fresh("mf", log)
    source = Batches(
        log, batch_size=20, negatives=1, histories=None, seed=0, softmax_items=items,
        mask_known_positives=True,
    )  # fmt: skip
    batch = next(source.epoch(0))
    users, vectors = model.positives_and_items(batch, None)
    scores = (users @ vectors.T).tolist()
    columns = range(15) if items == 0 else batch.shared.columns.tolist()
    weights = [0.0] * 15 if items == 0 else batch.shared.log_weights.tolist()
    loss, left_out = 0.0, 0
    for row, target in enumerate(batch.pair_items.tolist()):
        user = int(batch.users[batch.pair_users[row]])
        total = math.exp(scores[row][target])
        for column, weight in zip(columns, weights, strict=True):
            touched = int(batch.items[column]) in log.items[log.users == user]
            left_out += touched and column != target
            if not touched:
                total += math.exp(scores[row][column] + weight)
        loss += math.log(total) - scores[row][target]
    assert left_out > 0
    config = TrainConfig(
        loss="softmax", softmax_items=items, mask_known_positives=True, reduction="sum"
    )
    found, _ = objective(model, batch, config, None)
    assert found.item() == pytest.approx(loss, rel=1e-4)
    found.backward()  # by differences, one parameter of each kind
    for parameter in (model.user_embedding, model.item_embedding, model.biases.items):
        place = int(parameter.grad.abs().argmax())
        flat = parameter.data.view(-1)
        with torch.no_grad():
            around = []
            for step in (1e-2, -1e-2):
                flat[place] += step
                around.append(objective(model, batch, config, None)[0].item())
                flat[place] -= step
        slope = (around[0] - around[1]) / 2e-2
        assert parameter.grad.view(-1)[place].item() == pytest.approx(slope, rel=2e-2)


def loop_softmax(scores: list[float], target: int) -> float:
    """Cross-entropy of a target, from logits of all items."""
    return math.log(sum(math.exp(x) for x in scores)) - scores[target]


@pytest.mark.parametrize("history", ["sampled", "causal"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_softmax_over_the_catalogue_is_a_loop(random_log, history, reduction):
    log = random_log(12, 9, 5)
    model = fresh("comet", log, history=history)
    batch = softmax_batch(model, log, 0)
    parameters, terms = reference.parameters_of(model), []
    for row, target in zip(batch.pair_users.tolist(), batch.pair_items.tolist(), strict=True):
        user, shown = int(batch.users[row]), batch.user_histories[row].numpy()
        scores = [
            reference.logit(parameters, user, item, shown, batch.item_histories[item].numpy())
            for item in range(9)
        ]
        terms.append(loop_softmax(scores, target))
    config = TrainConfig(loss="softmax", reduction=reduction)
    loss, _ = objective(model, batch, config, None)
    expected = sum(terms) / (len(terms) if reduction == "mean" else 1)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_sampled_softmax_is_a_loop(reduction):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 4), generator=rng)
    own = torch.tensor([0.3, 0.0, -1.0])
    places = torch.tensor([-1, 2, 0])
    own[1:] = logits[[1, 2], places[1:]]
    log_weights = torch.tensor([0.1, -0.5, 1.2, 0.0])
    terms = []
    for row in range(3):
        weighted = [(float(own[row]), 1.0)] + [
            (float(logits[row, c]), math.exp(float(log_weights[c])))
            for c in range(4)
            if c != int(places[row])
        ]
        total = math.log(sum(w * math.exp(x) for x, w in weighted))
        terms.append(total - float(own[row]))
    loss = sampled_softmax(own, logits, log_weights, places, reduction)
    expected = sum(terms) / (3 if reduction == "mean" else 1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("block", [1, 7 * 4 * 2, 10**6])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_blocks_and_a_sample_of_all_items_are_the_softmax_with_its_gradients(
    monkeypatch, block, reduction
):
    monkeypatch.setattr(losses_module, "BLOCK_BYTES", block)
    rng = torch.Generator().manual_seed(0)
    users, items = (torch.randn((n, 3), generator=rng, requires_grad=True) for n in (5, 7))
    targets = torch.tensor([0, 6, 3, 3, 2])
    logits = users @ items.T
    own = logits[torch.arange(5), targets]
    losses = [
        torch.nn.functional.cross_entropy(logits, targets, reduction=reduction),
        full_softmax(users, items, targets, reduction),
        sampled_softmax(own, logits, torch.zeros(7), targets, reduction),
    ]
    expected, *found = (
        (loss, *torch.autograd.grad(3 * loss, (users, items), retain_graph=True)) for loss in losses
    )
    for others in found:
        for a, b in zip(others, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@fast_form
@pytest.mark.parametrize("known", [False, True])
def test_bfloat16_products_change_the_softmax_by_their_rounding(known, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(losses_module, "BLOCK_BYTES", 7 * 70 * 2)  # seven rows
    rng = torch.Generator().manual_seed(0)
    users, items = (torch.randn((n, 16), generator=rng, requires_grad=True) for n in (50, 70))
    targets = torch.randint(0, 70, (50,), generator=rng)
    others = [(targets[row] + 1 + torch.arange(3)) % 70 for row in range(50)]
    masked = Ragged.of_rows([each.numpy() for each in others]) if known else None
    found = []
    for setting in ("highest", "medium"):
        with precision.matmul_precision(setting):
            loss = full_softmax(users, items, targets, "mean", masked)
            found.append((loss.detach(), *torch.autograd.grad(loss, (users, items))))
    assert all(each.dtype == torch.float32 for each in found[1])
    for exact, rough in zip(*found, strict=True):
        assert 0 < (exact - rough).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("setting", ["highest", "medium"])
def test_logits_of_any_size_stay_finite(setting, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    users, items = torch.tensor([[1e3], [-1e3]]), torch.tensor([[1.0], [-1.0]])
    with precision.matmul_precision(setting):
        loss = full_softmax(users, items, torch.tensor([1, 1]), "sum")
    assert loss.item() == pytest.approx(2000.0)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("items", [0, 6])
def test_logits_of_the_shared_items_are_those_of_pairs(random_log, name, items):
    log = random_log(12, 20, 5)
    model = fresh(name, log)
    batch = softmax_batch(model, log, items)
    users, vectors = model.positives_and_items(batch, None)
    columns = torch.arange(20) if batch.shared is None else batch.shared.columns
    wide = len(columns)
    pairs = Batch(
        **vars(batch)
        | {
            "pair_users": batch.pair_users.repeat_interleave(wide),
            "pair_items": columns.repeat(len(batch.pair_users)),
            "labels": torch.zeros(wide * len(batch.pair_users)),
        }
    )
    logits = (users @ vectors[columns].T).flatten()
    torch.testing.assert_close(logits, model(pairs, None), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - set(EXACT)))
def test_models_of_pairs_refuse_it_and_closed_forms_have_no_loss(name):
    why = (
        "is not trained in epochs"
        if base.non_iterative(name)
        else "scores one .user, item. pair at a time"
    )
    with pytest.raises(ConfigError, match=f"{name} {why}"):
        ESTIMATORS[name](loss="softmax")


def test_a_target_left_out_pair_by_pair_refuses_it():
    with pytest.raises(ConfigError, match="the user vector differs for each item"):
        ESTIMATORS["svdpp"](loss="softmax")
    assert ESTIMATORS["svdpp"](loss="softmax", exclude_target=False).name == "svdpp"


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_a_fism_shows_each_positive_its_user_without_it(random_log, alpha):
    """The loss of a batch, and none of its positives' own rows in it, against loops."""
    log = random_log(12, 15, 5)
    model = fresh("fism", log, alpha=alpha, exclude_target=True)
    batches = Batches(
        log, batch_size=99, negatives=1, histories=model.histories, seed=0, softmax_items=0,
        positives_per_user=2,
    )  # fmt: skip
    batch = next(batches.epoch(0))
    config = TrainConfig(loss="softmax", reduction="sum")
    loss, own = objective(model, batch, config, None)
    p, q = model.history_embedding.detach(), model.item_embedding.detach()
    expected = []
    for place, item in zip(batch.pair_users.tolist(), batch.pair_items.tolist(), strict=True):
        user = int(batch.users[place])
        shown = [i for i in log.items[log.users == user].tolist() if i != item]
        vector = p[shown].sum(0) * len(shown) ** -alpha
        bias = model.biases.bias + model.biases.users[user] + model.biases.items
        logits = (q @ vector + bias).detach()
        expected.append(logits.logsumexp(0) - logits[item])
    torch.testing.assert_close(loss.detach(), torch.stack(expected).sum())
    assert len(own) == len(expected)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"mask_known_positives": True},
            'train.mask_known_positives = True needs train.loss = "softmax"',
        ),
        ({"softmax_items": 9}, 'train.softmax_items = 9 needs train.loss = "softmax"'),
        ({"loss": "softmax", "sampling": "popularity"}, "give train.softmax_items"),
        ({"loss": "softmax", "negative_pool": 5}, "samples no negatives"),
        ({"sampling": "in batch"}, "must be one of 'uniform', 'popularity', 'in-batch'"),
        ({"warmup": -1}, "train.warmup = -1.0: must be 0 or above"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        cr.COMET(preset="static", **settings)


def test_settings_that_belong_together_come_in_any_order():
    settings = {"sampling": "popularity", "softmax_items": 9, "loss": "softmax"}
    orders = list(settings), list(settings)[::-1]
    one, other = (cr.COMET(**{name: settings[name] for name in names}) for names in orders)
    log = make_log(np.array([(u, i) for u in range(4) for i in range(5)]))
    assert one.config_for(log) == other.config_for(log)
    assert one.config_for(log).train.softmax_items == 9


@pytest.mark.parametrize(
    ("changes", "history"), [({}, "sampled"), *((changes, "causal") for changes in SHARED)]
)
def test_it_solves_the_checkerboard(checkerboard, changes, history):
    split = cr.leave_one_out(checkerboard, negatives=30)
    model = cr.COMET(
        **SMALL | {"epochs": 10}, batch_size=256, loss="softmax", history=history, patience=0,
        learning_rate=1e-2, **changes,
    ).fit(split)  # fmt: skip
    assert cr.evaluate(model, split)["HR@10"] > 0.6
    assert model.run.log[-1]["loss"] < model.run.log[0]["loss"]


@pytest.mark.parametrize(("sampling", "loss"), [("popularity", "bce"), ("in-batch", "bpr")])
def test_drawn_otherwise_pairs_still_teach(checkerboard, sampling, loss):
    split = cr.leave_one_out(checkerboard, negatives=30)
    model = cr.MF(
        embedding_dim=8, epochs=60, batch_size=256, loss=loss, patience=0, learning_rate=1e-2,
        sampling=sampling,
    ).fit(split)  # fmt: skip
    assert cr.evaluate(model, split)["HR@10"] > 0.6


@pytest.mark.parametrize("changes", SHARED[::2])
def test_a_stopped_training_goes_on_as_if_it_had_not(checkerboard, tmp_path, changes):
    split = cr.leave_one_out(checkerboard, negatives=30)
    settings = SMALL | changes | {"loss": "softmax", "history": "causal"}
    settings |= {"schedule": "cosine", "warmup": 0.5, "gate": "squeeze"}
    whole = cr.COMET(**settings).fit(split).run
    left = iter([False] * 13 + [True])
    hooks = Hooks(stop=lambda: next(left), checkpoints=tmp_path)
    with pytest.raises(TrainingInterrupted):
        cr.COMET(**settings).fit(split, hooks=hooks)
    go_on = Hooks(checkpoints=tmp_path, resume=True)
    resumed = cr.COMET(**settings).fit(split, hooks=go_on).run
    assert all(torch.equal(whole.state[k], resumed.state[k]) for k in whole.state)


@pytest.mark.parametrize(("loss", "nothing"), [("softmax", 80), ("bpr", 2), ("bce", 2)])
def test_a_sum_is_reported_as_the_mean_of_its_terms(checkerboard, loss, nothing):
    split = cr.leave_one_out(checkerboard, negatives=30)
    settings = SMALL | {"epochs": 1, "loss": loss, "learning_rate": 1e-9}
    a, b = (
        cr.COMET(**settings, reduction=r).fit(split).run.log[0]["loss"] for r in ("mean", "sum")
    )
    assert a == pytest.approx(b, rel=1e-5)
    assert a == pytest.approx(math.log(nothing), rel=0.02)  # it knows nothing yet


def test_a_training_on_everything_may_be_longer_than_the_first(checkerboard, monkeypatch):
    """The rate then falls to zero at its own end, and no further."""
    from comet_rec.training import trainer

    seen = []

    def watched(*given):
        seen.append(learning_rate(*given))
        return seen[-1]

    monkeypatch.setattr(trainer, "learning_rate", watched)
    settings = {"schedule": "cosine", "warmup": 0, "epochs": 1, "full_epochs": 3}
    cr.MF(embedding_dim=4, **settings).fit(checkerboard)
    assert len(seen) % 3 == 0
    assert seen == sorted(seen, reverse=True)
    assert 0 < seen[-1] < seen[0]
    beyond = learning_rate(TrainConfig(schedule="cosine", warmup=0), 21, 4, 5)
    assert beyond == pytest.approx(0)


def test_the_learning_rate_follows_its_formula():
    rates = {
        kind: [
            learning_rate(TrainConfig(schedule=kind, warmup=1.5, learning_rate=0.1), s, 4, 5)
            for s in range(20)
        ]
        for kind in ("constant", "cosine")
    }
    for step in range(20):
        rise = min(1.0, (step + 1) / 6)
        assert rates["constant"][step] == pytest.approx(0.1 * rise)
        half = 0.5 + 0.5 * math.cos(math.pi * step / 20)
        assert rates["cosine"][step] == pytest.approx(0.1 * rise * half)
    assert np.argmax(rates["cosine"]) == 5


def test_the_trainer_sets_the_rate_of_each_step(checkerboard):
    from comet_rec.training.trainer import Trainer

    config = cr.COMET(**SMALL, schedule="cosine", warmup=1, learning_rate=0.1).config_for(
        checkerboard
    )
    model = base.build("comet", config.model, 120, 80, 0)
    trainer = Trainer(
        model, batches_of(checkerboard, config, model), config.train, seed=0,
        device=torch.device("cpu"),
    )  # fmt: skip
    seen = []
    trainer.report = lambda p: (
        p.finished_epoch or seen.append(trainer.optimizer.param_groups[0]["lr"])
    )
    trainer.run(2)
    steps = len(trainer.batches)
    assert seen == [learning_rate(config.train, s, steps, 4) for s in range(2 * steps)]


def test_the_defaults_are_the_papers():
    config = CometConfig()
    assert (config.gate, config.towers, config.user_embedding) == ("none", "both", True)
    train = TrainConfig()
    assert (train.loss, train.sampling, train.warmup) == ("bce", "uniform", 0)

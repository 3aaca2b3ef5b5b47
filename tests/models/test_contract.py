"""Contracts that every registered model keeps, by the Protocols that it declares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import comet_rec as cr
from comet_rec.data.arrays import Array
from comet_rec.data.batches import Batches
from comet_rec.data.histories import input_histories
from comet_rec.errors import ConfigError, UnknownIdError
from comet_rec.estimators import registry
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.evaluation.scoring import VectorScores, all_vectors, run_scores
from comet_rec.models import base
from comet_rec.models.interfaces import (
    FoldIn,
    NonIterative,
    PairScorer,
    Trainable,
    TwoTower,
    follows,
)
from comet_rec.models.kernels.pair_products import pair_products

SMALL = {
    "comet": {"embedding_dim": 8, "history_length": 8, "hidden": (16,)},
    "convncf": {"embedding_dim": 8, "channels": 8, "init_scale": 0.5},
    "mlp": {"embedding_dim": 8, "hidden": (16, 8)},
    "neumf": {"embedding_dim": 8, "hidden": (16, 8)},
    "sasrec": {"embedding_dim": 8, "history_length": 8},
} | {name: {"embedding_dim": 8} for name in ("mf", "gmf", "svdpp", "fism")}
CLOSED = [name for name in base.names() if base.non_iterative(name)]
NEURAL = [name for name in base.names() if name not in CLOSED]
FOLDING = [name for name in base.names() if follows(base.model_class(name), FoldIn)]
LEARNERS = [name for name in base.names() if name not in ("popularity", "random")]


def estimator(name: str, epochs: int = 2, **changes):
    if name in CLOSED:
        return ESTIMATORS[name](**changes)
    common = {"preset": "static", "epochs": epochs, "batch_size": 256}
    return ESTIMATORS[name](**SMALL.get(name, {}) | common | changes)


def fresh(name: str, log, seed: int = 0):
    """A model whose parameters are all away from zero."""
    config = base.config_class(name)(**SMALL.get(name, {}))
    model = base.build(name, config, log.n_users, log.n_items, seed)
    if not isinstance(model, NonIterative):
        rng = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=rng) * 0.3
    return model


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


def test_a_registry_line_is_enough(monkeypatch, random_log):
    """A model that has no class in the registry of estimators."""
    monkeypatch.setitem(base._REGISTRY, "newest", base._REGISTRY["popularity"])
    newest = registry.estimators()["newest"]
    assert len(newest().fit(random_log(6, 9, 4)).recommend(k=2)) > 0


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Settings of `Toy`."""

    embedding_dim: int = 4


class Toy(nn.Module, TwoTower):
    """The least that a model has to write down; the rest are defaults of its Protocols."""

    def __init__(self, config, n_users, n_items, rng):
        super().__init__()
        self.users = nn.Parameter(torch.rand((n_users, config.embedding_dim), generator=rng))
        self.items = nn.Parameter(torch.rand((n_items, config.embedding_dim), generator=rng))

    @staticmethod
    def arrays(config, n_users, n_items):
        sizes = {"users": n_users, "items": n_items}
        return {name: Array(shape=(size, config.embedding_dim)) for name, size in sizes.items()}

    @classmethod
    def vector_dim(cls, config):
        return config.embedding_dim

    @property
    def weight(self):
        return self.users.new_ones(self.users.shape[1])

    def encode_users(self, users, histories=None, rng=None):
        return self.users[users]

    def encode_items(self, items, histories=None, rng=None):
        return self.items[items]

    def forward(self, batch, rng):
        users, items = self.users[batch.users], self.items[batch.items]
        return pair_products(users, items, batch.pair_users, batch.pair_items)

    def embedding_parameters(self):
        return [self.users, self.items]


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_a_new_model_needs_no_more_than_its_protocol_asks(split, tmp_path, monkeypatch, loss):
    monkeypatch.setitem(base._REGISTRY, "toy", (__name__, "Toy", "ToyConfig"))
    monkeypatch.setitem(ESTIMATORS, "toy", registry.estimators()["toy"])
    model = ESTIMATORS["toy"](preset="static", epochs=2, loss=loss).fit(split)
    assert model.run.log[1]["loss"] < model.run.log[0]["loss"]
    model.save(tmp_path / "run")
    assert cr.evaluate(cr.load_model(tmp_path / "run")).to_dict() == cr.evaluate(model).to_dict()
    with pytest.raises(ConfigError, match="cannot fold in new users"):
        model.recommend_for_history([[2, 4, 6]])


@pytest.mark.parametrize("name", base.names())
def test_every_class_follows_one_protocol_of_scores(name):
    model = base.model_class(name)
    kinds = [kind for kind in (TwoTower, PairScorer, NonIterative) if follows(model, kind)]
    assert len(kinds) == 1
    assert follows(model, Trainable) == (kinds != [NonIterative])


def test_every_model_has_an_estimator_and_declares_what_it_is(random_log):
    log = random_log(6, 9, 4)
    assert set(ESTIMATORS) == set(base.names())
    assert {"popularity", "itemknn", "ease", "random"} <= set(CLOSED)
    assert set(SMALL) <= set(NEURAL)
    for name in base.names():
        model = fresh(name, log)
        if name in CLOSED:
            assert isinstance(model, NonIterative)
        else:
            assert isinstance(model, Trainable)
            assert isinstance(model, TwoTower) != isinstance(model, PairScorer)


@pytest.mark.parametrize("name", base.names())
def test_scores_have_their_shapes_and_belong_to_their_pair(name, split):
    scores = run_scores(estimator(name, 1).fit(split).run)
    users = np.array([3, 50, 7])
    items = np.stack([np.random.default_rng(u).permutation(80)[:11] for u in users])
    rows, pairs = scores.score_all(users), scores.score_pairs(users, items)
    assert rows.shape == (3, 80)
    assert rows.dtype == pairs.dtype == np.float32
    np.testing.assert_allclose(pairs, np.take_along_axis(rows, items, 1), rtol=1e-4, atol=1e-5)
    reversed_ = scores.score_pairs(users, items[:, ::-1])
    np.testing.assert_allclose(reversed_[:, ::-1], pairs, rtol=1e-4, atol=1e-5)
    for place, user in enumerate(users):  # a user's row depends on that user alone
        alone = scores.score_all(np.array([user]))
        np.testing.assert_allclose(alone[0], rows[place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", base.names())
def test_the_same_seed_gives_the_same_bits(name, split):
    a, b = (estimator(name).fit(split).run for _ in range(2))
    assert all(torch.equal(a.state[key], b.state[key]) for key in a.state)
    assert a.metrics == b.metrics


@pytest.mark.parametrize("name", base.names())
def test_save_and_load_keep_every_bit(name, split, tmp_path):
    model = estimator(name, 1).fit(split, refit=True)
    model.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    assert type(again) is type(model)
    assert all(torch.equal(again.run.state[key], value) for key, value in model.run.state.items())
    assert cr.evaluate(again).to_dict() == model.run.metrics
    for column in ("item_id", "score"):
        assert np.array_equal(model.recommend(k=5)[column], again.recommend(k=5)[column])
    if name not in CLOSED:
        assert all(torch.equal(again.run.selected[k], v) for k, v in model.run.selected.items())


@pytest.mark.parametrize("name", LEARNERS)
def test_it_solves_the_checkerboard(name, split):
    longer = {} if name in CLOSED else {"patience": 0, "learning_rate": 1e-2}
    model = estimator(name, 40, **longer).fit(split)
    report = cr.evaluate(model, split)
    # 24 own-coloured items are unseen, so among 30 negatives about 11 could rank as well.
    assert report["HR@10"] > 0.6
    table = model.recommend(k=5)
    assert np.mean(table["item_id"] % 2 == table["user_id"] % 2) > 0.95
    if name in FOLDING:
        folded = model.recommend_for_history([[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]], k=5)
        assert np.mean(folded["item_id"] % 2 == folded["user_id"] % 2) > 0.9


@pytest.mark.parametrize("name", NEURAL)
def test_the_loss_falls_and_every_parameter_gets_a_gradient(name, split):
    model = estimator(name, 6, learning_rate=1e-2).fit(split)
    assert model.run.log[-1]["loss"] < model.run.log[0]["loss"]
    log = split.train
    module = fresh(name, log)
    batches = Batches(log, batch_size=999, negatives=4, histories=module.histories, seed=0)
    # Weights that differ: the mean of all logits has no gradient towards some parameters.
    logits = module(next(batches.epoch(0)), None)
    (logits * torch.sin(torch.arange(len(logits)))).sum().backward()
    missing = [
        key
        for key, p in module.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert missing == []


@pytest.mark.parametrize("name", NEURAL)
def test_the_two_paths_to_a_score_agree(name, split):
    """Logits of a training batch's negatives, and scores of the same pairs when serving."""
    log = split.train
    module = fresh(name, log)
    settings = module.histories
    batches = Batches(log, batch_size=300, negatives=2, histories=settings, seed=0)
    batch = next(batches.epoch(0))
    if settings is not None:  # what evaluation shows
        users, items = input_histories(log, settings)
        changes = {"user_histories": users[batch.users]}
        if items is not None:
            changes["item_histories"] = items[batch.items]
        batch = batch.__class__(**vars(batch) | changes)
    logits = module(batch, None).detach().numpy()
    if isinstance(module, TwoTower):
        of_users, of_items = input_histories(log, settings)
        matrices = all_vectors(module, of_users, of_items, log.n_users, log.n_items)
        rows = VectorScores(*matrices).score_all(np.arange(log.n_users))
    else:
        everything = torch.arange(log.n_items).expand(log.n_users, -1)
        rows = module.score_pairs(torch.arange(log.n_users), everything).detach().numpy()
    expected = rows[batch.users[batch.pair_users], batch.items[batch.pair_items]]
    negative = batch.labels == 0
    np.testing.assert_allclose(logits[negative], expected[negative], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", base.names())
def test_unknown_ids_are_refused_and_new_users_folded_in_where_that_means_something(name, split):
    model = estimator(name, 1).fit(split)
    with pytest.raises(UnknownIdError, match="unknown user 777"):
        model.recommend([777])
    if name in FOLDING:
        with pytest.raises(UnknownIdError, match="unknown item 777"):
            model.recommend_for_history([[777]])
        table = model.recommend_for_history([[2, 4, 6], [1]], k=3)
        assert table["user_id"].tolist() == [0, 0, 0, 1, 1, 1]
        assert not {2, 4, 6} & set(table["item_id"][:3].tolist())
    else:
        with pytest.raises(ConfigError, match="cannot fold in new users"):
            model.recommend_for_history([[2, 4, 6]])


def test_own_embeddings_alone_fold_nobody_in(split):
    small = {"preset": "original-only", "embedding_dim": 8, "history_length": 6, "epochs": 1}
    with pytest.raises(ConfigError, match="cannot fold in new users"):
        cr.COMET(**small).fit(split).recommend_for_history([[2, 4, 6]])
    beside = cr.COMET(**small, blend_model="fism", blend_embedding_dim=4).fit(split)
    scores = beside.recommend_for_history([[2, 4, 6]], k=5)["score"]
    assert len(set(scores.tolist())) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", base.names())
def test_nothing_is_learnt_where_there_is_nothing_to_learn(name, random_log):
    split = cr.leave_one_out(random_log(1000, 200, 20), negatives=99)
    longer = {"patience": 0, "learning_rate": 5e-3, "batch_size": 2000}
    model = estimator(name, 25, **({} if name in CLOSED else longer)).fit(split)
    report = cr.evaluate(model, split)
    assert abs(report["HR@10"] - 0.1) < 3 * report.sampled_se["HR@10"]


def test_parameters_that_no_memory_holds_are_refused(random_log):
    for size in (10**13, 10**18, 10**19):
        with pytest.raises(ConfigError, match="mf: its parameters do not fit into memory"):
            cr.MF(embedding_dim=size).fit(random_log(6, 9, 4))


@pytest.mark.parametrize("users", [1, 3, 43])
def test_items_of_one_vector_tie_wherever_they_stand(users):
    """In float32 an item at the end of the table has other last bits than one in its middle."""
    rng = torch.Generator().manual_seed(users)
    item = torch.randn(1, 65, generator=rng)
    scores = VectorScores(torch.randn(users, 65, generator=rng), item.repeat(1003, 1))
    rows = scores.score_all(np.arange(users))
    assert (rows == rows[:, :1]).all()
    own = scores.score_pairs(np.arange(users), np.tile(np.arange(1003)[::-1], (users, 1)))
    assert (own == own[:, :1]).all()
    alone = [scores.score_pairs(np.array([u]), np.array([[5]]))[0, 0] for u in range(users)]
    assert np.array_equal(own[:, 0], alone)


def test_a_zero_has_no_sign_and_one_item_is_a_catalogue():
    rng = torch.Generator().manual_seed(0)
    users, item = torch.randn(1, 65, generator=rng), torch.randn(1, 65, generator=rng)
    items = item.repeat(1003, 1)
    items[:, 7] = 0.0
    items[::2, 7] = -0.0
    rows = VectorScores(users, items).score_all(np.array([0]))
    assert (rows == rows[:, :1]).all()
    half = VectorScores(users[:, :4], item[:, :4])  # a view of wider rows
    np.testing.assert_allclose(
        half.score_all(np.array([0])), users[:, :4] @ item[:, :4].T, rtol=1e-4
    )


def test_distinct_vectors_keep_their_scores_beside_equal_ones():
    rng = torch.Generator().manual_seed(0)
    users, items = torch.randn(9, 16, generator=rng), torch.randn(30, 16, generator=rng)
    items[20] = items[3]
    rows = VectorScores(users, items).score_all(np.array([4, 2]))
    np.testing.assert_allclose(rows, users[[4, 2]] @ items.T, rtol=1e-4, atol=1e-5)
    assert (rows[:, 20] == rows[:, 3]).all()

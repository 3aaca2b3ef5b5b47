"""Every neural baseline against its loop reference, and the closed forms against dense numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.data.batches import Batches
from comet_rec.data.histories import Ragged
from comet_rec.errors import CometWarning, ConfigError
from comet_rec.models import base, ease, itemknn
from comet_rec.models.ease import EASE, EASEConfig
from comet_rec.models.itemknn import ItemKNN, ItemKNNConfig
from tests.models import reference

SIZES = {"convncf": {"embedding_dim": 8, "channels": 3}, "mlp": {"hidden": (6, 3)}}
SIZES["neumf"] = SIZES["mlp"]


def build(name: str, log, seed: int = 0, **changes):
    config = base.config_class(name)
    fields = {"embedding_dim": 4, "init_scale": 0.7} | SIZES.get(name, {}) | changes
    model = base.build(name, config(**fields), log.n_users, log.n_items, seed)
    rng = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters():  # biases start at zero: they must count here too
        if parameter.dim() == 1:
            parameter.data = torch.randn(parameter.shape, generator=rng) * 0.3
    return model


@pytest.mark.parametrize("name", sorted(reference.LOGITS))
@pytest.mark.parametrize("seed", [0, 1])
def test_training_logits_equal_the_loop_reference(name, seed, random_log):
    log = random_log(9, 14, 5, seed=seed)
    model = build(name, log, seed)
    batches = Batches(log, batch_size=40, negatives=2, histories=model.histories, seed=seed)
    batch = next(batches.epoch(0))
    logits = model(batch, None).detach().numpy()
    state = {k: v.double().numpy() for k, v in model.state_dict().items()}
    for place, (u, i) in enumerate(zip(batch.pair_users, batch.pair_items, strict=True)):
        user, item = int(batch.users[u]), int(batch.items[i])
        history = [j for j in log.items[log.users == user].tolist() if j != item]
        expected = reference.LOGITS[name](state, user, item, history)
        assert logits[place] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["svdpp", "fism"])
def test_the_target_stays_in_its_history_only_if_asked(name, random_log):
    log = random_log(9, 14, 5)
    found = []
    for exclude in (True, False):
        model = build(name, log, exclude_target=exclude)
        batches = Batches(log, batch_size=40, negatives=2, histories=model.histories, seed=0)
        batch = next(batches.epoch(0))
        observed = batch.labels > 0
        logits = model(batch, None)
        gradient = torch.autograd.grad(logits[observed][0], model.history_embedding)[0]
        target = batch.items[batch.pair_items[observed][0]]
        found.append(bool((gradient[target] != 0).any()))
    assert found == [False, True]


@pytest.mark.parametrize("k", [1, 5, 16, 59])
def test_the_nearest_of_many_alike_are_the_first(k):
    rng = np.random.default_rng(k)
    lengths = np.append(rng.integers(0, 61, 40), 60)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    similar = rng.integers(1, 5, starts[-1]).astype(np.float32)
    wanted = np.zeros(len(similar), dtype=bool)
    for first, last in pairwise(starts):
        order = np.argsort(-similar[first:last], kind="stable")
        wanted[first + order[:k]] = True
    assert np.array_equal(itemknn._nearest(similar, starts, k), wanted)


def test_itemknn_equals_dense_numpy(random_log):
    log = random_log(30, 25, 7)
    model = ItemKNN(ItemKNNConfig(neighbours=6, shrink=2.0), 30, 25, torch.Generator())
    model.fit(log)
    x = log.matrix.toarray().astype(np.float64)
    common = x.T @ x
    norms = np.sqrt(np.diag(common))
    similarity = common / (np.outer(norms, norms) + 2.0)
    np.fill_diagonal(similarity, 0)
    kept = np.zeros_like(similarity)
    for item in range(25):  # column: what item i is scored with
        order = np.sort(similarity[:, item])[::-1]
        nearest = similarity[:, item] >= order[5] - 1e-12
        kept[nearest, item] = similarity[nearest, item]
    found = model.similarity.toarray()
    assert (np.count_nonzero(found, axis=0) <= 6).all()
    chosen = found > 0  # among equally similar items any may be kept
    np.testing.assert_allclose(found[chosen], similarity[chosen], rtol=1e-5)
    np.testing.assert_allclose(np.sort(found, 0)[-6:], np.sort(similarity, 0)[-6:], rtol=1e-5)
    scores = model.score_all(np.arange(30), log.matrix)
    np.testing.assert_allclose(scores, x @ found, rtol=1e-5)


@pytest.mark.parametrize(
    ("users", "cells", "side", "dtype"),
    [
        (30, 12 * 25**2, 25, np.float64),
        (30, 4 * 25**2, 25, np.float32),
        (18, 4 * 25**2 + 8 * 18**2, 18, np.float64),
        (18, 4 * 25**2 + 4 * 18**2, 18, np.float32),
        (18, 4 * 25**2, 25, np.float32),  # users² do not fit beside the weights
    ],
)
@pytest.mark.parametrize("mirrored", [1024, 7])
def test_ease_equals_dense_numpy(random_log, monkeypatch, users, cells, side, dtype, mirrored):
    def inverted(gram, l2, invert=ease._inverted):
        assert gram.dtype == dtype
        assert gram.shape == (side, side)
        inverse = invert(gram, l2)
        assert np.shares_memory(gram, inverse)
        return inverse

    monkeypatch.setattr(ease, "_inverted", inverted)
    monkeypatch.setattr(ease, "MIRRORED", mirrored)
    log = random_log(users, 25, 7)
    config = EASEConfig(l2=3.0, memory_gib=cells / 2**30)
    model = EASE(config, users, 25, torch.Generator())
    model.fit(log)
    x = log.matrix.toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 3.0 * np.eye(25))
    expected = np.eye(25) - inverse / np.diag(inverse)
    np.testing.assert_allclose(model.weights, expected, atol=1e-6)
    assert model.weights.flags.c_contiguous  # else each product copies it
    np.testing.assert_allclose(
        model.score_all(np.arange(users), log.matrix), x @ expected, atol=1e-5
    )


def test_ease_past_its_memory_keeps_the_popular_items_or_refuses(checkerboard):
    memory = 4 * 20**2 / 2**30
    told = r"for 80 items and model.memory_gib = .*: all but the 20 most popular items score 0"
    with pytest.warns(CometWarning, match=told):
        run = cr.EASE(memory_gib=memory).fit(checkerboard).run
    assert len(run.model.items) == 20
    counts = np.bincount(checkerboard.items)
    others = np.setdiff1d(np.arange(80), run.model.items)
    assert counts[run.model.items].min() >= counts[others].max()
    assert not run.model.score_all(np.arange(3), checkerboard.matrix[:3])[:, others].any()
    with pytest.raises(ConfigError, match=r"EASE needs 0\.0 GiB for 80 items"):
        cr.EASE(memory_gib=memory, beyond="error").fit(checkerboard)


def test_neumf_starts_as_the_mean_of_its_sources(random_log):
    log = random_log(9, 14, 5)
    gmf, mlp = build("gmf", log, 1), build("mlp", log, 2)
    model = build("neumf", log, 3, alpha=0.3)
    model.load_state_dict(model.initial_state(gmf=gmf.state_dict(), mlp=mlp.state_dict()))
    batches = Batches(log, batch_size=40, negatives=2, histories=None, seed=0)
    batch = next(batches.epoch(0))
    expected = 0.3 * gmf(batch, None) + 0.7 * mlp(batch, None)
    torch.testing.assert_close(model(batch, None), expected)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: cr.ConvNCF(embedding_dim=48), "must be a power of two"),
        (lambda: cr.ConvNCF(embedding_dim=2), "from 4 on"),
        (lambda: cr.FISM(alpha=1.5), r"model.alpha = 1.5: must lie in \[0, 1\]"),
        (lambda: cr.MLP(hidden=[]), "give at least one layer"),
        (lambda: cr.EASE(beyond="half"), "must be"),
        (lambda: cr.ItemKNN(neighbours=0), "model.neighbours = 0"),
        (lambda: cr.MF(widths=[1]), "unknown setting 'widths'"),
        (lambda: cr.MF(preset="paper-literal"), "reads no history"),
    ],
)
def test_settings_out_of_range_are_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


@pytest.mark.parametrize("name", ["fism", "svdpp"])
def test_full_histories_may_be_padded_rows(name, random_log):
    log = random_log(9, 14, 5)
    model = build(name, log)
    histories = [np.array(row, dtype=np.int64) for row in ([3, 1, 7], [], [0, 13, 2, 5])]
    padded = torch.tensor([[14, 3, 1, 7], [14] * 4, [0, 13, 2, 5]])
    for users in (None, torch.tensor([4, 0, 8])):
        ragged = model.encode_users(users, Ragged.of_rows(histories))
        assert torch.allclose(model.encode_users(users, padded), ragged, atol=1e-6)

"""Explanations and neighbours on planted logs, where the reason and the likeness are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.data.histories import fold_in
from comet_rec.errors import ConfigError, InputError, UnknownIdError
from comet_rec.estimators import explanation
from comet_rec.models.interfaces import TwoTower
from tests.conftest import make_log

SMALL = {"embedding_dim": 16, "history_length": 12, "hidden": (16,), "widths": (1, 4)}
N_PAIRS, N_USERS = 20, 250


def last_pair(user: int) -> int:
    """The pair of which a user has only the even item so far."""
    return int(np.random.default_rng(user).permutation(N_PAIRS)[5])


@pytest.fixture(scope="module")
def log():
    """Item 2p + 1 follows item 2p and nothing else: the reason for an odd item is its even twin."""
    rows = []
    for user in range(N_USERS):
        for pair in np.random.default_rng(user).permutation(N_PAIRS)[:5]:
            rows += [(user, 2 * pair), (user, 2 * pair + 1)]
        rows.append((user, 2 * last_pair(user)))
    return make_log(np.array(rows))


@pytest.fixture(scope="module")
def comet(log):
    model = cr.COMET(
        preset="best", blend_model="none", **SMALL, full_epochs=20, batch_size=256,
        learning_rate=1e-2,
    )  # fmt: skip
    return model.fit(log)


@pytest.fixture(scope="module")
def factors(log):
    """MF after so many epochs that its vectors tell the pairs apart."""
    return cr.MF(embedding_dim=16, full_epochs=60, learning_rate=1e-2, negatives=4).fit(log)


MODELS = {
    "comet": None,
    "blend": lambda: cr.COMET(
        preset="best", **SMALL, full_epochs=4, blend_model="fism", blend_epochs=4
    ),
    "fism": lambda: cr.FISM(embedding_dim=16, full_epochs=40, learning_rate=1e-2, alpha=0.5),
    "svdpp": lambda: cr.SVDpp(embedding_dim=16, full_epochs=4),
    "itemknn": cr.ItemKNN,
    "ease": cr.EASE,
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, log, comet):
    return comet if request.param == "comet" else MODELS[request.param]().fit(log)


def score_without_history(run, user: int, item: int) -> float:
    """Score of a user whose history is empty, by the models themselves."""
    if not isinstance(run.model, TwoTower):
        nothing = 0 * run.known.matrix[np.array([user])]
        return float(run.model.score_all(np.array([user]), nothing)[0, item])
    models = [(run.model, 1.0)]
    if run.blend is not None:
        models.append((run.second_model, run.blend.weight))
    score, column = 0.0, 0
    for module, weight in models:
        histories = fold_in([np.empty(0, np.int64)], module.histories, run.interactions.n_items)
        z_user = (module.encode_users(torch.tensor([user]), histories)[0] * module.weight).detach()
        z_item = run.item_vectors[item, column : column + len(z_user)]
        score += weight * float(z_user.double() @ z_item.double())
        column += len(z_user)
    return score


def test_contributions_add_up_to_the_score(model, log):
    for user, item in ((3, 7), (4, 8)):
        table = model.explain(user, item)
        assert list(table.keys()) == [
            "item_id", "contribution", "rank", "score", "without_history"
        ]  # fmt: skip
        score = float(model.score([user], [item])[0])
        assert table["score"][0] == pytest.approx(score, abs=1e-6)
        difference = score - score_without_history(model.run, user, item)
        assert table["contribution"].sum() == pytest.approx(difference, abs=1e-3)
        assert table["without_history"][0] == pytest.approx(score - difference, abs=1e-3)
        assert set(table["item_id"]) <= set(log.items[log.users == user].tolist())
        assert table["rank"].tolist() == list(range(1, len(table) + 1))
        assert (np.diff(table["contribution"]) <= 0).all()


def test_without_history_is_the_score_of_an_empty_one(log):
    model = cr.FISM(embedding_dim=8, full_epochs=3).fit(log)
    table = model.explain(3, 7)
    biases = model.run.model.biases
    expected = biases.bias + biases.users[3] + biases.items[7]
    assert table["without_history"][0] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("name", ["comet", "itemknn", "ease"])
def test_the_reason_for_an_item_is_its_twin(log, comet, name):
    model = comet if name == "comet" else MODELS[name]().fit(log)
    reasons = []
    for user in range(40):
        even = 2 * last_pair(user)
        reasons.append(model.explain(user, even + 1)["item_id"][0] == even)
    assert np.mean(reasons) > 0.9


def test_twins_are_the_most_similar_items(factors):
    table = factors.similar_items(range(2 * N_PAIRS), k=3)
    best = table["similar_item_id"][table["rank"] == 1]
    assert (best // 2 == np.arange(2 * N_PAIRS) // 2).mean() > 0.9
    assert len(table) == 3 * 2 * N_PAIRS
    assert (table["item_id"] != table["similar_item_id"]).all()
    assert (np.abs(table["similarity"]) <= 1 + 1e-5).all()


def test_similarity_is_the_cosine_without_biases(log):
    model = cr.MF(embedding_dim=8, full_epochs=2).fit(log)
    q = model.run.model.item_embedding.detach().numpy()
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    table = model.similar_items([5], k=4)
    cosines = q @ q[5]
    cosines[5] = -2
    assert table["similar_item_id"].tolist() == np.argsort(-cosines)[:4].tolist()
    np.testing.assert_allclose(table["similarity"], np.sort(cosines)[::-1][:4], atol=1e-5)


def test_similar_users_share_their_items(log, factors):
    table = factors.similar_users([0, 7], k=5)
    assert table["user_id"].tolist() == [0] * 5 + [7] * 5
    shared = []
    for user, other in zip(table["user_id"], table["similar_user_id"], strict=True):
        mine, theirs = (set(log.items[log.users == u].tolist()) for u in (user, other))
        shared.append(len(mine & theirs))
    assert np.mean(shared) > 11 * 11 / 40  # more than two random users share


def test_what_cannot_be_explained_or_compared_is_refused_in_one_line(log, comet):
    with pytest.raises(ConfigError, match="mf reads no history"):
        cr.MF(embedding_dim=4, full_epochs=1).fit(log).explain(0, 1)
    with pytest.raises(ConfigError, match="ease has no vectors to compare"):
        cr.EASE().fit(log).similar_items([0])
    with pytest.raises(UnknownIdError, match="unknown item 999"):
        comet.explain(0, 999)
    with pytest.raises(UnknownIdError, match="unknown user 9999"):
        comet.similar_users([9999])
    with pytest.raises(InputError, match="k = 0"):
        comet.similar_items([1], k=0)


@pytest.mark.parametrize("diversify", [0.3, 0.9])
def test_diverse_lists_hold_items_that_are_less_alike(factors, diversify):
    q = factors.run.model.item_embedding.detach().numpy()
    q = q / np.linalg.norm(q, axis=1, keepdims=True)

    def likeness(table) -> float:
        lists = table["item_id"].reshape(-1, 6)
        cosines = np.einsum("ubk,uck->ubc", q[lists], q[lists])
        return float(cosines[:, ~np.eye(6, dtype=bool)].mean())

    plain = factors.recommend(k=6, include_seen=True)
    diverse = factors.recommend(k=6, include_seen=True, diversify=diversify)
    assert likeness(diverse) < likeness(plain) - 0.05
    first = diverse["rank"] == 1
    assert np.array_equal(diverse["item_id"][first], plain["item_id"][first])
    same = factors.recommend(k=6, include_seen=True, diversify=0)
    assert np.array_equal(same["item_id"], plain["item_id"])


def test_diversity_needs_vectors_and_a_number(log, comet):
    assert len(comet.recommend_for_history([[3, 5]], k=4, diversify=0.5)) == 4
    with pytest.raises(ConfigError, match="ease has no item vectors"):
        cr.EASE().fit(log).recommend([0], diversify=0.5)
    for wrong in (-0.1, 1.5, "much", True):
        with pytest.raises(InputError, match="diversify = "):
            comet.recommend([0], diversify=wrong)


def test_a_new_user_with_the_history_of_a_known_one_gets_the_same_contributions(model, log):
    run = model.run
    history = run.known.items_of(3)
    known = model.explain(3, 7)
    new = model.explain_for_history(log.item_ids.external(history).tolist(), 7)
    assert dict(zip(new["item_id"], new["contribution"], strict=True)) == pytest.approx(
        dict(zip(known["item_id"], known["contribution"], strict=True)), abs=2e-3
    )
    table = model.recommend_for_history([log.item_ids.external(history)], 40, include_seen=True)
    scores = dict(zip(table["item_id"].tolist(), table["score"].tolist(), strict=True))
    assert new["score"][0] == pytest.approx(scores[7], abs=1e-5)


def test_a_wider_tolerance_gives_nearly_the_same_contributions(comet, log):
    items = log.items_of(4)
    narrow = explanation.of_history(comet.run, items, 7)
    wide = explanation.of_history(comet.run, items, 7, tolerance=0.02)
    assert wide.items[:3].tolist() == narrow.items[:3].tolist()
    assert wide.contributions.sum() == pytest.approx(narrow.contributions.sum(), abs=0.021)
    assert wide.score == narrow.score


def test_an_unknown_item_of_a_history_is_refused(comet):
    with pytest.raises(UnknownIdError, match="unknown item 999"):
        comet.explain_for_history([1, 999], 7)

"""Items that a user took after the training: left out of the list, and read by the model."""

from __future__ import annotations

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.errors import UnknownIdError
from comet_rec.estimators import lists
from comet_rec.estimators.rules import Rules
from tests.conftest import make_log, random_pairs

SMALL = {"embedding_dim": 16, "history_length": 6, "hidden": (16,), "widths": (1, 4)}
MODELS = {
    "blend": lambda: cr.COMET(
        preset="best", **SMALL, full_epochs=2, blend_model="fism", blend_epochs=2
    ),
    "fism": lambda: cr.FISM(embedding_dim=16, full_epochs=4),
    "ease": cr.EASE,
}
NONE = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def log():
    return make_log(random_pairs(np.random.default_rng(0), 40, 30, 8), n_items=30)


@pytest.fixture(scope="module", params=MODELS)
def model(request, log):
    return MODELS[request.param]().fit(log)


def asked(run, users, recent, **rules):
    return lists.for_users(run, users, Rules(**rules), recent=recent)


def test_without_recent_items_the_lists_are_those_of_recommend(model):
    found = asked(model.run, [3, 7], [NONE, NONE])
    plain = lists.for_users(model.run, [3, 7], Rules())
    np.testing.assert_array_equal(found.items, plain.items)
    np.testing.assert_array_equal(found.scores, plain.scores)


def test_a_recent_item_leaves_the_list_and_changes_the_scores(model):
    before = lists.for_users(model.run, [3], Rules())
    click = before.items[0, :1]
    found = asked(model.run, [3], [click])
    assert click[0] not in found.items
    kept = {int(item): i for i, item in enumerate(before.items[0])}
    shared = [int(item) for item in found.items[0] if int(item) in kept]
    assert shared
    old = before.scores[0, [kept[item] for item in shared]]
    new = [found.scores[0, list(found.items[0]).index(item)] for item in shared]
    assert not np.allclose(old, new)


def test_a_new_user_with_recent_items_has_the_list_of_that_history(model, log):
    found = asked(model.run, ["9999", 3], [np.array([4, 9]), NONE])
    history = log.item_ids.external([4, 9])
    expected = lists.for_histories(model.run, [history], Rules(), model.device)
    np.testing.assert_array_equal(found.items[0], expected.items[0])
    np.testing.assert_array_equal(found.scores[0], expected.scores[0])
    assert found.users.tolist() == [9999, 3]
    assert not found.popular.any()


def test_recent_items_of_a_known_user_equal_a_retrained_history(log):
    """FISM's user vector is a function of the history alone, so it shows the history read."""
    model = cr.FISM(embedding_dim=16, full_epochs=4).fit(log)
    history = [*log.items_of(5).tolist(), 29]
    assert 29 not in history[:-1]
    found = asked(model.run, log.user_ids.external([5]), [np.array([29])])
    expected = lists.for_histories(
        model.run, [log.item_ids.external(history)], Rules(), model.device
    )
    np.testing.assert_array_equal(found.items, expected.items)


def test_a_model_without_histories_only_leaves_recent_items_out(log):
    model = cr.MF(embedding_dim=8, full_epochs=2).fit(log)
    before = lists.for_users(model.run, log.user_ids.external([5]), Rules(k=5))
    found = asked(model.run, log.user_ids.external([5]), [before.items[0, :1]], k=4)
    np.testing.assert_array_equal(found.items[0], before.items[0, 1:])
    np.testing.assert_array_equal(found.scores[0], before.scores[0, 1:])
    with pytest.raises(UnknownIdError, match="unknown user 9999"):
        asked(model.run, [9999], [np.array([1])])
    popular = asked(model.run, [9999], [np.array([1])], unknown="popular")
    assert popular.popular.tolist() == [True]

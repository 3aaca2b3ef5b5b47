"""Final models: figures of the measured model, weights of every row, lists of new items only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.errors import ConfigError
from comet_rec.estimators.audit import audit_run

SMALL = {"embedding_dim": 8, "history_length": 6, "hidden": (8,), "widths": (1, 4), "epochs": 3}
MODELS = {
    "comet": lambda: cr.COMET(preset="static", **SMALL),
    "blend": lambda: cr.COMET(preset="best", **SMALL, blend_epochs=2),
    "mf": lambda: cr.MF(embedding_dim=8, epochs=3),
    "ease": cr.EASE,
}


@pytest.fixture(scope="module")
def split(random_pairs_log):
    return cr.leave_one_out(random_pairs_log, negatives=30)


@pytest.fixture(scope="module")
def random_pairs_log():
    from tests.conftest import make_log, random_pairs

    return make_log(random_pairs(np.random.default_rng(0), 40, 60, 9))


@pytest.fixture(scope="module", params=MODELS)
def pair(request, split):
    """A measured model and the same one made final."""
    return MODELS[request.param]().fit(split), MODELS[request.param]().fit(split).final()


def test_its_figures_are_those_of_the_measured_model(pair):
    measured, final = pair
    assert final.run.metrics == cr.evaluate(measured).to_dict()
    assert final.run.split.hash == measured.run.split.hash
    with pytest.raises(ConfigError, match="trained once more on every row"):
        cr.evaluate(final)


def test_its_weights_are_those_of_the_two_trainings_by_hand(pair):
    measured, final = pair
    by_hand = type(measured)(**measured.chosen).fit(measured.run.interactions)
    assert final.run.epochs == by_hand.run.epochs
    for name, value in by_hand.run.tensors.items():
        assert torch.equal(final.run.tensors[name], value), name
    assert any(
        not torch.equal(final.run.tensors[name], value)
        for name, value in measured.run.tensors.items()
    )


def test_its_lists_hold_no_item_of_the_log(pair, split):
    measured, final = pair
    log = split.interactions
    seen = set(zip(log.users.tolist(), log.items.tolist(), strict=True))
    table = final.recommend(k=60)
    assert not seen & set(zip(table["user_id"].tolist(), table["item_id"].tolist(), strict=True))
    assert len(table) == 40 * 60 - len(seen)  # all that is left of the catalogue
    open_lists = measured.recommend(k=60)
    assert len(open_lists) == len(table) + len(split.test)  # a measured model lists the test items


def test_it_is_saved_and_read_back(pair, tmp_path):
    _, final = pair
    final.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    assert again.run.final
    assert again.run.metrics == final.run.metrics
    assert [line["stage"] for line in again.run.log][-1].endswith("all")
    assert np.array_equal(again.recommend(k=5)["item_id"], final.recommend(k=5)["item_id"])
    assert again.final() is again  # once is enough
    assert not [f for f in audit_run(again.run) if f.severity == "error"]


def test_what_cannot_be_made_final_is_refused(split):
    log = split.interactions
    with pytest.raises(ConfigError, match="trained on all rows by fit"):
        cr.MF(embedding_dim=4, epochs=1).fit(log).final()
    start = cr.MF(embedding_dim=8, epochs=1).fit(split)
    model = cr.ConvNCF(embedding_dim=8, channels=2, epochs=1).fit(split, init_from=start)
    with pytest.raises(ConfigError, match="started from trained models"):
        model.final()
    model.final(init_from=start.final())
    assert model.run.final

"""Pre-training: what a model may start from, and what it does then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.errors import ConfigError

SMALL = {"embedding_dim": 8, "epochs": 2, "batch_size": 256}


@pytest.fixture
def split(checkerboard):
    return cr.leave_one_out(checkerboard, negatives=30)


def sources(split, **fit):
    return [cr.GMF(**SMALL).fit(split, **fit), cr.MLP(**SMALL, hidden=(8,)).fit(split, **fit)]


def neumf(**changes):
    return cr.NeuMF(**SMALL | {"hidden": (8,), "learning_rate": 1e-9} | changes)


def test_without_steps_worth_the_name_it_is_the_mean_of_its_sources(split):
    gmf, mlp = sources(split)
    model = neumf(epochs=1).fit(split, init_from=[gmf, mlp])
    state = model.run.state
    torch.testing.assert_close(state["gmf.user_embedding"], gmf.run.state["user_embedding"])
    torch.testing.assert_close(state["gmf.h"], gmf.run.state["h"] / 2, rtol=1e-4, atol=1e-6)
    assert [name.split()[0] for name in model.run.started_from] == ["gmf", "mlp"]


def test_under_a_refit_each_stage_starts_from_its_own_stage(split, tmp_path):
    gmf, mlp = sources(split, refit=True)
    gmf.save(tmp_path / "gmf")
    gmf = cr.load_model(tmp_path / "gmf")  # the stage that validation chose is stored too
    model = neumf(epochs=1).fit(split, refit=True, init_from=[gmf, mlp])
    for state, source in ((model.run.selected, gmf.run.selected), (model.run.state, gmf.run.state)):
        torch.testing.assert_close(state["gmf.user_embedding"], source["user_embedding"])
    assert not torch.equal(gmf.run.selected["user_embedding"], gmf.run.state["user_embedding"])


def test_wrong_starts_are_refused(split, random_log):
    gmf, mlp = sources(split)
    with pytest.raises(ConfigError, match="needs one run each of gmf, mlp"):
        neumf().fit(split, init_from=[gmf])
    with pytest.raises(ConfigError, match="it takes none"):
        cr.MF(**SMALL).fit(split, init_from=[gmf])
    other = cr.leave_one_out(random_log(120, 80, 16), negatives=30)
    with pytest.raises(ConfigError, match="trained on another log"):
        neumf().fit(other, init_from=[gmf, mlp])
    moved = replace(split, part=np.roll(split.part, 1))  # the same log, other rows held out
    with pytest.raises(ConfigError, match="trained on another split"):
        neumf().fit(moved, init_from=[gmf, mlp])
    with pytest.raises(ConfigError, match="refit = false"):
        neumf().fit(split, refit=True, init_from=[gmf, mlp])
    with pytest.raises(ConfigError, match="both hold items out, or neither"):
        neumf().fit(split.interactions, init_from=[gmf, mlp])
    with pytest.raises(ConfigError, match="sizes of the pre-trained models differ"):
        neumf(embedding_dim=4).fit(split, init_from=[gmf, mlp])

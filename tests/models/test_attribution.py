"""Parts of a score that the rows of a history give: complete, and equal to finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comet_rec.data.histories import fold_in
from comet_rec.models import base
from comet_rec.models.attribution import integrated_gradients
from comet_rec.models.interfaces import FoldIn, TwoTower, follows

N_USERS, N_ITEMS = 12, 15
HISTORY = np.array([3, 1, 14, 7, 9])
ITEM = 5
CASES = {
    "comet": {"embedding_dim": 8, "history_length": 6, "widths": (1, 3), "hidden": (9,)},
    "comet-gate": {"embedding_dim": 8, "history_length": 6, "widths": (2,), "gate": "squeeze"},
    "comet-permuted": {
        "embedding_dim": 8, "history_length": 5, "widths": (1, 8), "permute_dimensions": True,
    },
    "comet-flat": {"embedding_dim": 8, "history_length": 6, "cross": "mlp", "towers": "user"},
    "fism": {"embedding_dim": 6, "alpha": 0.7},
    "svdpp": {"embedding_dim": 6},
    "sasrec": {"embedding_dim": 6, "history_length": 5},
}  # fmt: skip


def fresh(case: str):
    """A model whose parameters are all away from zero."""
    name = case.split("-")[0]
    config = base.config_class(name)(**CASES[case])
    model = base.build(name, config, N_USERS, N_ITEMS, 0)
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) * 0.5
    return model


def vector(model, history: np.ndarray) -> torch.Tensor:
    """Vector h ⊙ z_u of a new user with this history, float64."""
    histories = fold_in([history], model.histories, N_ITEMS)
    return (model.encode_users(None, histories)[0] * model.weight).detach().double()


def item_vector(model) -> torch.Tensor:
    return torch.linspace(-1, 1, len(model.weight))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [0, 1, 5])
def test_parts_add_up_to_the_score_against_an_empty_history(case, length):
    model, history = fresh(case), HISTORY[:length]
    z_item = item_vector(model)
    parts = model.contributions(history, ITEM, z_item)
    assert parts.shape == (length,)
    assert parts.dtype == np.float64
    difference = (vector(model, history) - vector(model, history[:0])) @ z_item.double()
    assert parts.sum() == pytest.approx(float(difference), abs=1e-3)


def test_parts_of_a_large_score_add_up_to_a_thousandth_too():
    model = fresh("comet")
    z_item = 1000 * item_vector(model)
    parts = model.contributions(HISTORY, ITEM, z_item)
    difference = (vector(model, HISTORY) - vector(model, HISTORY[:0])) @ z_item.double()
    assert abs(difference) > 50
    # The vectors themselves are float32, so the score of the model has an error of its own.
    assert parts.sum() == pytest.approx(float(difference), rel=1e-6, abs=1e-3)


def test_integrated_gradients_are_finite_differences_along_the_way():
    rng = np.random.default_rng(0)
    map_ = torch.from_numpy(rng.normal(size=(4, 3)))
    weights = torch.from_numpy(rng.normal(size=(5, 4, 3)))

    def score(maps):
        return torch.relu((maps[:, None] * weights).sum(dim=(2, 3)) + 0.3).sum(dim=1)

    parts = integrated_gradients(score, map_)
    expected, step, points = np.zeros(4), 1e-5, 20_000
    alphas = (np.arange(points) + 0.5) / points
    for row in range(4):
        only = torch.zeros_like(map_)
        only[row] = map_[row]
        ways = [torch.from_numpy(alphas)[:, None, None] * map_ + s * only for s in (step, -step)]
        above, below = (score(maps) for maps in ways)
        expected[row] = float(((above - below) / (2 * step)).mean())
    np.testing.assert_allclose(parts.numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("case", ["comet", "comet-gate", "comet-flat"])
def test_parts_of_comet_are_finite_differences_of_its_user_vector(case):
    """Each row of the embedding map is moved a little, at many points of the way to the map."""
    model = fresh(case).double()
    z_item = item_vector(model)
    parts = model.contributions(HISTORY, ITEM, z_item)
    step, points = 1e-6, 4_000
    alphas = (np.arange(points) + 0.5) / points
    table = model.item_embedding.data.clone()
    rows = table[torch.from_numpy(HISTORY)]  # [n, K]

    def scores(scales: np.ndarray) -> torch.Tensor:
        """Scores of histories whose rows are multiplied by `scales` [S, n]."""
        maps = torch.from_numpy(scales)[:, :, None] * rows  # [S, n, K]
        padded = torch.full((len(maps), model.config.history_length), maps[..., 0].numel())
        places = torch.arange(maps[..., 0].numel()).view(len(maps), -1)
        padded[:, -len(HISTORY) :] = places
        vectors = model.user_tower(maps.flatten(0, 1), padded)
        return (vectors * model.h) @ z_item.double()

    with torch.no_grad():
        for row in range(len(HISTORY)):
            moved = np.zeros(len(HISTORY))
            moved[row] = step
            slopes = (scores(alphas[:, None] + moved) - scores(alphas[:, None] - moved)) / 2 / step
            assert parts[row] == pytest.approx(float(slopes.mean()), abs=2e-3)


def test_parts_that_never_add_up_are_an_error():
    def jump(maps):  # no gradient sees the jump
        return torch.where(maps.sum(dim=(1, 2)) > 0.5, 3.0, 0.0) + 0 * maps.sum(dim=(1, 2))

    with pytest.raises(ArithmeticError, match="add up to 0, not 3"):
        integrated_gradients(jump, torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("name", ["ease", "itemknn", "popularity"])
def test_non_iterative_models_divide_their_scores_exactly(random_log, name):
    log = random_log(30, 20, 6)
    model = base.build(name, base.config_class(name)(), log.n_users, log.n_items, 0)
    model.fit(log)
    user = np.array([4])
    history = log.items[log.users == 4].astype(np.int64)
    scores = model.score_all(user, log.matrix[user])[0]
    nothing = model.score_all(user, 0 * log.matrix[user])[0]
    for item in (0, 7, 19):
        parts = model.contributions(history, item, None)
        assert parts.sum() == pytest.approx(float(scores[item] - nothing[item]), abs=1e-5)


def test_every_model_that_folds_in_divides_its_scores():
    for name in base.names():
        if follows(base.model_class(name), FoldIn):
            assert base.model_class(name).contributions is not FoldIn.contributions, name
    assert follows(base.model_class("comet"), TwoTower)

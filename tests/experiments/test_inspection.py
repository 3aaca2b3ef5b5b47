"""Pictures of a run: what `inspect` draws, what the drawings hold, and what it says of the rest."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.cli.app import run
from comet_rec.experiments import inspection
from comet_rec.experiments.jobs import position_weights
from comet_rec.experiments.tables import Drawing
from tests.conftest import checkerboard_log

FAST = {"epochs": 1, "embedding_dim": 16}


@pytest.fixture(scope="module")
def split():
    return cr.leave_one_out(checkerboard_log(), negatives=9)


@pytest.fixture(scope="module")
def mf(split):
    return cr.MF(**FAST).fit(split).run


@pytest.fixture(scope="module")
def folder(split, tmp_path_factory):
    """Folder with runs of several models, by name."""
    runs = tmp_path_factory.mktemp("runs")
    models = {
        "paper": cr.COMET(preset="paper", **FAST).fit(split),
        "mlp": cr.COMET(preset="paper", cross="mlp", **FAST).fit(split),
        "user": cr.COMET(preset="paper", towers="user", **FAST).fit(split),
        "mf": cr.MF(**FAST).fit(split),
        "final": cr.MF(**FAST).fit(split).final(),
        "ease": cr.EASE().fit(split.interactions),
    }
    for name, model in models.items():
        model.save(runs / name)
    return runs


def inspect(folder, name, out, *more):
    return run(["inspect", str(folder / name), "--out", str(out), *more])


def drawn(out):
    return sorted(path.stem for path in out.glob("*.png"))


@pytest.mark.parametrize(
    ("name", "tower", "pictures", "said"),
    [
        ("paper", "item", ["groups", "item-kernels", "positions", "similar-items"], ""),
        ("mlp", "user", ["groups", "similar-items"], "model.cross is mlp"),
        ("user", "item", ["groups", "positions", "similar-items"], "has no item tower"),
        ("mf", "user", ["groups", "similar-items"], "the model mf has no filters"),
        ("final", "user", ["similar-items"], "the final weights know the test items"),
    ],
)
def test_inspect_draws_what_a_run_has_and_says_what_it_lacks(
    folder, tmp_path, capsys, name, tower, pictures, said
):
    pytest.importorskip("matplotlib", reason="the extra plot draws the pictures")
    assert inspect(folder, name, tmp_path, "--tower", tower) == 0
    assert drawn(tmp_path) == pictures
    assert len(list(tmp_path.glob("*.svg"))) == len(pictures)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 * len(pictures)
    assert said in err
    assert bool(err) == bool(said)


def test_a_run_with_nothing_to_draw_is_refused(folder, tmp_path, capsys):
    assert inspect(folder, "ease", tmp_path / "out") == 2
    assert "nothing was held out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_position_weights_find_the_position_that_the_filters_weigh_most():
    n, channels = 6, 3
    weights = torch.full((channels, n, 4), 0.1)
    weights[:, -2] = -2.0  # the second-latest row of the map
    found = position_weights({"user_tower.convolution.weights.0": weights}, "user_tower")
    assert list(found) == ["width 4"]
    np.testing.assert_allclose(found["width 4"], [0.1, 0.1, 0.1, 0.1, 2.0, 0.1], rtol=1e-6)
    assert position_weights({}, "user_tower") == {}


def test_positions_are_counted_from_the_latest_row(mf):
    weights = torch.zeros(2, 5, 3)
    weights[:, -1] = 1.0
    drawing = inspection.positions(replace(mf, state={"user_tower.convolution.weights.0": weights}))
    assert isinstance(drawing, Drawing)
    (points,) = drawing.panels["user tower"].values()
    assert points == [(1, 1.0), (2, 0.0), (3, 0.0), (4, 0.0), (5, 0.0)]


def test_similar_items_stand_side_by_side(mf):
    """Vectors of even items point one way, those of odd items another; both with some noise."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.05, mf.item_vectors.shape)
    vectors[np.arange(len(vectors)), np.arange(len(vectors)) % 2] += 1
    planted = replace(mf, item_vectors=torch.from_numpy(vectors.astype(np.float32)))
    drawing = inspection.similar_items(planted)
    assert isinstance(drawing, Drawing)
    colours = [int(name) % 2 for name in drawing.panels[""]["names"]]
    assert len(colours) == inspection.ITEMS_SHOWN
    assert sum(a != b for a, b in pairwise(colours)) == 1
    cosines = np.array(drawing.panels[""]["cosines"])
    np.testing.assert_allclose(np.diag(cosines), 1, rtol=1e-5)
    same = np.equal.outer(colours, colours)
    assert cosines[same].min() > 0.8 > 0.3 > cosines[~same].max()


def test_figures_of_groups_add_up_to_those_of_all_users(mf, split):
    drawing = inspection.figures_by_group(mf)
    assert isinstance(drawing, Drawing)
    report = cr.evaluate(cr.MF(**FAST).fit(split))
    for groups in drawing.panels[""]["panels"].values():
        assert sum(group["users"] for group in groups) == len(split.test)
        for name in inspection.FIGURES:
            total = sum(group["users"] * group["means"][name] for group in groups)
            assert total / len(split.test) == pytest.approx(report.full[name])


def test_groups_are_quarters_and_equal_values_stay_together():
    ones = {"HR@10": np.ones(8)}
    quarters = inspection._quartiles(np.array([1, 2, 3, 4, 5, 6, 7, 8]), ones)
    assert [(row["label"], row["users"]) for row in quarters] == [
        ("1–2", 2), ("3–4", 2), ("5–6", 2), ("7–8", 2),
    ]  # fmt: skip
    tied = inspection._quartiles(np.array([3, 3, 3, 3, 3, 3, 3, 9]), ones)
    assert [(row["label"], row["users"]) for row in tied] == [("3", 7), ("9", 1)]

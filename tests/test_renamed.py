"""Old names of settings, tensors and records: read silently, accepted with a warning."""

from __future__ import annotations

import json
import warnings

import pytest

import comet_rec as cr
from comet_rec import renamed
from comet_rec.config import BlendConfig, Config
from comet_rec.errors import ArtefactError, CometWarning, ConfigError
from comet_rec.models.comet import CometConfig


def test_a_run_of_before_is_loaded_silently_with_its_blend(before):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = cr.load_model(before / "comet")
    config, blend = model.run.config, model.run.blend
    assert config.blend == BlendConfig(model="fism", preset="best", embedding_dim=2)
    assert config.train.mask_known_positives
    assert blend.state["item_embedding"].shape == (model.run.interactions.n_items, 2)
    assert blend.epochs == 1
    assert model.run.chosen["blend.epochs"] == 1
    assert set(blend.selected) == set(blend.state)
    figures = json.loads((before / "comet" / "metrics.json").read_text())
    assert cr.evaluate(model).to_dict()["sampled"] == figures["sampled"]


def test_a_run_of_before_is_saved_by_its_present_names(tmp_path, before):
    model = cr.load_model(before / "comet")
    model.save(tmp_path / "run")
    again = cr.load_model(tmp_path / "run")
    text = (tmp_path / "run" / "config.toml").read_text()
    assert "taste" not in text
    assert '[blend]\nmodel = "fism"' in text
    for name, value in model.run.tensors.items():
        assert again.run.tensors[name].equal(value)
    assert list(again.recommend(k=3)["score"]) == list(model.recommend(k=3)["score"])
    history = [model.run.interactions.item_ids.external([0, 1]).tolist()]
    lists = [m.recommend_for_history(history, k=3)["score"].tolist() for m in (model, again)]
    assert lists[0] == lists[1]


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"taste_dim": 7}, "blend.embedding_dim", 7),
        ({"model.taste_dim": "7"}, "blend.model", "fism"),
        ({"taste_dim": 0, "taste_alpha": 0.9}, "blend.model", "none"),
        ({"taste_dim": 7, "taste_weight": 0.2}, "blend.weight", 0.2),
        ({"leave_out": 0.25}, "model.history_dropout", 0.25),
        ({"model.own_dropout": "0.2"}, "model.id_embedding_dropout", 0.2),
        ({"select_by": "full"}, "train.selection_metric", "full"),
        ({"train.mask_touched": "false"}, "train.mask_known_positives", False),
        ({"activation": "relu"}, "model.history", "causal"),
        ({"train.optimizer": "adam"}, "train.loss", "softmax"),
    ],
)
def test_an_old_name_is_accepted_with_a_warning(given, key, value, random_log):
    with pytest.warns(CometWarning, match=r"is now|was removed"):
        model = cr.COMET(preset="best", **given)
    assert model.config_for(random_log(30, 40, 8)).get(key) == value


def test_a_setting_that_is_gone_takes_no_other_value():
    with pytest.raises(ConfigError, match="activation"):
        cr.COMET(activation="tanh")


def test_an_old_and_a_new_name_for_the_same_setting_are_refused():
    with pytest.raises(ConfigError, match=r"train.select_by and .*selection_metric"):
        cr.MF(**{"train.select_by": "full", "train.selection_metric": "sampled"})


def test_records_are_found_by_the_names_that_they_were_written_with():
    blend = BlendConfig(model="fism", preset="best", embedding_dim=64, alpha=0.7)
    config = Config(
        name="comet", preset="best", model=CometConfig(history_dropout=0.1), blend=blend
    )
    assert config.recorded() == [
        'name = "comet"', 'preset = "best"', "seed = 0", "model.leave_out = 0.1",
        "model.taste_dim = 64", "model.taste_alpha = 0.7", 'model.taste_preset = "best"',
    ]  # fmt: skip


def test_a_tensor_under_its_old_and_its_new_name_is_refused(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    from comet_rec.artefact.folder import digest
    from comet_rec.artefact.untrusted import Members
    from comet_rec.data.arrays import Array

    path = tmp_path / "x.safetensors"
    save_file({"taste_weight": np.zeros(1, "f4"), "blend_weight": np.zeros(1, "f4")}, path)
    with Members(tmp_path) as members:
        members.open({path.name: digest(path)})
        with pytest.raises(ArtefactError, match="stored twice"):
            members[path.name].arrays({"blend_weight": Array(shape=(1,))}, {})


@pytest.mark.parametrize("value", [0, 0.0, "0", "0.0"])
def test_the_value_of_a_removed_setting_still_passes_as_a_number_or_as_text(value):
    with pytest.warns(CometWarning, match="label_smoothing was removed"):
        assert renamed.settings({"train.label_smoothing": value}, warn=True) == {}
    assert renamed.settings({"train.label_smoothing": 0.1}) == {"train.label_smoothing": 0.1}
    assert renamed.settings({"model.activation": "relu"}) == {}

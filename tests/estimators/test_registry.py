"""The estimators' classes: what their signatures say."""

from __future__ import annotations

import inspect

import pytest

import comet_rec as cr
from comet_rec.errors import ConfigError
from comet_rec.estimators.presets import bare
from comet_rec.estimators.registry import DEFAULT, ESTIMATORS


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_setting_of_a_signature_is_taken_and_no_other(name, random_log):
    estimator = ESTIMATORS[name]
    parameters = inspect.signature(estimator).parameters
    assert list(parameters)[:3] == ["preset", "seed", "device"]
    config = estimator().config_for(random_log(20, 30, 6))
    for key, parameter in list(parameters.items())[3:]:
        assert parameter.default is DEFAULT
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        full = next(name for name in config.setting_names() if bare(name) == key)
        assert estimator(**{key: config.get(full)}).config_for(random_log(20, 30, 6)) is not None
    with pytest.raises(ConfigError):
        estimator(no_such_setting=1)


def test_a_signature_shows_the_settings_of_its_own_model():
    comet = inspect.signature(cr.COMET).parameters
    assert {"embedding_dim", "history_dropout", "epochs", "blend_model", "refit"} <= set(comet)
    assert "blend_model" not in inspect.signature(cr.MLP).parameters
    assert "epochs" not in inspect.signature(cr.EASE).parameters
    assert repr(comet["embedding_dim"].default) == "<the preset's>"

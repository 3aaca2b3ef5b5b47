"""Settings as an estimator's caller names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np

from comet_rec import renamed
from comet_rec.config import Config, ProtocolConfig, unknown
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.models.base import check, closed_form
from comet_rec.training import blend

OF_A_SOLUTION = ("train.refit", "train.matmul_precision", "train.select_by")
"""What a model without epochs takes: a table gives every model its precision, a search looks by
`select_by`."""


def bare(key: str) -> str:
    """Name of a dotted key as a keyword: ``epochs``, and ``blend_epochs`` of a blend."""
    room, _, name = key.partition(".")
    return f"blend_{name}" if room == "blend" else name


def dotted(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted keys; bare names are looked up in the model, then in training."""
    names = {f.name: f"train.{f.name}" for f in fields(config.train)}
    names |= {f.name: f"model.{f.name}" for f in fields(config.model)}
    names |= {f"blend_{f.name}": f"blend.{f.name}" for f in fields(config.blend)}
    names |= {key: key for key in config.setting_names()}
    settings = renamed.settings(settings, warn=True)
    for name in settings:
        if name not in names:
            known = [key for key in names if ("." in key) == ("." in name)]
            raise ConfigError(unknown("setting", name, known))
    return {names[name]: value for name, value in settings.items()}


def check_protocol(config: Config, given: Mapping[str, Any], protocol: ProtocolConfig) -> None:
    """Refuse protocol settings that the split at hand was not made with.

    Raises
    ------
    ConfigError
    """
    given_split = protocol.split == "given"
    maker = "given_test" if given_split else "leave_one_out"
    for key in dotted(config, given):
        room, name = key.split(".", 1)
        if room != "protocol" or (given_split and name == "negatives"):  # a file's has its own
            continue
        if config.get(key) != getattr(protocol, name):
            todo = f"give it to {maker}, or to train --set"
            if name == "split":
                todo = "leave it out; --test and given_test take one of your own"
            raise ConfigError(
                f"{key} = {config.get(key)}: the split was made with {getattr(protocol, name)}; "
                f"{todo}"
            )


def applied(plain: Config, settings: Mapping[str, Any]) -> Config:
    """A preset with settings by their callers' names.

    Raises
    ------
    ConfigError
        For settings that are unknown, out of range or not for this model, such as another length
        of training for one that has none.
    """
    given = dotted(plain, settings)
    config = plain.with_settings(given)
    check(config)
    blend.check(config)
    if closed_form(config.name):
        for key in given:
            idle = key.startswith("train.") and key not in OF_A_SOLUTION
            if idle and config.get(key) != plain.get(key):
                raise ConfigError(f"{key}: {config.name} is not trained in epochs; leave it out")
    return config


def check_without_log(config_for: Callable[[Interactions], Config]) -> None:
    """Tell a setting that is wrong for every kind of log, before any data are read."""
    for log in (_NO_LOG, _SHORT_HISTORIES):
        with suppress(ConfigError):
            config_for(log)
            return
    config_for(_ORDERED)


_NO_LOG = Interactions(
    users=np.empty(0, np.int32),
    items=np.empty(0, np.int32),
    times=None,
    time_scope="none",
    user_ids=Ids("int", np.empty(0, np.int64)),
    item_ids=Ids("int", np.empty(0, np.int64)),
)
_ORDERED = replace(_NO_LOG, times=np.empty(0, np.int64), time_scope="per_user")
_SHORT_HISTORIES = replace(_ORDERED, user_ids=Ids("int", np.zeros(1, np.int64)))
"""Presets look at a log's order, and at its rows a user."""

"""Settings as an estimator's caller names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from comet_rec.config import Config, unknown
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError


def dotted(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted keys; bare names are looked up in the model, then in training."""
    names = {f.name: f"train.{f.name}" for f in fields(config.train)}
    names |= {f.name: f"model.{f.name}" for f in fields(config.model)}
    rooms = {"model": config.model, "train": config.train, "protocol": config.protocol}
    names |= {
        key: key for room, p in rooms.items() for key in (f"{room}.{f.name}" for f in fields(p))
    }
    for name in settings:
        if name not in names:
            raise ConfigError(unknown("setting", name, list(names)))
    return {names[name]: value for name, value in settings.items()}


def check_without_log(config_for: Callable[[Interactions], Config]) -> None:
    """Tell a wrong setting before any data are read; a preset may look at the log's order."""
    try:
        config_for(_NO_LOG)
    except ConfigError:
        config_for(replace(_NO_LOG, times=np.empty(0, np.int64), time_scope="per_user"))


_NO_LOG = Interactions(
    users=np.empty(0, np.int32),
    items=np.empty(0, np.int32),
    times=None,
    time_scope="none",
    user_ids=Ids("int", np.empty(0, np.int64)),
    item_ids=Ids("int", np.empty(0, np.int64)),
)

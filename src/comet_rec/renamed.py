"""Old names of renamed settings and tensors, and the names that replace them.

Stored runs and records keep the names of the version that wrote them, and are read without a
warning. A caller who passes an old name gets a warning. Old names are dropped after one release.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from comet_rec.errors import CometWarning, ConfigError

SETTINGS = {
    "model.taste_dim": "blend.embedding_dim",
    "model.taste_alpha": "blend.alpha",
    "model.taste_preset": "blend.preset",
    "model.taste_weight": "blend.weight",
    "model.taste_epochs": "blend.epochs",
    "model.leave_out": "model.history_dropout",
    "model.own_dropout": "model.id_embedding_dropout",
    "train.mask_touched": "train.mask_known_positives",
    "train.select_by": "train.selection_metric",
}
"""Old name of each renamed setting, and its present name."""
GONE: dict[str, str | float] = {
    "model.activation": "relu",
    "model.row_dropout": 0.0,
    "model.sequence_steps": 0.0,
    "train.label_smoothing": 0.0,
    "train.optimizer": "adam",
}
"""Removed settings, and the only value of each that a stored run may have."""
PRESETS = {"blended": "best"}
"""Present name of each renamed preset, and its old name, by which records are stored and hashed.

Records of another preset that has the old name now differ in the digest of their settings.
"""
TENSORS = {"taste_weight": "blend_weight"}
"""Old name of each renamed tensor, and its present name."""
TENSOR_PREFIXES = {"taste.": "blend."}
"""Old prefix of tensor names, and its present form."""
BLEND_SIZE = "model.taste_dim"
"""The old setting that switched the blend on; 0 meant off."""


def settings(given: Mapping[str, Any], *, warn: bool = False) -> dict[str, Any]:
    """The settings in `given` with old names replaced by present ones.

    Keys are dotted (``model.taste_dim``) or bare (``taste_dim``). If `warn` is true, each old name
    gives a warning.

    Raises
    ------
    ConfigError
        When `given` holds the same setting under its old and its present name.
    """
    bare = {old.split(".")[1]: old for old in (*SETTINGS, *GONE)}
    # If the blend was off, its other settings had no effect and are dropped.
    off = any(bare.get(key, key) == BLEND_SIZE and str(given[key]) == "0" for key in given)
    present: dict[str, Any] = {}
    for key, value in given.items():
        old = bare.get(key, key)
        if old in GONE and _equal(value, GONE[old]):
            if warn:
                _warn(f"{key} was removed, {value} is its only value now; leave the setting out")
            continue
        new = SETTINGS.get(old, key)
        if new == key:
            present[key] = value
            continue
        if new in given:
            raise ConfigError(f"{key} and {new}: are the same setting; give {new} alone")
        if old == BLEND_SIZE:
            present["blend.model"] = "none" if off else "fism"
        if not (off and new.startswith("blend.")):
            present[new] = value
        if warn:
            replacement = 'blend.model = "none"' if off and old == BLEND_SIZE else new
            _warn(f"{key} is now {replacement}; the next release drops the old name")
    return present


def _equal(value: Any, removed: str | float) -> bool:
    """Whether `value` is the value of a removed setting; the command line gives numbers as text."""
    if isinstance(removed, str):
        return bool(value == removed)
    try:
        return float(value) == removed
    except (TypeError, ValueError):
        return False


def _warn(message: str) -> None:
    warnings.warn(message, CometWarning, stacklevel=4)


def tensor(name: str) -> str:
    """Present name of a tensor that is stored as `name`."""
    for old, new in TENSOR_PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return TENSORS.get(name, name)

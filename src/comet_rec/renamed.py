"""Names of before: settings and tensors, each with its present name.

Runs on disk and records of finished trainings keep the names that they were written with. Reading
them is silent. A caller who gives an old name is warned; old names go after one release.
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
"""Old setting → present setting."""
GONE = {
    "model.activation": "relu",
    "model.row_dropout": 0.0,
    "train.label_smoothing": 0.0,
    "train.optimizer": "adam",
}
"""Settings that are gone, and the value that runs have: that value still passes."""
TENSORS = {"taste_weight": "blend_weight"}
"""Old tensor → present tensor."""
TENSOR_PREFIXES = {"taste.": "blend."}
"""How the names of tensors began → how they begin."""
BLEND_SIZE = "model.taste_dim"
"""The old setting that switched the blend on; 0 was off."""


def settings(given: Mapping[str, Any], *, warn: bool = False) -> dict[str, Any]:
    """Settings by their present names; `warn` tells the caller of each old one.

    Keys are dotted, as in ``model.taste_dim``, or bare, as in ``taste_dim``.
    """
    bare = {old.split(".")[1]: old for old in (*SETTINGS, *GONE)}
    # Old sizes of a blend that was off meant nothing.
    off = any(bare.get(key, key) == BLEND_SIZE and str(given[key]) == "0" for key in given)
    found: dict[str, Any] = {}
    for key, value in given.items():
        old = bare.get(key, key)
        if old in GONE and value == GONE[old]:
            if warn:
                _warn(f"{key} is gone, it had no other value; leave it out")
            continue
        new = SETTINGS.get(old, key)
        if new == key:
            found[key] = value
            continue
        if new in given:
            raise ConfigError(f"{key} and {new}: are the same setting; give {new} alone")
        if old == BLEND_SIZE:
            found["blend.model"] = "none" if off else "fism"
        if not (off and new.startswith("blend.")):
            found[new] = value
        if warn:
            told = 'blend.model = "none"' if off and old == BLEND_SIZE else new
            _warn(f"{key} is now {told}; the old name goes with the next release")
    return found


def _warn(message: str) -> None:
    warnings.warn(message, CometWarning, stacklevel=4)


def tensor(name: str) -> str:
    """Present name of a stored tensor."""
    for old, new in TENSOR_PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return TENSORS.get(name, name)

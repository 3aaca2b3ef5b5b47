"""Registry of models: the module, the class and the config class for each model name."""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import Tensor

from comet_rec.config import Config, unknown
from comet_rec.data.arrays import Array
from comet_rec.data.batch_parts import Role
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ArtefactError, ConfigError
from comet_rec.models.interfaces import NonIterative, TwoTower, follows

_REGISTRY = {
    "comet": ("comet_rec.models.comet_variants", "CometVariant", "CometConfig"),
    "mf": ("comet_rec.models.mf", "MF", "MFConfig"),
    "gmf": ("comet_rec.models.gmf", "GMF", "GMFConfig"),
    "svdpp": ("comet_rec.models.svdpp", "SVDpp", "SVDppConfig"),
    "fism": ("comet_rec.models.fism", "FISM", "FISMConfig"),
    "mlp": ("comet_rec.models.mlp", "MLP", "MLPConfig"),
    "neumf": ("comet_rec.models.neumf", "NeuMF", "NeuMFConfig"),
    "convncf": ("comet_rec.models.convncf", "ConvNCF", "ConvNCFConfig"),
    "sasrec": ("comet_rec.models.sasrec", "SASRec", "SASRecConfig"),
    "popularity": ("comet_rec.models.popularity", "Popularity", "PopularityConfig"),
    "itemknn": ("comet_rec.models.itemknn", "ItemKNN", "ItemKNNConfig"),
    "ease": ("comet_rec.models.ease", "EASE", "EASEConfig"),
    "random": ("comet_rec.models.random", "Random", "RandomConfig"),
}
"""For each model name: its module, model class and config class. A new model needs one file and one
line here. To offer it as ``comet_rec.NAME``, add a class to `estimators.registry` and the name to
`comet_rec`."""


def names() -> list[str]:
    """Names of all models in the registry."""
    return sorted(_REGISTRY)


def _entry(name: str) -> tuple[str, str, str]:
    if name not in _REGISTRY:
        raise ConfigError(unknown("model", name, names()))
    return _REGISTRY[name]


def config_class(name: str) -> type[Any]:
    """Class of the settings of the model `name`.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    module, _, config = _entry(name)
    settings: type[Any] = getattr(importlib.import_module(module), config)
    return settings


def model_class(name: str) -> type[Any]:
    """Class of the model `name`.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    module, model, _ = _entry(name)
    loaded: type[Any] = getattr(importlib.import_module(module), model)
    return loaded


def non_iterative(name: str) -> bool:
    """Whether the model `name` is fitted in one computation, without epochs."""
    return follows(model_class(name), NonIterative)


def two_tower(name: str) -> bool:
    """Whether the score of the model `name` is an inner product of a user and an item vector."""
    return follows(model_class(name), TwoTower)


def table_roles(model: type[Any], config: Any) -> dict[str, Role]:
    """Parameters with a row for each user, or for each item, and which of the two."""
    # Numbers of users and items that are no other size of a model.
    rows: dict[int, Role] = {1_000_003: "user", 1_000_033: "item"}
    declared: dict[str, Array] = model.arrays(config, *rows)
    for name, array in declared.items():
        odd: set[int | str] = {size for size in array.shape[1:] if size in rows}
        odd |= {size for size in array.shape[:1] if any(0 < abs(int(size) - n) < 9 for n in rows)}
        if odd:
            raise ConfigError(
                f"{name}: a table updated by rows must have a row for each user or item; set "
                'train.table_optimizer to "adam"'
            )
    return {
        name: rows[array.shape[0]]
        for name, array in declared.items()
        if array.shape and array.shape[0] in rows
    }


def table_numbers(config: Config, n_users: int, n_items: int) -> int:
    """How many numbers the embedding tables of a model hold."""
    model = model_class(config.name)
    declared: dict[str, Array] = model.arrays(config.model, n_users, n_items)
    shapes = [declared[name].shape for name in table_roles(model, config.model)]
    return sum(math.prod(int(size) for size in shape) for shape in shapes)


def state_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Expected name, type and shape of each stored parameter of a model with this config."""
    declared: dict[str, Array] = model_class(config.name).arrays(config.model, n_users, n_items)
    return declared


def vector_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Expected type and shape of the stored user and item vectors of a two-tower model.

    The result is empty for models that are no `TwoTower`.
    """
    if not two_tower(config.name):
        return {}
    width = model_class(config.name).vector_dim(config.model)
    return {"users": Array(shape=(n_users, width)), "items": Array(shape=(n_items, width))}


def check(config: Config) -> None:
    """Refuse a softmax loss for a model that does not support it.

    A softmax loss needs one user vector that scores all items (`TwoTower.scores_one_user`).

    Raises
    ------
    ConfigError
    """
    if config.train.loss != "softmax" or non_iterative(config.name):
        return
    if not two_tower(config.name):
        raise ConfigError(
            f'train.loss = "softmax": {config.name} scores one (user, item) pair at a time, '
            "never one user against all items; give bce or bpr"
        )
    if not model_class(config.name).scores_one_user(config.model):
        raise ConfigError(
            f'train.loss = "softmax": {config.name} leaves a pair\'s own item out of N(u), so the '
            "user vector differs for each item; give bce or bpr, or model.exclude_target = false"
        )


def build(name: str, config: Any, n_users: int, n_items: int, seed: int) -> Any:
    """New model `name` with initial parameters drawn from `seed`.

    Raises
    ------
    ConfigError
        For an unknown name, or parameters that do not fit into memory.
    """
    rng = torch.Generator().manual_seed(seed)
    model = model_class(name)
    try:
        return model(config, n_users, n_items, rng)
    except (RuntimeError, MemoryError, TypeError) as error:
        # PyTorch has no special exception for sizes that are too large: check the message.
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "memory" not in text and "overflow" not in text:
            raise
        raise ConfigError(
            f"{name}: its parameters do not fit into memory; make the model.… sizes smaller"
        ) from None


def restored(config: Config, state: dict[str, Tensor], log: Interactions) -> Any:
    """Model with the stored parameters `state`, on the CPU.

    Raises
    ------
    ArtefactError
        When the parameters do not fit the model, e.g. in a run of another version.
    """
    model = build(config.name, config.model, log.n_users, log.n_items, 0)
    # `assign` makes a module use the tensors of the state without copying them.
    options = {} if non_iterative(config.name) else {"assign": True}
    try:
        model.load_state_dict(state, **options)
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ArtefactError(
            f"the parameters are not those of {config.name} in this version ({reason}); train it "
            "again"
        ) from None
    return model

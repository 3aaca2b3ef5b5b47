"""Registry of models: name → module, class, settings."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from comet_rec.config import Config, unknown
from comet_rec.data.arrays import Array
from comet_rec.errors import ConfigError
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
    "popularity": ("comet_rec.models.popularity", "Popularity", "PopularityConfig"),
    "itemknn": ("comet_rec.models.itemknn", "ItemKNN", "ItemKNNConfig"),
    "ease": ("comet_rec.models.ease", "EASE", "EASEConfig"),
    "random": ("comet_rec.models.random", "Random", "RandomConfig"),
}
"""Name → module, model class, config class. A new model is one file and one line here; a class
in `estimators.registry` and a name in `comet_rec` make it ``comet_rec.NAME`` as well."""


def names() -> list[str]:
    """Names of all models."""
    return sorted(_REGISTRY)


def _entry(name: str) -> tuple[str, str, str]:
    if name not in _REGISTRY:
        raise ConfigError(unknown("model", name, names()))
    return _REGISTRY[name]


def config_class(name: str) -> type[Any]:
    """Config dataclass of a model.

    Raises
    ------
    ConfigError
        For an unknown name; the nearest one is named.
    """
    module, _, config = _entry(name)
    settings: type[Any] = getattr(importlib.import_module(module), config)
    return settings


def model_class(name: str) -> type[Any]:
    """Class of a model.

    Raises
    ------
    ConfigError
        For an unknown name; the nearest one is named.
    """
    module, model, _ = _entry(name)
    loaded: type[Any] = getattr(importlib.import_module(module), model)
    return loaded


def non_iterative(name: str) -> bool:
    """Whether a model is fitted once, without epochs."""
    return follows(model_class(name), NonIterative)


def two_tower(name: str) -> bool:
    """Whether a model's score is an inner product of a user's vector and an item's."""
    return follows(model_class(name), TwoTower)


def state_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Arrays of the state of a model with this config, from settings and sizes alone."""
    declared: dict[str, Array] = model_class(config.name).arrays(config.model, n_users, n_items)
    return declared


def vector_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """Arrays of the vectors of a two-tower model; other models have none."""
    if not two_tower(config.name):
        return {}
    width = model_class(config.name).vector_dim(config.model)
    return {"users": Array(shape=(n_users, width)), "items": Array(shape=(n_items, width))}


def check(config: Config) -> None:
    """Refuse a loss that does not suit the model.

    Raises
    ------
    ConfigError
        For a softmax, when the model's training logits are not inner products of one vector per
        user with all items.
    """
    if config.train.loss != "softmax" or non_iterative(config.name):
        return
    if not two_tower(config.name):
        raise ConfigError(
            f'train.loss = "softmax": {config.name} scores a pair at a time, never one user '
            "against all items; take bce or bpr"
        )
    if not model_class(config.name).scores_one_user(config.model):
        raise ConfigError(
            f'train.loss = "softmax": {config.name} leaves a pair\'s own item out of N(u): '
            "each item sees another user; take bce or bpr, or model.exclude_target = false"
        )


def build(name: str, config: Any, n_users: int, n_items: int, seed: int) -> Any:
    """Model with freshly drawn parameters, a function of `seed` alone.

    Raises
    ------
    ConfigError
        For an unknown name, or parameters that no memory holds.
    """
    rng = torch.Generator().manual_seed(seed)
    model = model_class(name)
    try:
        return model(config, n_users, n_items, rng)
    except (RuntimeError, MemoryError, TypeError) as error:
        # PyTorch has no exception of its own for sizes that it cannot allocate or even count.
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "memory" not in text and "overflow" not in text:
            raise
        raise ConfigError(
            f"{name}: its parameters do not fit into memory; make the model.… sizes smaller"
        ) from None

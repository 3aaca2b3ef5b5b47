"""Registry of models: name → module, class, settings; and batches as tensors."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comet_rec.config import Config, unknown
from comet_rec.data.arrays import Array
from comet_rec.data.bags import Bags
from comet_rec.data.batches import Batch, Shared
from comet_rec.errors import ConfigError
from comet_rec.models.interfaces import NonIterative, TwoTower, follows


@dataclass(frozen=True)
class TensorBags:
    """`Bags` on a device: int64 members [R] and starts [U + 1]."""

    members: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def owners(self) -> Tensor:
        """Number of the bag that each member is in, int64 [R]."""
        return torch.arange(len(self), device=self.starts.device).repeat_interleave(self.counts)

    def __getitem__(self, part: slice) -> TensorBags:
        """Neighbouring bags."""
        starts = self.starts[part.start : part.stop + 1]
        return TensorBags(self.members[starts[0] : starts[-1]], starts - starts[0])

    @property
    def counts(self) -> Tensor:
        """Members of each bag, int64 [U]."""
        return self.starts.diff()


@dataclass(frozen=True)
class TensorShared:
    """`Shared` on a device; shapes as there."""

    columns: Tensor
    log_weights: Tensor
    own: Tensor


@dataclass(frozen=True)
class TensorBatch:
    """A `Batch` on the model's device; shapes as there, indices int64."""

    users: Tensor
    items: Tensor
    user_histories: Tensor | TensorBags | None
    item_histories: Tensor | None
    pair_users: Tensor
    pair_items: Tensor
    labels: Tensor
    groups: Tensor
    shared: TensorShared | None = None
    masked: TensorBags | None = None

    @staticmethod
    def of(batch: Batch, device: torch.device) -> TensorBatch:
        """Move a batch's arrays to a device."""
        return TensorBatch(
            on_device(batch.users, device),
            on_device(batch.items, device),
            on_device(batch.user_histories, device),
            on_device(batch.item_histories, device),
            on_device(batch.pair_users, device),
            on_device(batch.pair_items, device),
            on_device(batch.labels, device),
            on_device(batch.groups, device),
            on_device(batch.shared, device),
            on_device(batch.masked, device),
        )


def on_device(array: Any, device: torch.device) -> Any:
    """Array, bags, shared items or None as tensors on a device."""
    if array is None:
        return None
    if isinstance(array, Shared):
        parts = (array.columns, array.log_weights, array.own)
        return TensorShared(*(on_device(part, device) for part in parts))
    if isinstance(array, Bags):
        return TensorBags(on_device(array.members, device), on_device(array.starts, device))
    return torch.from_numpy(array).to(device)


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

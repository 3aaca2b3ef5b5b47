"""What a model is to the rest of the house: Protocols, and the registry of names."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from comet_rec.config import Config, unknown
from comet_rec.data.arrays import Array
from comet_rec.data.bags import Bags, Views
from comet_rec.data.batches import Batch, Shared
from comet_rec.data.histories import HistorySettings
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


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
class TensorViews:
    """`Views` on a device: cut histories [U, N], and whole ones."""

    cut: Tensor
    whole: TensorBags


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
    """Array, bags, views, shared items or None as tensors on a device."""
    if array is None:
        return None
    if isinstance(array, Views):
        return TensorViews(on_device(array.cut, device), on_device(array.whole, device))
    if isinstance(array, Shared):
        parts = (array.columns, array.log_weights, array.own)
        return TensorShared(*(on_device(part, device) for part in parts))
    if isinstance(array, Bags):
        return TensorBags(on_device(array.members, device), on_device(array.starts, device))
    return torch.from_numpy(array).to(device)


class Stored(Protocol):
    """What every model class says of its state, so that a stored one is checked before use."""

    @staticmethod
    def arrays(config: Any, n_users: int, n_items: int) -> dict[str, Array]:
        """Arrays of `state_dict` by name, from the settings and sizes alone."""


@runtime_checkable
class Trainable(Protocol):
    """A torch module that the trainer drives with batches."""

    @property
    def histories(self) -> HistorySettings | None:
        """What the model wants to see of histories; None for nothing."""

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's pairs; `rng` draws dropout, None switches it off."""

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Tables with a row per user or item (what ``decay_on = "embeddings"`` decays)."""


@runtime_checkable
class TwoTower(Protocol):
    """A model whose logit is ``(weight ⊙ z_u) · z_i`` (Eq. 8 separates)."""

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Int[Tensor, "U N"] | TensorBags | None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U K"]:
        """z_u of users with these histories; `users` None stands for users never seen."""

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Int[Tensor, "I N"] | None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I K"]:
        """z_i of items with these histories."""

    @property
    def weight(self) -> Float[Tensor, " K"]:
        """Weight of each dimension in the inner product, h."""

    @staticmethod
    def vector_dim(config: Any) -> int:
        """Number of these dimensions, from the settings alone."""


@runtime_checkable
class PairScorer(Protocol):
    """A model that scores pairs; nothing cheaper than the pair itself exists."""

    def score(self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Logits of each user's own items, without dropout."""


@runtime_checkable
class ClosedForm(Protocol):
    """A model without epochs or gradients."""

    folds_in: bool

    def fit(self, log: Interactions) -> None:
        """Compute the state from the rows that may be known."""

    def score(self, users: npt.NDArray[np.int64], histories: csr_array) -> npt.NDArray[np.float32]:
        """Scores of all items [B, n], from users' indices and known rows [B, n]."""

    def state_dict(self) -> dict[str, Tensor]:
        """State as named tensors."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state."""


_REGISTRY = {
    "comet": ("comet_rec.models.comet", "COMET", "CometConfig"),
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
    found: type[Any] = getattr(importlib.import_module(module), config)
    return found


def model_class(name: str) -> type[Any]:
    """Class of a model.

    Raises
    ------
    ConfigError
        For an unknown name; the nearest one is named.
    """
    module, model, _ = _entry(name)
    found: type[Any] = getattr(importlib.import_module(module), model)
    return found


def closed_form(name: str) -> bool:
    """Whether a model is fitted at once, without epochs."""
    return not issubclass(model_class(name), nn.Module)


def state_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """What the state of a model with this config must be; nothing is allocated."""
    found: dict[str, Array] = model_class(config.name).arrays(config.model, n_users, n_items)
    return found


def vector_arrays(config: Config, n_users: int, n_items: int) -> dict[str, Array]:
    """What the vectors of a two-tower model must be; of other models there are none."""
    found = model_class(config.name)
    if not hasattr(found, "vector_dim"):
        return {}
    width = found.vector_dim(config.model)
    return {"users": Array(shape=(n_users, width)), "items": Array(shape=(n_items, width))}


def check(config: Config) -> None:
    """Refuse a loss that a model's training scores do not allow.

    Raises
    ------
    ConfigError
        When the loss is a softmax and the model is trained on pairs that are no inner product of
        a user's vector and an item's.
    """
    if config.train.loss != "softmax" or closed_form(config.name):
        return
    found = model_class(config.name)
    if not hasattr(found, "encode_users"):
        raise ConfigError(
            f'train.loss = "softmax": {config.name} scores a pair at a time, never one user '
            "against all items; take bce or bpr"
        )
    if getattr(found, "leaves_out_by_pair", False) and config.model.exclude_target:
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
        said = str(error).lower()
        if not isinstance(error, MemoryError) and "memory" not in said and "overflow" not in said:
            raise
        raise ConfigError(
            f"{name}: its parameters do not fit into memory; make the model.… sizes smaller"
        ) from None

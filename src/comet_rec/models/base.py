"""What a model is to the rest of the house: Protocols, and the registry of names."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from comet_rec.config import unknown
from comet_rec.data.batches import Batch
from comet_rec.data.histories import HistorySettings
from comet_rec.errors import ConfigError

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True)
class TensorBatch:
    """A `Batch` on the model's device; shapes as there, indices int64."""

    users: Tensor
    items: Tensor
    user_histories: Tensor | None
    item_histories: Tensor | None
    pair_users: Tensor
    pair_items: Tensor
    labels: Tensor

    @staticmethod
    def of(batch: Batch, device: torch.device) -> TensorBatch:
        """Move a batch's arrays to a device."""

        def move(array: Any) -> Any:
            return None if array is None else torch.from_numpy(array).to(device)

        return TensorBatch(
            move(batch.users),
            move(batch.items),
            move(batch.user_histories),
            move(batch.item_histories),
            move(batch.pair_users),
            move(batch.pair_items),
            move(batch.labels),
        )


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
        histories: Int[Tensor, "U N"] | None,
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


_REGISTRY = {"comet": ("comet_rec.models.comet", "COMET", "CometConfig")}
"""Name → module, model class, config class. A new model is one file and one line here."""


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


def build(name: str, config: Any, n_users: int, n_items: int, seed: int) -> Any:
    """Model with freshly drawn parameters, a function of `seed` alone.

    Raises
    ------
    ConfigError
        For an unknown name.
    """
    module, model, _ = _entry(name)
    rng = torch.Generator().manual_seed(seed)
    return getattr(importlib.import_module(module), model)(config, n_users, n_items, rng)

"""Interfaces of models: Protocols with all attributes and methods that other packages use.

A model class inherits from its Protocols, after `torch.nn.Module` if it is one, and so gets their
defaults. Other code uses declared attributes or ``isinstance``, never `hasattr`.

| Protocol | methods and attributes for | models |
|---|---|---|
| `Model` | stored arrays, input histories, initialisation from pre-trained models | all |
| `Scorer` | scores of known users, for all items or for chosen pairs | trained models |
| `Trainable` | logits of training batches, from a torch module | neural models |
| `TwoTower` | vectors with a weighted inner product | COMET, SASRec, MF, SVD++, GMF, FISM |
| `PairScorer` | logits that must be computed pair by pair | MLP, NeuMF, ConvNCF |
| `NonIterative` | fitting in one computation, without epochs | Popularity, ItemKNN, EASE, Random |
| `FoldIn` | scores of new users | COMET, SASRec, SVD++, FISM, ItemKNN, EASE, Popularity |
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from comet_rec.data.arrays import Array
from comet_rec.data.histories import HistorySettings
from comet_rec.data.interactions import Interactions

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@runtime_checkable
class Scorer(Protocol):
    """Scores of users of the training log, for evaluation and recommendation lists."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items for each user index in `users`, [B, I]."""

    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores [B, C]: row b of `items` [B, C] holds the items to score for user ``users[b]``."""


@runtime_checkable
class Model(Protocol):
    """Attributes and methods that every class in the registry of models has.

    A model is built as ``Class(config, n_users, n_items, rng)``.
    """

    full_ranking_users: ClassVar[int | None] = None
    """Number of test users in the full ranking of a model that is slow to score; None means all."""

    @staticmethod
    def arrays(config: Any, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""

    @classmethod
    def sources(cls, config: Any) -> tuple[str, ...]:
        """Names of the pre-trained models that `initial_state` needs; an empty tuple for none."""
        return ()

    @property
    def histories(self) -> HistorySettings | None:
        """Settings of the histories that the model reads; None if it reads none."""
        return None

    @property
    def folds_in(self) -> bool:
        """Whether the model can score users that were not in training, from their histories."""
        return False

    def initial_state(self, **states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Initial parameters, computed from the parameters of pre-trained models.

        `states` has one argument for each name in `sources`, e.g. ``initial_state(gmf=…, mlp=…)``.
        """
        raise TypeError(f"{type(self).__name__} cannot be initialised from another model")


class FoldIn(Model, Protocol):
    """A model that can score users who were not in training, from their histories alone.

    A model that is also a `TwoTower` encodes such users with ``encode_users(None, histories)``. A
    model that is also `NonIterative` gets their histories in `score_all`.
    """

    @property
    def folds_in(self) -> bool:
        """Whether the model can score users that were not in training, from their histories."""
        return True

    def contributions(
        self,
        history: Int64,
        item: int,
        z_item: Tensor | None,
        tolerance: float = 5e-4,
    ) -> npt.NDArray[np.float64]:
        """How much each item of a history contributes to the score of `item`, float64 [n].

        The contributions add up to the score with this history minus the score with an empty
        history.

        Parameters
        ----------
        history : int64 [n]
            Distinct items of the history, oldest first, not more than the model reads.
        item : int
            The item whose score is explained.
        z_item : Tensor [W] or None
            The item's vector; None for models without vectors.
        tolerance : float
            Largest allowed error of the sum. Only COMET's contributions are approximate.
        """
        raise TypeError(f"{type(self).__name__} cannot explain a score by the history")


@runtime_checkable
class Trainable(Model, Protocol):
    """A torch module that `training.trainer.Trainer` can train on batches."""

    def forward(self, batch: Any, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's (user, item) pairs; `rng` draws dropout, None switches it off."""

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Embedding tables, with one row per user or item.

        Weight decay applies only to them if `TrainConfig.decay_on` is "embeddings".
        """


@runtime_checkable
class TwoTower(Trainable, Protocol):
    """A model whose logit is a weighted inner product, ``(weight ⊙ z_u) · z_i`` (Eq. 8).

    z_u and z_i are vectors of a user and of an item.
    """

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Any = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """Vectors z_u of users with the given input histories.

        `users` is None for users who were not in training. `rng` draws dropout, None switches
        dropout off.
        """

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Any = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """Vectors z_i of items with the given input histories.

        `items` is None for items that were not in training. `rng` draws dropout, None switches
        dropout off.
        """

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Weight of each dimension in the inner product; COMET and GMF learn it as h."""

    @classmethod
    def vector_dim(cls, config: Any) -> int:
        """Dimensions W of the user and item vectors of a model with this config."""

    @classmethod
    def factor_dim(cls, config: Any) -> int:
        """Number of leading dimensions that are embeddings; the remaining ones hold biases."""
        return cls.vector_dim(config)

    @classmethod
    def scores_one_user(cls, config: Any) -> bool:
        """Whether a training step scores all items with the same vector of a user.

        A softmax loss needs this. It is false for a model that leaves each pair's own item out of
        N(u), because its user vector then differs from item to item.
        """
        return True

    def positives_and_items(
        self, batch: Any, rng: torch.Generator | None
    ) -> tuple[Float[Tensor, "B W"], Float[Tensor, "I W"]]:
        """Vectors for a softmax loss, whose logits are the inner products of their rows.

        The first is h ⊙ z_u of each positive's user, [B, W]. The second is z_i of the batch's
        items, [I, W].
        """
        z_users = self.encode_users(batch.users, batch.user_histories, rng) * self.weight  # [U, W]
        z_items = self.encode_items(batch.items, batch.item_histories, rng)  # [I, W]
        return z_users.index_select(0, batch.pair_users), z_items


@runtime_checkable
class PairScorer(Trainable, Protocol):
    """A model that must compute each (user, item) pair separately: it is no inner product."""

    def score_pairs(
        self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Logits [B, C] without dropout: row b of `items` holds the items for user ``users[b]``."""


@runtime_checkable
class NonIterative(Model, Protocol):
    """A model that is fitted in one computation, without epochs or gradients."""

    def fit(self, log: Interactions) -> None:
        """Compute the model's parameters from the training rows in `log`."""

    def score_all(self, users: Int64, histories: csr_array) -> Float32:
        """Scores of all items for each user, [B, I].

        Row b of the sparse matrix `histories` [B, I] has ones at the items of user ``users[b]``.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """The fitted parameters as named tensors."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore parameters that `state_dict` returned."""


def follows(model: type[Any], interface: type[Any]) -> bool:
    """Whether the class `model` inherits from the Protocol `interface`.

    `issubclass` does not work here, because it refuses Protocols with attributes.
    """
    return interface in model.__mro__

"""Interfaces of models: Protocols with all attributes and methods that other packages use.

A model class inherits from its Protocols, after `torch.nn.Module` if it is one, and so gets their
defaults. Other code uses declared attributes or ``isinstance``, never `hasattr`.

| Protocol | it declares | models |
|---|---|---|
| `Model` | stored arrays, input histories, pre-trained models to start from | all |
| `Scorer` | scores of known users, for all items or for chosen pairs | trained models |
| `Trainable` | a torch module that the trainer drives with batches | neural models |
| `TwoTower` | vectors with the logit as weighted inner product | COMET, MF, SVD++, GMF, FISM |
| `PairScorer` | a logit that is computed for each pair | MLP, NeuMF, ConvNCF |
| `NonIterative` | a fit without epochs | Popularity, ItemKNN, EASE, Random |
| `FoldIn` | scores of users not seen in training | COMET, SVD++, FISM, ItemKNN, EASE, Popularity |
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
    """Scores of known users by a trained model, for evaluation and recommendation lists."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items for each user, [B, I]."""

    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores [B, C] of each user [B] with the items [B, C] in the user's row."""


@runtime_checkable
class Model(Protocol):
    """Attributes and methods that every registered model class declares.

    A model is built as ``Class(config, n_users, n_items, rng)``.
    """

    full_ranking_users: ClassVar[int | None] = None
    """Number of test users in a full ranking, for models with expensive pairs; None means all."""

    @staticmethod
    def arrays(config: Any, n_users: int, n_items: int) -> dict[str, Array]:
        """Declarations of the arrays in `state_dict`; a stored state is checked against them."""

    @classmethod
    def sources(cls, config: Any) -> tuple[str, ...]:
        """Names of pre-trained models that `initial_state` can initialise the parameters from."""
        return ()

    @property
    def histories(self) -> HistorySettings | None:
        """Settings of the model's input histories; None for a model without histories."""
        return None

    @property
    def folds_in(self) -> bool:
        """Whether the model can score users that were not in training."""
        return False

    def initial_state(self, **states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """State for this model from the states of pre-trained models, by their names."""
        raise TypeError(f"{type(self).__name__} starts from no other model")


class FoldIn(Model, Protocol):
    """A model that can score users who were not in training, from their histories alone.

    A `TwoTower` encodes such users with ``encode_users(None, histories)``. A `NonIterative` model
    gets their histories in `score_all`.
    """

    @property
    def folds_in(self) -> bool:
        """Whether the model can score users that were not in training."""
        return True

    def contributions(
        self, history: Int64, item: int, z_item: Tensor | None
    ) -> npt.NDArray[np.float64]:
        """Parts of an item's score that the rows of a history give, float64 [n].

        They add up to the score with this history less the score with an empty one.

        Parameters
        ----------
        history : int64 [n]
            Distinct items in the order of the history; as many as the model reads.
        item : int
        z_item : Tensor [W] or None
            The item's vector; None for models without vectors.
        """
        raise TypeError(f"{type(self).__name__} does not divide a score among the history's rows")


@runtime_checkable
class Trainable(Model, Protocol):
    """A torch module that the trainer drives with batches."""

    def forward(self, batch: Any, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's pairs; `rng` draws dropout, None switches dropout off."""

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Tables with one row per user or item: ``decay_on = "embeddings"`` decays only these."""


@runtime_checkable
class TwoTower(Trainable, Protocol):
    """A model with the logit ``(weight ⊙ z_u) · z_i``, as in Eq. 8."""

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Any = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """Vectors z_u of users with these input histories.

        `users` is None for users who were not in training. `rng` draws dropout, None switches
        dropout off.
        """

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Any = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """Vectors z_i of items with these input histories."""

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Weight h of each dimension in the inner product."""

    @classmethod
    def vector_dim(cls, config: Any) -> int:
        """Number of dimensions W of the vectors."""

    @classmethod
    def factor_dim(cls, config: Any) -> int:
        """Number of leading dimensions that describe a user or an item; the others are biases."""
        return cls.vector_dim(config)

    @classmethod
    def scores_one_user(cls, config: Any) -> bool:
        """Whether training scores all items with the same user vector; a softmax loss needs this.

        A model that leaves each pair's own item out of N(u) has a different vector for each item.
        """
        return True

    def positives_and_items(
        self, batch: Any, rng: torch.Generator | None
    ) -> tuple[Float[Tensor, "B W"], Float[Tensor, "I W"]]:
        """For a softmax: h ⊙ z_u of each positive's user, and z_i of the batch's items."""
        z_users = self.encode_users(batch.users, batch.user_histories, rng) * self.weight  # [U, W]
        z_items = self.encode_items(batch.items, batch.item_histories, rng)  # [I, W]
        return z_users.index_select(0, batch.pair_users), z_items


@runtime_checkable
class PairScorer(Trainable, Protocol):
    """A model that must compute each pair separately, because its logit is no inner product."""

    def score_pairs(
        self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Logits of each user [B] with the items [B, C] in the user's row, without dropout."""


@runtime_checkable
class NonIterative(Model, Protocol):
    """A model that is fitted in one computation, without epochs or gradients."""

    def fit(self, log: Interactions) -> None:
        """Compute the state from the training rows."""

    def score_all(self, users: Int64, histories: csr_array) -> Float32:
        """Scores of all items [B, I], from the indices of users and their histories [B, I]."""

    def state_dict(self) -> dict[str, Tensor]:
        """State as named tensors."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load a state that `state_dict` returned."""


def follows(model: type[Any], interface: type[Any]) -> bool:
    """Whether a model class inherits from a Protocol.

    `issubclass` does not work here, because it refuses Protocols with attributes.
    """
    return interface in model.__mro__

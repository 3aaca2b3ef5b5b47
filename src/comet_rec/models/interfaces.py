"""Everything that other rooms ask of a model, as Protocols with defaults.

A model class inherits from the Protocols that it follows, after `torch.nn.Module` if it is one, and
so gets their defaults. Code elsewhere asks a declared attribute or ``isinstance``, never `hasattr`.

| Protocol | it says | followed by |
|---|---|---|
| `Model` | what is stored, which histories are read, which models it starts from | all |
| `Scorer` | scores of known users: all items, or chosen pairs | trained models |
| `Trainable` | a torch module that the trainer drives with batches | neural models |
| `TwoTower` | vectors whose weighted inner product is the logit | COMET, MF, SVD++, GMF, FISM |
| `PairScorer` | a logit that needs the pair itself | MLP, NeuMF, ConvNCF |
| `NonIterative` | fitted once, without epochs | Popularity, ItemKNN, EASE, Random |
| `FoldIn` | serves users that training never saw | COMET, SVD++, FISM, ItemKNN, EASE, Popularity |
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
    """Scores of known users by a trained model, as evaluation and lists ask for them."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items, [B, I]."""

    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores of each user's own items [B, C], [B, C]."""


@runtime_checkable
class Model(Protocol):
    """Attributes and methods that every registered model class declares.

    A model is built as ``Class(config, n_users, n_items, rng)``.
    """

    full_ranking_users: ClassVar[int | None] = None
    """Test users of a full ranking where pairs are expensive; None for all of them."""

    @staticmethod
    def arrays(config: Any, n_users: int, n_items: int) -> dict[str, Array]:
        """Arrays of `state_dict` by name, from the settings and sizes: checked before use."""

    @classmethod
    def sources(cls, config: Any) -> tuple[str, ...]:
        """Models that the parameters may start from; `initial_state` joins their states."""
        return ()

    @property
    def histories(self) -> HistorySettings | None:
        """Settings of the model's input histories; None without histories."""
        return None

    @property
    def folds_in(self) -> bool:
        """Whether it serves users that training never saw."""
        return False

    def initial_state(self, **states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """State made of trained models' states, given by the names in `sources`."""
        raise TypeError(f"{type(self).__name__} starts from no other model")


class FoldIn(Model, Protocol):
    """A model that serves users it never saw, from their histories alone.

    A `TwoTower` does so by ``encode_users(None, histories)``, a `NonIterative` model by the rows
    that `score_all` is given.
    """

    @property
    def folds_in(self) -> bool:
        """Whether it serves users that training never saw."""
        return True


@runtime_checkable
class Trainable(Model, Protocol):
    """A torch module that the trainer drives with batches."""

    def forward(self, batch: Any, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's pairs; `rng` draws dropout, None switches it off."""

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Tables with a row per user or item (what ``decay_on = "embeddings"`` decays)."""


@runtime_checkable
class TwoTower(Trainable, Protocol):
    """A model whose logit is ``(weight ⊙ z_u) · z_i`` (Eq. 8 separates)."""

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Any = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """z_u of users with these histories, of the form that `histories` asks for.

        `users` None stands for users never seen. `rng` draws dropout, None switches it off.
        """

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Any = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """z_i of items with these histories."""

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Weight of each dimension in the inner product, h."""

    @classmethod
    def vector_dim(cls, config: Any) -> int:
        """Number of these dimensions, from the settings alone."""

    @classmethod
    def scores_one_user(cls, config: Any) -> bool:
        """Whether training scores all items against the same user vector, as a softmax needs."""
        return True

    def positives_and_items(
        self, batch: Any, rng: torch.Generator | None
    ) -> tuple[Float[Tensor, "B W"], Float[Tensor, "I W"]]:
        """Vectors h ⊙ z_u of each positive's user and z_i of the batch's items, for a softmax."""
        z_users = self.encode_users(batch.users, batch.user_histories, rng) * self.weight  # [U, W]
        z_items = self.encode_items(batch.items, batch.item_histories, rng)  # [I, W]
        return z_users.index_select(0, batch.pair_users), z_items


@runtime_checkable
class PairScorer(Trainable, Protocol):
    """A model that scores pairs; nothing cheaper than the pair itself exists."""

    def score_pairs(
        self, users: Int[Tensor, " B"], items: Int[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Logits of each user's own items, without dropout."""


@runtime_checkable
class NonIterative(Model, Protocol):
    """A model without epochs or gradients."""

    def fit(self, log: Interactions) -> None:
        """Compute the state from the rows that may be known."""

    def score_all(self, users: Int64, histories: csr_array) -> Float32:
        """Scores of all items [B, I], from users' indices and known rows [B, I]."""

    def state_dict(self) -> dict[str, Tensor]:
        """State as named tensors."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state."""


def follows(model: type[Any], interface: type[Any]) -> bool:
    """Whether a model class inherits from a Protocol (`issubclass` refuses those with data)."""
    return interface in model.__mro__

"""Latent factor models: the abstract base of MF, SVD++, GMF and FISM, with biases and sums."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.data.arrays import Array, under
from comet_rec.data.batches import Batch
from comet_rec.data.ragged import Ragged
from comet_rec.models.interfaces import TwoTower
from comet_rec.models.kernels.pair_products import pair_products
from comet_rec.models.layers import uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


class LatentFactors(nn.Module, TwoTower):
    """Logit b + b_u + b_i + f_u · q_i; what f_u is made of is the subclass's (`factors_of`).

    Biases are two more columns of the vectors, [f_u, b + b_u, 1] and [q_i, 1, b_i], so the logit is
    a plain inner product of width W = K + 2.

    Parameters
    ----------
    config : dataclass
        With `embedding_dim` and `init_scale`.
    n_users, n_items : int
    rng : torch.Generator
        Draws the tables, in the order of `tables`, uniform in ± `init_scale`; biases start at 0.
    """

    tables: ClassVar[tuple[str, ...]]
    """Parameters [m, K] (``user_embedding``) and [n, K] (all others), in the order of draws."""

    user_embedding: nn.Parameter
    item_embedding: nn.Parameter
    history_embedding: nn.Parameter
    biases: Biases | None

    def __init__(self, config: Any, n_users: int, n_items: int, rng: torch.Generator) -> None:
        super().__init__()
        self.config = config
        for name in self.tables:
            rows = n_users if name == "user_embedding" else n_items
            table = uniform((rows, config.embedding_dim), config.init_scale, rng)
            self.register_parameter(name, table)
        self.biases = Biases(n_users, n_items) if self.has_biases(config) else None

    @classmethod
    def has_biases(cls, config: Any) -> bool:
        """Whether the logit holds b + b_u + b_i."""
        return True

    @classmethod
    def arrays(cls, config: Any, n_users: int, n_items: int) -> dict[str, Array]:
        """Arrays of the state: the tables and the biases."""
        declared = {}
        for name in cls.tables:
            rows = n_users if name == "user_embedding" else n_items
            declared[name] = Array(shape=(rows, config.embedding_dim))
        if cls.has_biases(config):
            declared |= under("biases", Biases.arrays(n_users, n_items))
        return declared

    @classmethod
    def vector_dim(cls, config: Any) -> int:
        """W: the embedding and the two columns of the biases."""
        width: int = config.embedding_dim
        return width + 2 if cls.has_biases(config) else width

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Ones: a plain inner product."""
        return self.item_embedding.new_ones(self.vector_dim(self.config))

    @abstractmethod
    def factors_of(
        self, users: Int[Tensor, " U"] | None, histories: Ragged | None
    ) -> Float[Tensor, "U _"]:
        """f_u of users with these histories, `users` None for users never seen."""

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Ragged | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """[f_u, b + b_u, 1]; without biases f_u."""
        factors = self.factors_of(users, histories)
        return factors if self.biases is None else self.biases.with_users(factors, users)

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """[q_i, 1, b_i]; without biases q_i."""
        items = known(items, "item", self)
        factors = self.item_embedding.index_select(0, items)
        return factors if self.biases is None else self.biases.with_items(factors, items)

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs."""
        histories = batch.user_histories
        assert histories is None or isinstance(histories, Ragged)
        users = self.encode_users(batch.users, histories) * self.weight  # [U, W]
        items = self.encode_items(batch.items)  # [I, W]
        return pair_products(users, items, batch.pair_users, batch.pair_items)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The tables."""
        return [self.get_parameter(name) for name in self.tables]


class Biases(nn.Module):
    """b, b_u and b_i as two more columns of the vectors that an inner product joins."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.users = nn.Parameter(torch.zeros(n_users))
        self.items = nn.Parameter(torch.zeros(n_items))

    @staticmethod
    def arrays(n_users: int, n_items: int) -> dict[str, Array]:
        """Arrays of the state."""
        sizes = {"bias": 1, "users": n_users, "items": n_items}
        return {name: Array(shape=(size,)) for name, size in sizes.items()}

    def with_users(
        self, vectors: Float[Tensor, "U K"], users: Int[Tensor, " U"] | None
    ) -> Float[Tensor, "U W"]:
        """Append b + b_u and 1; users that training never saw have b_u = 0."""
        column = self.bias.expand(len(vectors))  # b + b_u, [U]
        if users is not None:
            column = column + self.users.index_select(0, users)
        return torch.column_stack([vectors, column, torch.ones_like(column)])

    def with_items(
        self, vectors: Float[Tensor, "I K"], items: Int[Tensor, " I"]
    ) -> Float[Tensor, "I W"]:
        """Append 1 and b_i."""
        column = self.items.index_select(0, items)
        return torch.column_stack([vectors, torch.ones_like(column), column])

    def of_pairs(self, batch: Batch) -> Float[Tensor, " P"]:
        """B + b_u + b_i of a batch's pairs."""
        users = self.users.index_select(0, batch.users.index_select(0, batch.pair_users))
        items = self.items.index_select(0, batch.items.index_select(0, batch.pair_items))
        return self.bias + users + items


def known(indices: Tensor | None, role: str, model: nn.Module) -> Tensor:
    """The indices, for a model that has nothing else of a user or item.

    Raises
    ------
    ValueError
        For None, which stands for users or items that training never saw.
    """
    if indices is None:
        name = type(model).__name__
        raise ValueError(f"{name} knows no {role} without its own embedding; give indices")
    return indices


def history_means(
    table: Float[Tensor, "n K"], histories: Ragged, alpha: float
) -> Float[Tensor, "U K"]:
    """|N(u)|^(−α) Σ_{j ∈ N(u)} table[j] of each user."""
    return history_sums(table, histories) * normaliser(histories.counts, alpha)[:, None]


def history_sums(table: Float[Tensor, "n K"], histories: Ragged) -> Float[Tensor, "U K"]:
    """Σ_{j ∈ N(u)} table[j] of each user; zero for an empty history."""
    if len(histories) == 0:
        return table[:0]  # embedding_bag refuses no bags at all
    sums: Tensor = nnf.embedding_bag(
        histories.values, table, histories.starts, mode="sum", include_last_offset=True
    )
    return sums


def normaliser(counts: Tensor, alpha: float) -> Tensor:
    """count^(−α); 0 for an empty history."""
    # The clamp keeps 0^(−α) = ∞ out of the branch that is not taken.
    return torch.where(counts > 0, counts.clamp(min=1).float() ** -alpha, 0.0)


def history_products(
    table: Float[Tensor, "n K"],
    items: Float[Tensor, "I K"],
    batch: Batch,
    alpha: float,
    exclude_target: bool,
) -> Float[Tensor, " P"]:
    """|N|^(−α) Σ_{j ∈ N} table[j] · q_i for each pair, N = N(u), without i where i is in it.

    In training a pair's item is in N(u) exactly where the label is 1.

    Parameters
    ----------
    table : Tensor [n, K]
        The items' second factors.
    items : Tensor [I, K]
        Factors of the batch's items.
    batch : Batch
        With whole histories of its users.
    alpha : float
    exclude_target : bool
        Leave i out of N(u).
    """
    histories = batch.user_histories
    assert isinstance(histories, Ragged)
    sums = history_sums(table, histories)  # [U, K], once a user; the target leaves pair by pair
    products = pair_products(sums, items, batch.pair_users, batch.pair_items)  # [P]
    counts = histories.counts.index_select(0, batch.pair_users)  # [P]
    if exclude_target:
        own = (table.index_select(0, batch.items) * items).sum(dim=1)  # table[i] · q_i, [I]
        products = products - batch.labels * own.index_select(0, batch.pair_items)
        counts = counts - batch.labels.long()
    return products * normaliser(counts, alpha)

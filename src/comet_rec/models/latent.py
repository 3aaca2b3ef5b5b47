"""Common base of the latent factor models MF, SVD++, GMF and FISM, and sums over histories."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.data.arrays import Array, under
from comet_rec.data.batches import Batch
from comet_rec.data.histories import Ragged
from comet_rec.models.interfaces import TwoTower
from comet_rec.models.kernels.cross_features import embedding_maps
from comet_rec.models.kernels.pair_products import pair_products
from comet_rec.models.layers import uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


class LatentFactors(nn.Module, TwoTower):
    """Base class of models with the logit b + b_u + b_i + f_u · q_i; subclasses define f_u.

    The biases are stored as two more columns of the vectors, [f_u, b + b_u, 1] and [q_i, 1, b_i].
    So the logit is a plain inner product of vectors with W = K + 2 dimensions.

    Parameters
    ----------
    config : dataclass
        Settings with `embedding_dim` and `init_scale`.
    n_users, n_items : int
    rng : torch.Generator
        Draws the tables, in the order of `tables`, uniform in ± `init_scale`. Biases start at 0.
    """

    tables: ClassVar[tuple[str, ...]]
    """Names of the embedding tables, in the order in which their initial values are drawn.
    ``user_embedding`` has shape [m, K], all others [n, K]."""

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
        """Whether the logit of a model with this config contains b + b_u + b_i."""
        return True

    @classmethod
    def arrays(cls, config: Any, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        declared = {}
        for name in cls.tables:
            rows = n_users if name == "user_embedding" else n_items
            declared[name] = Array(shape=(rows, config.embedding_dim))
        if cls.has_biases(config):
            declared |= under("biases", Biases.arrays(n_users, n_items))
        return declared

    @classmethod
    def vector_dim(cls, config: Any) -> int:
        """Length W of the user and item vectors: the embedding and two columns for biases."""
        width: int = config.embedding_dim
        return width + 2 if cls.has_biases(config) else width

    @classmethod
    def factor_dim(cls, config: Any) -> int:
        """Size K of the embeddings, without the columns for biases."""
        width: int = config.embedding_dim
        return width

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Vector of ones: all dimensions of an inner product count alike."""
        return self.item_embedding.new_ones(self.vector_dim(self.config))

    @abstractmethod
    def factors_of(
        self, users: Int[Tensor, " U"] | None, histories: Ragged | Int[Tensor, "U L"] | None
    ) -> Float[Tensor, "U _"]:
        """Factors f_u of users; `users` is None for users who were not in training."""

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Ragged | Int[Tensor, "U L"] | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U W"]:
        """Vectors [f_u, b + b_u, 1] of users, or f_u for a model without biases.

        `histories` are ragged, or full rows padded with n. `users` is None for users who were not
        in training. `rng` has no effect, because there is no dropout.
        """
        factors = self.factors_of(users, histories)
        return factors if self.biases is None else self.biases.with_users(factors, users)

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I W"]:
        """Vectors [q_i, 1, b_i] of items, or q_i for a model without biases.

        `histories` and `rng` have no effect: items have no history here, and there is no dropout.
        """
        items = known(items, "item", self)
        factors = self.item_embedding.index_select(0, items)
        return factors if self.biases is None else self.biases.with_items(factors, items)

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's (user, item) pairs; `rng` has no effect without dropout."""
        histories = batch.user_histories
        assert histories is None or isinstance(histories, Ragged)
        users = self.encode_users(batch.users, histories) * self.weight  # [U, W]
        items = self.encode_items(batch.items)  # [I, W]
        return pair_products(users, items, batch.pair_users, batch.pair_items)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """All embedding tables, without the biases."""
        return [self.get_parameter(name) for name in self.tables]


class Biases(nn.Module):
    """Biases b, b_u and b_i, to be appended as two columns to the vectors of an inner product."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.users = nn.Parameter(torch.zeros(n_users))
        self.items = nn.Parameter(torch.zeros(n_items))

    @staticmethod
    def arrays(n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        sizes = {"bias": 1, "users": n_users, "items": n_items}
        return {name: Array(shape=(size,)) for name, size in sizes.items()}

    def with_users(
        self, vectors: Float[Tensor, "U K"], users: Int[Tensor, " U"] | None
    ) -> Float[Tensor, "U W"]:
        """Append the columns b + b_u and 1; users who were not in training have b_u = 0."""
        column = self.bias.expand(vectors.shape[0])  # b + b_u, [U]
        if users is not None:
            column = column + self.users.index_select(0, users)
        return torch.column_stack([vectors, column, torch.ones_like(column)])

    def with_items(
        self, vectors: Float[Tensor, "I K"], items: Int[Tensor, " I"]
    ) -> Float[Tensor, "I W"]:
        """Append the columns 1 and b_i."""
        column = self.items.index_select(0, items)
        return torch.column_stack([vectors, torch.ones_like(column), column])

    def of_pairs(self, batch: Batch) -> Float[Tensor, " P"]:
        """Sum b + b_u + b_i for each (user, item) pair of a batch."""
        users = self.users.index_select(0, batch.users.index_select(0, batch.pair_users))
        items = self.items.index_select(0, batch.items.index_select(0, batch.pair_items))
        return self.bias + users + items


def known(indices: Tensor | None, role: str, model: nn.Module) -> Tensor:
    """Return `indices`, or raise an error if they are None, that is, not in training.

    A model with an embedding for each user or item cannot encode others. `role` ("user" or "item")
    is for the message.

    Raises
    ------
    ValueError
        If `indices` is None, which stands for users or items that were not in training.
    """
    if indices is None:
        name = type(model).__name__
        raise ValueError(f"{name} needs the embedding of each {role}; give indices of the log")
    return indices


def history_means(
    table: Float[Tensor, "n K"], histories: Ragged | Int[Tensor, "U L"], alpha: float
) -> Float[Tensor, "U K"]:
    """Normalised sum |N(u)|^(−α) Σ_{j ∈ N(u)} table[j], one row for each history N(u).

    Histories are ragged, or rows padded with n, which an exported graph reads.
    """
    if isinstance(histories, Tensor):
        sums = embedding_maps(table, histories).sum(dim=1)  # a pad is a row of zeros
        return sums * normaliser((histories < len(table)).sum(dim=1), alpha)[:, None]
    return history_sums(table, histories) * normaliser(histories.counts, alpha)[:, None]


def history_sums(table: Float[Tensor, "n K"], histories: Ragged) -> Float[Tensor, "U K"]:
    """Sum Σ_{j ∈ N(u)} table[j], one row for each history N(u); zero for an empty history."""
    if len(histories) == 0:
        return table[:0]  # embedding_bag refuses an empty batch
    sums: Tensor = nnf.embedding_bag(
        histories.values, table, histories.starts, mode="sum", include_last_offset=True
    )
    return sums


def history_parts(
    table: Float[Tensor, "n K"],
    history: npt.NDArray[np.int64],
    alpha: float,
    z_item: Float[Tensor, " W"],
) -> npt.NDArray[np.float64]:
    """Contribution |N|^(−α) table[j] · q_i of each item j in a history N, float64 [n].

    `z_item` is the vector of item i, whose first K entries are q_i.
    """
    rows = table.detach()[torch.from_numpy(history)].double().numpy()  # [n, K]
    q_item = z_item[: rows.shape[1]].double().numpy()  # z_i is [q_i, 1, b_i]
    return np.asarray(rows @ q_item * max(len(history), 1) ** -alpha)


def normaliser(counts: Tensor, alpha: float) -> Tensor:
    """Factor count^(−α) for each history length in `counts`; 0 for an empty history."""
    # `where` evaluates both branches, and the clamp keeps 0^(−α) = ∞ out of the first one.
    return torch.where(counts > 0, counts.clamp(min=1).float() ** -alpha, 0.0)


def history_products(
    table: Float[Tensor, "n K"],
    items: Float[Tensor, "I K"],
    batch: Batch,
    alpha: float,
    exclude_target: bool,
) -> Float[Tensor, " P"]:
    """Normalised product |N|^(−α) Σ_{j ∈ N} table[j] · q_i for each pair (u, i) of a batch.

    N is N(u), without i if `exclude_target` is true. In training, i is in N(u) exactly if the label
    is 1.

    Parameters
    ----------
    table : Tensor [n, K]
        Embeddings of items as members of a history.
    items : Tensor [I, K]
        Embeddings q_i of the batch's items, whose scores are computed.
    batch : Batch
        Batch with full histories.
    alpha : float
    exclude_target : bool
        Whether to leave i out of N(u).
    """
    histories = batch.user_histories
    assert isinstance(histories, Ragged)
    sums = history_sums(table, histories)  # [U, K], with the targets, which are subtracted below
    products = pair_products(sums, items, batch.pair_users, batch.pair_items)  # [P]
    counts = histories.counts.index_select(0, batch.pair_users)  # [P]
    if exclude_target:
        own = (table.index_select(0, batch.items) * items).sum(dim=1)  # table[i] · q_i, [I]
        products = products - batch.labels * own.index_select(0, batch.pair_items)
        counts = counts - batch.labels.long()
    return products * normaliser(counts, alpha)

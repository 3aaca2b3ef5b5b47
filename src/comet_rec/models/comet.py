"""COMET: convolutional dimension interaction (arXiv 2007.14129v1).

Deviations from the paper's letter, each a setting: the tower encodes a distinct user or item
once and not once a pair (Eq. 8 separates, so the numbers are the same); histories leave the
batch's own positives out.

| parameter | shape | starts as |
|---|---|---|
| user_embedding, item_embedding | [m, K], [n, K] | uniform ± init_scale |
| convolution weights and biases | [channels, N, H], [channels] | uniform ± 1/√(N·H) |
| MLP weights, biases | [out, in], [out] | Xavier uniform, 0 |
| weight (h) | [K] | Xavier uniform |
"""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from comet_rec.config import positive, share
from comet_rec.data.histories import HistoryPolicy, HistorySettings
from comet_rec.errors import ConfigError
from comet_rec.models.base import TensorBags, TensorBatch
from comet_rec.models.layers import (
    ConvolutionForm,
    Flattened,
    MultiWidthConvolution,
    Perceptron,
    StridedConvolution,
    uniform,
)
from comet_rec.models.pairs import pair_products

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class CometConfig:
    """Settings of COMET; the defaults are the paper's, and "Choice:" marks what it leaves open.

    Parameters
    ----------
    embedding_dim : int
        K.
    history_length : int
        Most rows of a history shown, N.
    history : {"sampled", "recent", "causal"}
        Which rows those are. Choice: sampled, a fresh draw each training step. Causal: a training
        positive sees what its user did just before, newest last, and evaluation the latest; N(i)
        is sampled.
    exclude_target : bool
        Leave a batch's positives out of the shown histories. Choice: true (ADR 0003).
    leave_out : float
        Largest share of other rows hidden from a history in a training step. Choice: ADR 0003.
    widths : tuple of int
        Filter widths H_l; those above K become K, repeats are dropped.
    channels : int
        Filters of each width.
    convolution : {"frequency", "direct"}
        Two forms of the same numbers.
    hidden : tuple of int
        Hidden layers of the MLP. Choice: one of 256.
    cross : {"cnn+mlp", "cnn", "mlp", "matched-mlp"}
        What stands between the map and p'_u (Figure 3): Eqs. 4 to 7; three strided convolutions
        and the output layer; the flattened map and the MLP; or the same with one hidden layer,
        as wide as makes the tower's parameters as many as those of Eqs. 4 to 7.
    enrich : {"both", "original", "interaction"}
        What z_u and z_i hold (Figure 4): own embedding and interaction vector, or one of them.
    permute_dimensions : bool
        Put the embedding's dimensions in a fixed random order before the convolution.
    shuffle_history : bool
        Put the shown rows of every history in a random order.
    freeze_filters : bool
        Leave the convolution's filters as they were drawn.
    activation : {"relu"}
        ψ₂. Choice: as ψ.
    dropout : float
        After each hidden layer, per encoded user or item. Choice: there.
    own_dropout : float
        Share of users' and items' own embeddings set to zero in a training step, so that the
        tower meets users it never saw. Choice: ADR 0012.
    init_scale : float
        Embeddings start uniform in ± this. Choice: 0.05.
    """

    embedding_dim: int = 128
    history_length: int = 50
    history: HistoryPolicy = "sampled"
    exclude_target: bool = True
    leave_out: float = 0.5
    widths: tuple[int, ...] = (1, 8, 32, 128)
    channels: int = 8
    convolution: ConvolutionForm = "frequency"
    hidden: tuple[int, ...] = (256,)
    cross: Literal["cnn+mlp", "cnn", "mlp", "matched-mlp"] = "cnn+mlp"
    enrich: Literal["both", "original", "interaction"] = "both"
    permute_dimensions: bool = False
    shuffle_history: bool = False
    freeze_filters: bool = False
    activation: Literal["relu"] = "relu"
    dropout: float = 0.3
    own_dropout: float = 0.1
    init_scale: float = 0.05

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "history_length", "channels", "init_scale")
        share(self, "model", "leave_out", "dropout", "own_dropout")
        for name, values in (("widths", self.widths), ("hidden", self.hidden)):
            if any(value < 1 for value in values):
                raise ConfigError(f"model.{name} = {list(values)}: each must be above 0")
        if not self.widths:
            raise ConfigError("model.widths = []: give at least one filter width")
        if self.cross == "cnn" and min(self.history_length, self.embedding_dim) < 15:
            raise ConfigError(
                'model.cross = "cnn" needs model.history_length and model.embedding_dim of at '
                "least 15: three layers with stride 2 leave nothing of a smaller map"
            )

    @property
    def effective_widths(self) -> tuple[int, ...]:
        """Widths after those above K became K, ascending, without repeats."""
        return tuple(sorted({min(width, self.embedding_dim) for width in self.widths}))


class Tower(nn.Module):
    """Embedding map → convolutions → MLP: the interaction vector (Eq. 2–7)."""

    def __init__(self, config: CometConfig, rng: torch.Generator) -> None:
        super().__init__()
        n, k = config.history_length, config.embedding_dim
        hidden = config.hidden
        self.convolution: MultiWidthConvolution | StridedConvolution | Flattened
        if config.cross == "cnn+mlp":
            self.convolution = MultiWidthConvolution(
                n, k, config.effective_widths, config.channels, config.convolution, rng
            )
        elif config.cross == "cnn":
            self.convolution, hidden = StridedConvolution(n, k, config.channels, rng), ()
        else:
            self.convolution = Flattened(n, k)
            if config.cross == "matched-mlp":
                hidden = (matched_width(config),)
        self.mlp = Perceptron(self.convolution.out_features, hidden, k, config.dropout, rng)
        self.register_buffer("order", None)
        if config.permute_dimensions:
            self.order = torch.randperm(k, generator=rng)
        if config.freeze_filters:
            self.convolution.requires_grad_(False)

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"] | None,
        rng: torch.Generator | None,
    ) -> Float[Tensor, "B K"]:
        """Interaction vectors of histories whose rows come from `table`."""
        if histories is None:
            raise ValueError("COMET encodes histories; give them")
        if self.order is not None:
            table = table.index_select(1, self.order)
        first = self.convolution(table, histories, self.mlp.weights[0])
        return self.mlp.after_first(first, rng)


def matched_width(config: CometConfig) -> int:
    """Hidden width at which a perceptron on the flattened map has a tower's number of parameters.

    A tower of Eqs. 4 to 7: its filters, their biases, and the MLP on the cross features.
    """
    n, k, c = config.history_length, config.embedding_dim, config.channels
    widths = config.effective_widths
    sizes = [c * sum(k - width + 1 for width in widths), *config.hidden, k]
    tower = c * sum(n * width + 1 for width in widths)
    tower += sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    return max(1, round((tower - k) / (n * k + 1 + k)))


class COMET(nn.Module):
    """COMET, Eqs. 2–8; a `TwoTower` and `Trainable` model that folds in new users and items.

    Parameters
    ----------
    config : CometConfig
    n_users, n_items : int
        m and n; these indices are the pads of the two histories.
    rng : torch.Generator
        Draws the initial parameters.
    """

    def __init__(
        self, config: CometConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k = config.embedding_dim
        self.config = config
        self.user_embedding = uniform((n_users, k), config.init_scale, rng)
        self.item_embedding = uniform((n_items, k), config.init_scale, rng)
        self.user_tower = Tower(config, rng)
        self.item_tower = Tower(config, rng)
        self.h = uniform((k,), math.sqrt(6 / (k + 1)), rng)

    @property
    def histories(self) -> HistorySettings:
        """What the towers are shown."""
        return HistorySettings(
            length=self.config.history_length,
            policy=self.config.history,
            exclude_target=self.config.exclude_target,
            leave_out=self.config.leave_out,
            shuffle=self.config.shuffle_history,
        )

    @property
    def weight(self) -> Float[Tensor, " K"]:
        """The learned weight h of Eq. 8."""
        return self.h

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Int[Tensor, "U N"] | None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U K"]:
        """z_u = p_u + p'_u (Eq. 8); N(u) picks rows of the item table (Eq. 2).

        `users` None leaves p_u at zero: users that training never saw.
        """
        return self._encoded(
            self.user_tower, self.item_embedding, histories, self.user_embedding, users, rng
        )

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Int[Tensor, "I N"] | None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I K"]:
        """z_i = q_i + q'_i (Eq. 8); N(i) picks rows of the user table (Eq. 3)."""
        return self._encoded(
            self.item_tower, self.user_embedding, histories, self.item_embedding, items, rng
        )

    def _encoded(
        self, tower: Tower, members: Tensor, histories: Tensor | None,
        table: Tensor, owners: Tensor | None, rng: torch.Generator | None,
    ) -> Tensor:  # fmt: skip
        """Interaction vectors and own embeddings, as far as `enrich` asks for them."""
        enrich = self.config.enrich
        if enrich == "original":
            if owners is None:
                assert histories is not None
                return table.new_zeros((len(histories), table.shape[1]))
            return self._own(table, owners, rng)
        vectors: Tensor = tower(members, histories, rng)
        if enrich == "interaction" or owners is None:
            return vectors
        return vectors + self._own(table, owners, rng)

    def _own(self, table: Tensor, indices: Tensor, rng: torch.Generator | None) -> Tensor:
        own = table.index_select(0, indices)
        if rng is None or self.config.own_dropout == 0:
            return own
        # Not rescaled: a user who is folded in meets exactly this case.
        kept = torch.rand((len(own), 1), generator=rng, device=own.device)
        return own * (kept >= self.config.own_dropout)

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs (Eq. 8 before σ); each distinct user and item is encoded once."""
        assert not isinstance(batch.user_histories, TensorBags)  # the settings asked for a cut
        z_users = self.encode_users(batch.users, batch.user_histories, rng) * self.h
        z_items = self.encode_items(batch.items, batch.item_histories, rng)
        return pair_products(z_users, z_items, batch.pair_users, batch.pair_items)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The two tables."""
        return [self.user_embedding, self.item_embedding]

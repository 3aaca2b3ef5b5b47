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

import torch
from torch import Tensor, nn

from comet_rec.data.arrays import Array, indices, under
from comet_rec.data.histories import HistorySettings
from comet_rec.errors import ConfigError
from comet_rec.models.base import TensorBags, TensorBatch
from comet_rec.models.comet_config import CometConfig
from comet_rec.models.layers import (
    Flattened,
    MultiWidthConvolution,
    Perceptron,
    SqueezeGate,
    StridedConvolution,
    uniform,
)
from comet_rec.models.pairs import pair_products
from comet_rec.models.workspace import Layout

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

__all__ = ["COMET", "CometConfig", "Tower", "matched_width"]


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
        self.row_dropout = config.row_dropout
        self.gate = None
        if config.gate == "squeeze":
            assert isinstance(self.convolution, MultiWidthConvolution)  # the settings saw to it
            self.gate = SqueezeGate(self.convolution.layout, rng)
        self.register_buffer("order", None)
        if config.permute_dimensions:
            self.order = torch.randperm(k, generator=rng)
        if config.freeze_filters:
            self.convolution.requires_grad_(False)

    @staticmethod
    def arrays(config: CometConfig) -> dict[str, Array]:
        """What the state must be."""
        n, k, channels = config.history_length, config.embedding_dim, config.channels
        widths, hidden = config.effective_widths, config.hidden
        layout = Layout(k, widths, channels)
        convolution: dict[str, Array] = {}
        features = n * k
        if config.cross == "cnn+mlp":
            convolution = MultiWidthConvolution.arrays(n, widths, channels)
            features = layout.features
        elif config.cross == "cnn":
            convolution, hidden = StridedConvolution.arrays(channels), ()
            features = StridedConvolution.features(n, k, channels)
        elif config.cross == "matched-mlp":
            hidden = (matched_width(config),)
        found = under("convolution", convolution)
        found |= under("mlp", Perceptron.arrays(features, hidden, k))
        if config.gate == "squeeze":
            found |= under("gate", SqueezeGate.arrays(channels * len(widths)))
        if config.permute_dimensions:
            found["order"] = indices((k,), k)
        return found

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
        table, histories = drop_rows(table, histories, self.row_dropout, rng)
        if self.gate is not None:
            features = self.gate(self.convolution(table, histories))
            return self.mlp.forward(features, rng)
        first = self.convolution(table, histories, self.mlp.weights[0])
        return self.mlp.after_first(first, rng)


def drop_rows(
    table: Float[Tensor, "V K"],
    histories: Int[Tensor, "B N"],
    share: float,
    rng: torch.Generator | None,
) -> tuple[Float[Tensor, "V K"], Int[Tensor, "B N"]]:
    """Inverted dropout of whole rows of the maps: some shown rows become the pad, index V.

    Rows and not their elements: the frequency form gathers rows that are transformed already.
    """
    if rng is None or share == 0:
        return table, histories
    drawn = torch.rand(histories.shape, generator=rng, device=histories.device)
    return table / (1 - share), histories.masked_fill(drawn < share, len(table))


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

    user_embedding: nn.Parameter | None

    def __init__(
        self, config: CometConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k = config.embedding_dim
        self.config = config
        users = uniform((n_users, k), config.init_scale, rng) if config.user_table else None
        self.register_parameter("user_embedding", users)
        self.item_embedding = uniform((n_items, k), config.init_scale, rng)
        towers = config.enrich != "original"
        self.user_tower = Tower(config, rng) if towers else None
        self.item_tower = Tower(config, rng) if towers and config.towers == "both" else None
        self.h = uniform((k,), math.sqrt(6 / (k + 1)), rng)

    @staticmethod
    def arrays(config: CometConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """What the state must be."""
        k = config.embedding_dim
        found = {"item_embedding": Array(shape=(n_items, k)), "h": Array(shape=(k,))}
        if config.user_table:
            found["user_embedding"] = Array(shape=(n_users, k))
        towers = {"both": ("user_tower", "item_tower"), "user": ("user_tower",)}[config.towers]
        for tower in towers if config.enrich != "original" else ():
            found |= under(tower, Tower.arrays(config))
        return found

    @staticmethod
    def vector_dim(config: CometConfig) -> int:
        """K."""
        return config.embedding_dim

    @property
    def folds_in(self) -> bool:
        """Whether anything is left of a user who has no embedding of their own."""
        return self.user_tower is not None

    @property
    def histories(self) -> HistorySettings | None:
        """What the towers are shown; None without a tower."""
        if not self.folds_in:
            return None
        return HistorySettings(
            length=self.config.history_length,
            policy=self.config.history,
            exclude_target=self.config.exclude_target,
            leave_out=self.config.history_dropout,
            shuffle=self.config.shuffle_history,
            items=self.item_tower is not None,
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

        `users` None leaves p_u at zero: users that training never saw. With
        ``user_embedding = false`` nobody has one.
        """
        own = users if self.config.user_embedding else None
        if self.user_tower is None:
            return self._user_rows(own, histories)
        rows = self.user_embedding
        return self._encoded(self.user_tower, self.item_embedding, histories, rows, own, rng)

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Int[Tensor, "I N"] | None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I K"]:
        """z_i = q_i + q'_i (Eq. 8); N(i) picks rows of the user table (Eq. 3).

        Without an item tower it is q_i, whole in training too: an item has nothing else.
        """
        if self.item_tower is None:
            if items is None:
                raise ConfigError(
                    "COMET without an item tower knows no item without its own embedding"
                )
            return self.item_embedding.index_select(0, items)
        assert self.user_embedding is not None  # the tower reads it
        return self._encoded(
            self.item_tower, self.user_embedding, histories, self.item_embedding, items, rng
        )

    def _user_rows(self, users: Tensor | None, histories: Tensor | None) -> Tensor:
        """p_u alone, 0 for users never seen; whole in training, as there is no tower to teach."""
        assert self.user_embedding is not None  # the settings saw to it
        if users is not None:
            return self.user_embedding.index_select(0, users)
        if histories is None:
            raise ValueError("COMET needs histories of users that it never saw; give them")
        return self.h.new_zeros((len(histories), len(self.h)))

    def _encoded(
        self, tower: Tower, members: Tensor, histories: Tensor | None,
        table: Tensor | None, owners: Tensor | None, rng: torch.Generator | None,
    ) -> Tensor:  # fmt: skip
        """Interaction vectors and, where `enrich` asks for them, own embeddings."""
        vectors: Tensor = tower(members, histories, rng)
        if self.config.enrich == "interaction" or owners is None or table is None:
            return vectors
        return vectors + self._own(table, owners, rng)

    def _own(self, table: Tensor, indices: Tensor, rng: torch.Generator | None) -> Tensor:
        own = table.index_select(0, indices)
        if rng is None or self.config.id_embedding_dropout == 0:
            return own
        # Not rescaled: a user who is folded in meets exactly this case.
        kept = torch.rand((len(own), 1), generator=rng, device=own.device)
        return own * (kept >= self.config.id_embedding_dropout)

    def forward(self, batch: TensorBatch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the pairs (Eq. 8 before σ); each distinct user and item is encoded once."""
        assert not isinstance(batch.user_histories, TensorBags)  # the settings asked for a cut
        z_users = self.encode_users(batch.users, batch.user_histories, rng) * self.h
        z_items = self.encode_items(batch.items, batch.item_histories, rng)
        return pair_products(z_users, z_items, batch.pair_users, batch.pair_items)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The two tables, as far as there are two."""
        return [t for t in (self.user_embedding, self.item_embedding) if t is not None]

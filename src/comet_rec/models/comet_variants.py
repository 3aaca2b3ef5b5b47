"""COMET with settings for ablations: other networks in the towers, one tower, or no towers.

| setting | in the paper | variants |
|---|---|---|
| `cross` | `cnn+mlp`: Eqs. 4–7 | `cnn`, `mlp` (Figure 3), `matched-mlp` |
| `enrich` | `both` | `original`: no towers; `interaction`: no ID embeddings (Figure 4) |
| `towers` | `both` | `user`: z_i = q_i |
| `user_embedding` | true | false: z_u = p'_u |
| `gate` | `none` | `squeeze`: a weight for each filter |
| `layers` | 0 | 1 and more: layers over sequences, in `comet_sequence` |
| `permute_dimensions`, `freeze_filters` | off | on |

`CometVariant` builds only the tables and networks that its settings need, and implements the
interfaces of models. A table or network that is not needed draws no random numbers.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from comet_rec.data.arrays import Array, indices, under
from comet_rec.data.batches import Batch
from comet_rec.data.histories import HistorySettings, Ragged
from comet_rec.data.prefixes import Prefixes, Windows
from comet_rec.errors import ConfigError
from comet_rec.models.attribution import TOLERANCE, integrated_gradients, joining
from comet_rec.models.comet import COMET, Tower
from comet_rec.models.comet_config import CometConfig
from comet_rec.models.comet_sequence import SequenceTower
from comet_rec.models.interfaces import FoldIn, TwoTower
from comet_rec.models.kernels.cross_features import Layout, embedding_maps
from comet_rec.models.layers import MultiWidthConvolution, Perceptron, uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

__all__ = ["CometConfig", "CometVariant", "VariantTower", "build_tower"]

MAPS = 64
"""Number of maps that `StridedConvolution` computes at a time on a CPU, to fit the cache."""


class CometVariant(COMET, TwoTower, FoldIn):
    """COMET with the networks that its settings choose; by default equal to `COMET`.

    Parameters
    ----------
    config : CometConfig
    n_users, n_items : int
        m and n. Index n pads the histories of users, and index m those of items.
    rng : torch.Generator
        Draws the initial parameters, in the order of `COMET`.
    """

    def __init__(
        self, config: CometConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        nn.Module.__init__(self)  # COMET.__init__ would draw parameters of parts left out
        k = config.embedding_dim
        self.config = config
        users = uniform((n_users, k), config.init_scale, rng) if config.user_table else None
        self.register_parameter("user_embedding", users)
        self.item_embedding = uniform((n_items, k), config.init_scale, rng)
        self.register_module("user_tower", build_tower(config, rng) if config.user_tower else None)
        self.register_module("item_tower", build_tower(config, rng) if config.item_tower else None)
        self.h = uniform((k,), math.sqrt(6 / (k + 1)), rng)
        if config.layers > 0:
            # Signs drawn at random would turn the latest item's embedding against itself.
            nn.init.ones_(self.h)

    @classmethod
    def arrays(cls, config: CometConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        k = config.embedding_dim
        declared = {"item_embedding": Array(shape=(n_items, k)), "h": Array(shape=(k,))}
        if config.user_table:
            declared["user_embedding"] = Array(shape=(n_users, k))
        if config.user_tower:
            sequence = SequenceTower.arrays if config.layers > 0 else tower_arrays
            declared |= under("user_tower", sequence(config))
        if config.item_tower:
            declared |= under("item_tower", tower_arrays(config))
        return declared

    @classmethod
    def vector_dim(cls, config: CometConfig) -> int:
        """Length of the user and item vectors, K."""
        return config.embedding_dim

    @property
    def folds_in(self) -> bool:
        """Whether the model can score users who were not in training, by its user tower."""
        return self.config.user_tower

    @property
    def histories(self) -> HistorySettings | None:
        """Settings of the histories that the towers read; None for a model without towers."""
        if not self.folds_in:
            return None
        layers = self.config.layers
        # Each layer reads N rows. In pieces of 4 N steps there are few rows of context for each
        # step, and with N rows of context they fill a transform whose length is a power of two.
        length = self.config.history_length * max(layers, 1)
        return HistorySettings(
            length=length,
            policy=self.config.history,
            exclude_target=self.config.exclude_target,
            dropout=self.config.history_dropout,
            shuffle=self.config.shuffle_history,
            items=self.config.item_tower,
            steps=4 * self.config.history_length if layers > 0 else 0,
            context=length if layers > 0 else 0,
        )

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """The learned weight h of Eq. 8."""
        return self.h

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Int[Tensor, "U N"] | Prefixes | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U K"]:
        """Vectors z_u = p_u + p'_u of users; the settings can leave one of the two terms out."""
        if not self.config.user_embedding:
            users = None  # leave p_u out
        if not self.config.user_tower:
            return self._user_rows(users, histories)
        if self.config.enrich == "interaction":
            users = None
        if not isinstance(histories, Prefixes):
            return super().encode_users(users, _given(histories), rng)
        interaction: Tensor = self.user_tower(self.item_embedding, histories, rng)  # p'_u, [U, K]
        if users is None:
            return interaction
        return interaction + self.own_embeddings(self.user_embedding, users, rng)

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Int[Tensor, "I N"] | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I K"]:
        """Vectors z_i = q_i + q'_i of items; the settings can leave one of the two terms out.

        Without an item tower, z_i = q_i, and ID-embedding dropout does not apply to items.
        """
        if not self.config.item_tower:
            if items is None:
                raise ConfigError(
                    "COMET without an item tower cannot encode items that were not in training; "
                    'set model.towers = "both"'
                )
            return self.item_embedding.index_select(0, items)
        if self.config.enrich == "interaction":
            items = None
        return super().encode_items(items, _given(histories), rng)

    def _user_rows(self, users: Tensor | None, histories: Any) -> Tensor:
        """Embeddings p_u without ID-embedding dropout; zeros for users who were not in training."""
        if users is not None:
            return self.user_embedding.index_select(0, users)
        assert histories is not None
        return self.h.new_zeros((len(histories), len(self.h)))

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits of the batch's pairs (Eq. 8 before σ); `rng` None switches dropout off."""
        # COMET's histories are padded, or prefixes of sequences.
        assert not isinstance(batch.user_histories, Ragged)
        z_users = self.encode_users(batch.users, batch.user_histories, rng)
        z_items = self.encode_items(batch.items, batch.item_histories, rng)
        return self.score_of_pairs(z_users, z_items, batch.pair_users, batch.pair_items)

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = TOLERANCE,
    ) -> npt.NDArray[np.float64]:
        """How much each item of a history contributes to the score of an item, float64 [n].

        The contributions are the integrated gradients of (h ⊙ p'_u) · z_i with respect to the
        user's embedding map. With layers they are the changes when each item joins the history.
        `z_item` is z_i.
        """
        assert z_item is not None
        if self.config.layers > 0:
            assert self.histories is not None
            encode = partial(self.user_tower, self.item_embedding)
            return joining(encode, history, self.histories.length, self.h * z_item)
        n = self.config.history_length
        weight = (self.h.detach() * z_item).double()  # [K]
        tower = copy.deepcopy(self.user_tower).double()
        rows = self.item_embedding.detach()[torch.from_numpy(history)].double()  # [n, K]

        def score(maps: Tensor) -> Tensor:
            table = maps.flatten(0, 1)  # a row for each map and place, [S · n, K]
            padded = torch.full((len(maps), n), len(table))
            padded[:, n - len(history) :] = torch.arange(len(table)).view(len(maps), -1)
            vectors: Tensor = tower(table, padded)  # p'_u of each map, [S, K]
            return vectors @ weight

        return integrated_gradients(score, rows, tolerance).numpy()

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Embedding tables of the items, and of the users if the model has one."""
        tables = [self.user_embedding] if self.config.user_table else []
        return [*tables, self.item_embedding]


def _given(histories: Any) -> Any:
    if histories is None:
        raise ValueError("histories = None: COMET's towers need the histories; pass them")
    return histories


def build_tower(config: CometConfig, rng: torch.Generator) -> Tower | SequenceTower:
    """New tower with the network that `config.cross` and the other settings choose."""
    if config.layers > 0:
        return SequenceTower(config, rng)
    plain = config.cross == "cnn+mlp" and config.gate == "none"
    plain = plain and not config.permute_dimensions and not config.freeze_filters
    return Tower(config, rng) if plain else VariantTower(config, rng)


class VariantTower(Tower):
    """Tower with another network than the paper's between the history and the interaction vector.

    Parameters
    ----------
    config : CometConfig
    rng : torch.Generator
        Draws the initial parameters, in the order of `__init__`.
    """

    order: Tensor | None

    def __init__(self, config: CometConfig, rng: torch.Generator) -> None:
        nn.Module.__init__(self)  # Tower.__init__ would draw the parameters of the paper's parts
        n, k = config.history_length, config.embedding_dim
        convolution: MultiWidthConvolution | StridedConvolution | Flattened
        if config.cross == "cnn+mlp":
            convolution = MultiWidthConvolution(
                n, k, config.effective_widths, config.channels, config.convolution, rng
            )
        elif config.cross == "cnn":
            convolution = StridedConvolution(n, k, config.channels, rng)
        else:
            convolution = Flattened(n, k)
        self.register_module("convolution", convolution)
        hidden = hidden_layers(config)
        self.mlp = Perceptron(convolution.out_features, hidden, k, config.dropout, rng)
        self.gate = None
        if config.gate == "squeeze":
            self.gate = SqueezeGate(tower_layout(config), rng)
        self.register_buffer("order", None)
        if config.permute_dimensions:
            self.order = torch.randperm(k, generator=rng)
        if config.freeze_filters:
            convolution.requires_grad_(False)

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"] | Windows,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """Interaction vectors of histories, [B, K].

        An embedding map stacks the rows of `table` at one row of `histories`. `rng` draws dropout,
        None switches dropout off.
        """
        if self.order is not None:
            # Every map stacks rows of the table, so permuting the table permutes all maps.
            table = table.index_select(1, self.order)
        if self.gate is None:
            return super().forward(table, histories, rng)
        features = self.gate(self.convolution(table, histories))  # [B, D]
        return self.mlp.forward(features, rng)


def hidden_layers(config: CometConfig) -> tuple[int, ...]:
    """Widths of the hidden layers of the MLP in each tower."""
    if config.cross == "cnn":
        return ()
    return (matched_width(config),) if config.cross == "matched-mlp" else config.hidden


def tower_layout(config: CometConfig) -> Layout:
    """Order in which a tower concatenates its cross features (Eq. 5)."""
    return Layout(config.embedding_dim, config.effective_widths, config.channels)


def tower_arrays(config: CometConfig) -> dict[str, Array]:
    """Expected name, type and shape of each stored parameter of a tower with this config."""
    n, k, channels = config.history_length, config.embedding_dim, config.channels
    convolution: dict[str, Array] = {}
    features = n * k
    if config.cross == "cnn+mlp":
        convolution = MultiWidthConvolution.arrays(n, config.effective_widths, channels)
        features = tower_layout(config).features
    elif config.cross == "cnn":
        convolution = StridedConvolution.arrays(channels)
        features = StridedConvolution.features(n, k, channels)
    declared = under("convolution", convolution)
    declared |= under("mlp", Perceptron.arrays(features, hidden_layers(config), k))
    if config.gate == "squeeze":
        declared |= under("gate", SqueezeGate.arrays(channels * len(config.effective_widths)))
    if config.permute_dimensions:
        declared["order"] = indices((k,), k)
    return declared


def matched_width(config: CometConfig) -> int:
    """Width of the hidden layer for ``cross="matched-mlp"``.

    With this width, an MLP on the flattened map has as many parameters as the paper's tower. The
    paper's tower (Eqs. 4–7) has filters, their biases, and the MLP on the cross features.
    """
    n, k, c = config.history_length, config.embedding_dim, config.channels
    widths = config.effective_widths
    sizes = [c * sum(k - width + 1 for width in widths), *config.hidden, k]
    tower = c * sum(n * width + 1 for width in widths)
    tower += sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    return max(1, round((tower - k) / (n * k + 1 + k)))


class StridedConvolution(nn.Module):
    """Three convolutions (3×3, stride 2, no padding, ReLU) over the map (Figure 3, CNN only).

    Parameters
    ----------
    rows, embedding_dim : int
        N and K, each at least 15.
    channels : int
        Number of filters in each layer.
    rng : torch.Generator
        Draws the initial weights, uniform in ±1/√(fan in).
    """

    def __init__(self, rows: int, embedding_dim: int, channels: int, rng: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs in (1, channels, channels):
            bound = 1 / math.sqrt(9 * inputs)
            self.weights.append(uniform((channels, inputs, 3, 3), bound, rng))
            self.biases.append(uniform((channels,), bound, rng))
        self.out_features = self.features(rows, embedding_dim, channels)

    @staticmethod
    def arrays(channels: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        declared = {f"biases.{layer}": Array(shape=(channels,)) for layer in range(3)}
        for layer, inputs in enumerate((1, channels, channels)):
            declared[f"weights.{layer}"] = Array(shape=(channels, inputs, 3, 3))
        return declared

    @staticmethod
    def features(rows: int, embedding_dim: int, channels: int) -> int:
        """Number of features of a map with `rows` rows; each layer halves both sides of the map."""
        for _ in range(3):
            rows, embedding_dim = (rows - 3) // 2 + 1, (embedding_dim - 3) // 2 + 1
        return channels * rows * embedding_dim

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"],
        weight: Float[Tensor, "O D"] | None = None,
    ) -> Float[Tensor, "B _"]:
        """Features of the embedding maps of histories, [B, D].

        An embedding map stacks the rows of `table` at one row of `histories`. If the weight of the
        next linear layer is given, the result is the features times its transpose, [B, O].
        """
        maps = embedding_maps(table, histories)[:, None]  # with one input channel, [B, 1, N, K]
        if histories.device.type != "cpu" or torch.compiler.is_compiling():
            x = self._features(maps)  # [B, D]; an exported graph has no blocks
        else:
            x = torch.cat([self._features(block) for block in torch.split(maps, MAPS)])
        return x if weight is None else nnf.linear(x, weight)

    def _features(self, x: Float[Tensor, "B 1 N K"]) -> Float[Tensor, "B D"]:
        for filters, bias in zip(self.weights, self.biases, strict=True):
            x = torch.relu(nnf.conv2d(x, filters, bias, stride=2))
        return x.flatten(1)


class Flattened(nn.Module):
    """The map flattened into one vector (Figure 3, MLP only).

    Parameters
    ----------
    rows, embedding_dim : int
        N and K.
    """

    def __init__(self, rows: int, embedding_dim: int) -> None:
        super().__init__()
        self.out_features = rows * embedding_dim

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"],
        weight: Float[Tensor, "O D"] | None = None,
    ) -> Float[Tensor, "B _"]:
        """The embedding maps of histories, flattened, [B, N K].

        An embedding map stacks the rows of `table` at one row of `histories`. If the weight of the
        next linear layer is given, the result is the features times its transpose, [B, O].
        """
        x = embedding_maps(table, histories).flatten(1)  # [B, N K]
        return x if weight is None else nnf.linear(x, weight)


class SqueezeGate(nn.Module):
    """Squeeze and excitation: multiplies the features of each filter by a weight for that filter.

    Let s hold the mean of each filter's features. Then the features of filter f are multiplied by
    ``σ(W₂ · ReLU(W₁ s + b₁) + b₂)_f`` (Hu et al. 2018).

    Choice: the hidden layer has a quarter as many units as there are filters.

    Parameters
    ----------
    layout : Layout
        Order of the features in a row, which tells the filter of each feature.
    rng : torch.Generator
        Draws the initial W₁ and W₂ (Xavier uniform). The biases start at zero, so each filter's
        weight starts near ½.
    """

    def __init__(self, layout: Layout, rng: torch.Generator) -> None:
        super().__init__()
        self.layout = layout
        filters = layout.channels * len(layout.widths)
        self.mlp = Perceptron(filters, self.bottleneck(filters), filters, 0.0, rng)

    @staticmethod
    def bottleneck(filters: int) -> tuple[int, ...]:
        """Widths of the gate's hidden layers, for a number of filters."""
        return (max(1, filters // 4),)

    @staticmethod
    def arrays(filters: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        return under("mlp", Perceptron.arrays(filters, SqueezeGate.bottleneck(filters), filters))

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The features [B, D], each multiplied by the weight of its filter."""
        shape = (features.shape[0], self.layout.channels)
        blocks = []  # for each width the features of its filters, [B, channels, places]
        for _, where, places in self.layout.parts():
            blocks.append(features[:, where].reshape(*shape, places))
        means = torch.cat([block.mean(dim=2) for block in blocks], dim=1)  # s, [B, filters]
        weights = torch.sigmoid(self.mlp(means, None)).chunk(len(blocks), dim=1)
        weighted = []
        for block, weight in zip(blocks, weights, strict=True):
            weighted.append((block * weight[:, :, None]).flatten(1))  # one weight for all places
        return torch.cat(weighted, dim=1)

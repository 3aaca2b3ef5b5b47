"""SASRec: self-attentive sequential recommendation (Kang and McAuley 2018), with gSASRec's loss.

A user is the sequence of the latest N items. Item i has one embedding m_i [K], as input and output.
With t counted back from the latest item, a sequence becomes states x_t in b blocks:

    x_t = √K · m_t + p_t                              embedding of the item and of its position
    q   = LN(x),  x = q + Attention(q, x, x)          causal: a state reads itself and older ones
    f   = LN(x),  x = f + W₂ ReLU(W₁ f + b₁) + b₂     feed-forward layer of each position
    z_t = LN(x_t)                                     after the last block
    ŷ_i = z_t · m_i                                   score of item i as the next one

The order of norms and residuals is that of the authors' code and its PyTorch ports, where queries
are normalised and keys are not. The text has g(x) = x + Dropout(g(LN(x))) in its place. Dropout
acts on the embeddings and on the output of each layer, as in the text, and on hidden units, as in
the code. The code also drops attention weights; here it drops the output of the attention.

Training needs every state, serving the latest one. The vector of an empty history is that of a zero
state, LN(0) = β of the last norm.

| parameter | shape | initial values |
|---|---|---|
| item_embedding (m), position_embedding (p) | [n, K], [N, K] | Xavier uniform |
| query, key_value, output, feedforward | [K, K], [2K, K], [K, K], twice [K, K] | Xavier uniform |
| biases; γ and β of norms | [K] or [2K]; [K] | 0; 1 and 0 |
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from comet_rec.config import positive, share
from comet_rec.data.arrays import Array, under
from comet_rec.data.batches import Batch
from comet_rec.data.histories import HistorySettings, Ragged
from comet_rec.data.prefixes import Prefixes
from comet_rec.errors import ConfigError
from comet_rec.models.attribution import joining
from comet_rec.models.comet_config import LONGEST_HISTORY
from comet_rec.models.interfaces import FoldIn, TwoTower
from comet_rec.models.kernels.causal_attention import (
    ByLength,
    causal_attention,
    padded_attention,
)
from comet_rec.models.kernels.cross_features import embedding_maps
from comet_rec.models.kernels.pair_products import pair_products
from comet_rec.models.latent import known
from comet_rec.models.layers import Norm, Perceptron, drop, uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Function of queries, keys and values [V, K] and the number of heads; its result is [V, K]."""
ROWS = 1 << 16
"""Places of padded histories that are encoded at a time without gradients, to limit memory."""


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Settings of SASRec.

    Parameters
    ----------
    embedding_dim : int
        K, the size of embeddings and states.
    history_length : int
        N, the largest number of items that a state reads.
    blocks : int
        Number of blocks of an attention and a feed-forward layer.
    heads : int
        Heads of each attention layer, which divide `embedding_dim`.
    dropout : float
        Dropout on the embeddings and on the output of each layer.
    """

    embedding_dim: int = 64
    history_length: int = 200
    blocks: int = 2
    heads: int = 1
    dropout: float = 0.2

    def __post_init__(self) -> None:
        positive(self, "model", "embedding_dim", "history_length", "blocks", "heads")
        share(self, "model", "dropout")
        if self.embedding_dim % self.heads != 0:
            raise ConfigError(
                f"model.heads = {self.heads}: must divide model.embedding_dim = "
                f"{self.embedding_dim}"
            )
        if self.history_length > LONGEST_HISTORY:
            raise ConfigError(
                f"model.history_length = {self.history_length}: must be at most {LONGEST_HISTORY}"
            )


class Block(nn.Module):
    """An attention layer and a feed-forward layer, each with a norm before it and a residual."""

    def __init__(self, config: SASRecConfig, rng: torch.Generator) -> None:
        super().__init__()
        k = config.embedding_dim
        self.heads, self.dropout = config.heads, config.dropout
        self.attention_norm, self.feedforward_norm = Norm(k), Norm(k)
        self.query = Perceptron(k, (), k, 0.0, rng)
        self.key_value = Perceptron(k, (), 2 * k, 0.0, rng)
        self.output = Perceptron(k, (), k, 0.0, rng)
        self.feedforward = Perceptron(k, (k,), k, config.dropout, rng)

    @staticmethod
    def arrays(k: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        return {
            **under("attention_norm", Norm.arrays(k)),
            **under("feedforward_norm", Norm.arrays(k)),
            **under("query", Perceptron.arrays(k, (), k)),
            **under("key_value", Perceptron.arrays(k, (), 2 * k)),
            **under("output", Perceptron.arrays(k, (), k)),
            **under("feedforward", Perceptron.arrays(k, (k,), k)),
        }

    def forward(
        self, x: Float[Tensor, "V K"], attention: Attention, rng: torch.Generator | None
    ) -> Float[Tensor, "V K"]:
        """States after the block; `attention` knows which rows of `x` are one sequence."""
        queries = self.attention_norm(x)
        # Keys and values are read from the states before the norm.
        keys, values = self.key_value(x, rng).chunk(2, dim=1)
        attended = attention(self.query(queries, rng), keys, values, self.heads)
        x = queries + drop(self.output(attended, rng), self.dropout, rng)
        inputs: Tensor = self.feedforward_norm(x)
        return inputs + drop(self.feedforward(inputs, rng), self.dropout, rng)


class SASRec(nn.Module, TwoTower, FoldIn):
    """Causal self-attention over the latest items of a user; see the top of the file.

    Parameters
    ----------
    config : SASRecConfig
    n_users, n_items : int
        Users have no parameters.
    rng : torch.Generator
        Draws the initial parameters, in the order of `__init__`.
    """

    def __init__(
        self, config: SASRecConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k, n = config.embedding_dim, config.history_length
        self.config = config
        self.item_embedding = uniform((n_items, k), math.sqrt(6 / (n_items + k)), rng)
        self.position_embedding = uniform((n, k), math.sqrt(6 / (n + k)), rng)  # oldest first
        self.blocks = nn.ModuleList(Block(config, rng) for _ in range(config.blocks))
        self.norm = Norm(k)

    @staticmethod
    def arrays(config: SASRecConfig, n_users: int, n_items: int) -> dict[str, Array]:
        """Expected name, type and shape of each tensor in a stored `state_dict`."""
        k = config.embedding_dim
        declared = {
            "item_embedding": Array(shape=(n_items, k)),
            "position_embedding": Array(shape=(config.history_length, k)),
        }
        for number in range(config.blocks):
            declared |= under(f"blocks.{number}", Block.arrays(k))
        return declared | under("norm", Norm.arrays(k))

    @classmethod
    def vector_dim(cls, config: Any) -> int:
        """Length K of the user and item vectors."""
        width: int = config.embedding_dim
        return width

    @property
    def histories(self) -> HistorySettings:
        """Settings of the histories: the latest N items, and pieces of N rows in training."""
        n = self.config.history_length
        # A piece begins with one row of context: its first row needs a history, and N rows of
        # context would double the work.
        return HistorySettings(
            length=n, policy="causal", exclude_target=True, dropout=0.0, items=False, steps=n,
            context=1,
        )  # fmt: skip

    @property
    def weight(self) -> Float[Tensor, " W"]:
        """Vector of ones: all dimensions of an inner product count alike."""
        return self.item_embedding.new_ones(self.config.embedding_dim)

    def states(self, sequences: Ragged, rng: torch.Generator | None = None) -> Float[Tensor, "V K"]:
        """Vector z_t after each value of the sequences, from the values up to it.

        The position of a value counts from the end of its sequence. No sequence may be longer than
        N.
        """
        ordered = ByLength.of(sequences)
        items = self.item_embedding.index_select(0, ordered.values)
        places = self.config.history_length - 1 - ordered.from_end
        attention = partial(causal_attention, groups=ordered.groups)
        z = self._through_blocks(items, places, attention, rng)
        return z.index_select(0, ordered.places)

    def _through_blocks(
        self, items: Float[Tensor, "V K"], places: Int[Tensor, " V"], attention: Attention,
        rng: torch.Generator | None,
    ) -> Float[Tensor, "V K"]:  # fmt: skip
        """Vectors z, from embeddings of items and their places in the table of positions."""
        positions = self.position_embedding.index_select(0, places)
        x = drop(items * math.sqrt(self.config.embedding_dim) + positions, self.config.dropout, rng)
        for block in self.blocks:
            x = block(x, attention, rng)
        z: Tensor = self.norm(x)
        return z

    def padded_vectors(self, histories: Int[Tensor, "U N"]) -> Float[Tensor, "U K"]:
        """The vectors of `encode_users` in operations of fixed shape, for exported graphs."""
        users, n = histories.shape
        real = histories != self.item_embedding.shape[0]  # [U, N]
        items = embedding_maps(self.item_embedding, histories).flatten(0, 1)  # [U · N, K]
        places = torch.arange(n, device=histories.device).repeat(users)
        z = self._through_blocks(items, places, partial(padded_attention, real=real), None)
        # The latest item stands last. Without one, the history is empty.
        latest = z.view(users, n, -1).select(1, n - 1)
        return torch.where(real.select(1, n - 1)[:, None], latest, self.norm.bias)

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Int[Tensor, "U N"] | Prefixes | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U K"]:
        """Vectors z of users after the latest item of their histories; `users` has no effect.

        `rng` draws dropout, None switches dropout off.
        """
        if histories is None:
            raise ValueError("histories = None: SASRec encodes nothing else; pass them")
        if isinstance(histories, Tensor):
            if torch.compiler.is_compiling():
                return self.padded_vectors(histories)
            rows = max(1, ROWS // histories.shape[1])
            if len(histories) > rows and not torch.is_grad_enabled():
                parts = torch.split(histories, rows)
                return torch.cat([self.encode_users(None, part, rng) for part in parts])
            histories = Prefixes.of_padded(histories, len(self.item_embedding))
        states = self.states(histories.sequences, rng)
        # An empty history has the position −1: the last row, which is the norm of a zero state.
        states = torch.cat([states, self.norm.bias[None]])
        return states.index_select(0, histories.last % len(states))

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I K"]:
        """Embeddings m_i of items; `histories` and `rng` have no effect."""
        return self.item_embedding.index_select(0, known(items, "item", self))

    def forward(self, batch: Batch, rng: torch.Generator | None) -> Float[Tensor, " P"]:
        """Logits z_u · m_i of the batch's pairs; `rng` None switches dropout off."""
        histories = batch.user_histories
        assert not isinstance(histories, Ragged)
        users = self.encode_users(batch.users, histories, rng)
        items = self.encode_items(batch.items)
        return pair_products(users, items, batch.pair_users, batch.pair_items)

    def contributions(
        self,
        history: npt.NDArray[np.int64],
        item: int,
        z_item: Tensor | None,
        tolerance: float = 0.0,
    ) -> npt.NDArray[np.float64]:
        """Change of the score of an item when each item joins the history, float64 [n].

        The items join from the latest to the oldest, so that the positions of those already there
        stay as they are. The changes add up exactly.
        """
        assert z_item is not None
        encode = partial(self.encode_users, None)
        return joining(encode, history, self.config.history_length, z_item)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The embedding table of the items."""
        return [self.item_embedding]

"""COMET: convolutional dimension interaction (arXiv 2007.14129v1), Eqs. 2–8 as in the paper.

Users u and items i have embeddings p_u and q_i of size K, the rows of two tables. N(u) is the
history of a user, and N(i) is the history of an item. Each has at most N rows, padded in front.

    E_i   = rows q_j, j ∈ N(u)                    embedding map of user u, [N, K]          (Eq. 2)
    E_u   = rows p_k, k ∈ N(i)                    embedding map of item i, [N, K]          (Eq. 3)
    c_l   = ReLU(W_l ∗ E + b_l)                   filters [N, H_l] over all rows of a map  (Eq. 4)
    c     = [c_1; …; c_L]                         cross features, [D]                      (Eq. 5)
    x     = ReLU(W¹ c + b¹), …                    hidden layers                            (Eq. 6)
    p'_u  = W x + b                               interaction vector, [K]; q'_i likewise   (Eq. 7)
    ŷ_ui  = σ(hᵀ((p_u + p'_u) ⊙ (q_i + q'_i)))    prediction                               (Eq. 8)

The indices of the maps are those of the paper: E_i is built from item rows and is the embedding map
of a user. E_u is built from user rows and is the map of an item. A tower is the network of Eqs. 2–7
that turns a history into an interaction vector. There is one tower for users and one for items.

Eq. 8 separates into z_u = p_u + p'_u and z_i = q_i + q'_i. So a step encodes each distinct user and
item once, and not once per pair, with the same result. One choice differs from the paper: the
histories leave out the batch's own positives (ADR 0003).

| parameter | shape | initial values |
|---|---|---|
| user_embedding (p), item_embedding (q) | [m, K], [n, K] | uniform ± init_scale |
| filters and biases of a convolution | [channels, N, H_l], [channels] | uniform ± 1/√(N · H_l) |
| weights and biases of an MLP | [out, in], [out] | Xavier uniform, 0 |
| h | [K] | Xavier uniform |

This file is the model of the paper. `comet_variants` extends it with the settings for ablations:
another network in the towers, no item tower, or no towers. The preset `best` is one of these
variants. `build("comet", …)` always creates the subclass `CometVariant` from that file. With the
paper's settings, `CometVariant` computes exactly what this file defines.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

from comet_rec.models.comet_config import CometConfig
from comet_rec.models.kernels.pair_products import pair_products
from comet_rec.models.layers import MultiWidthConvolution, Perceptron, Windows, uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

__all__ = ["COMET", "CometConfig", "Tower"]


class Tower(nn.Module):
    """Network from a history to an interaction vector: map, convolutions, MLP (Eqs. 2–7).

    Parameters
    ----------
    config : CometConfig
    rng : torch.Generator
        Draws the initial parameters: first the convolution's, then the MLP's.
    """

    def __init__(self, config: CometConfig, rng: torch.Generator) -> None:
        super().__init__()
        n, k = config.history_length, config.embedding_dim
        self.convolution = MultiWidthConvolution(
            n, k, config.effective_widths, config.channels, config.convolution, rng
        )
        features = self.convolution.out_features  # D
        self.mlp = Perceptron(features, config.hidden, k, config.dropout, rng)

    def forward(
        self,
        table: Float[Tensor, "V K"],
        histories: Int[Tensor, "B N"] | Windows,
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """Interaction vectors of histories (Eqs. 2–7).

        Parameters
        ----------
        table : Tensor [V, K]
            Embeddings of the members of the histories: of items for the tower of users.
        histories : int [B, N] or Windows
            Rows of `table` that each embedding map stacks. Index V is the pad, a row of zeros.
        rng : torch.Generator or None
            Draws dropout; None switches dropout off.
        """
        # Eqs. 2–5 and the product W¹ c of Eq. 6, in one call. The cross features [B, D] are wide (D
        # is 2,776 in the paper's setting), so they are multiplied while they are in the cache.
        product = self.convolution(table, histories, self.mlp.weights[0])  # [B, O]
        return self.mlp.after_first(product, rng)  # the rest of Eq. 6, and Eq. 7: [B, K]


class COMET(nn.Module):
    """The model of the paper (Eqs. 2–8), with one tower for users and one for items.

    Parameters
    ----------
    config : CometConfig
    n_users, n_items : int
        m and n. Index n pads the histories of users, and index m those of items.
    rng : torch.Generator
        Draws the initial parameters, in the order of `__init__`.
    """

    def __init__(
        self, config: CometConfig, n_users: int, n_items: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        k = config.embedding_dim
        self.config = config
        self.user_embedding = uniform((n_users, k), config.init_scale, rng)  # p, [m, K]
        self.item_embedding = uniform((n_items, k), config.init_scale, rng)  # q, [n, K]
        self.user_tower = Tower(config, rng)  # N(u) → p'_u
        self.item_tower = Tower(config, rng)  # N(i) → q'_i, with weights of its own
        self.h = uniform((k,), math.sqrt(6 / (k + 1)), rng)  # [K]

    def encode_users(
        self,
        users: Int[Tensor, " U"] | None,
        histories: Int[Tensor, "U N"],
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "U K"]:
        """Vectors z_u = p_u + p'_u of users (Eq. 8), from their histories N(u).

        Parameters
        ----------
        users : int64 [U] or None
            None for users who were not in training; p_u is then zero.
        histories : int [U, N]
            Items, padded in front with n.
        rng : torch.Generator or None
            Draws dropout; None switches dropout off.
        """
        interaction: Tensor = self.user_tower(self.item_embedding, histories, rng)  # p'_u, [U, K]
        if users is None:
            return interaction
        return interaction + self.own_embeddings(self.user_embedding, users, rng)

    def encode_items(
        self,
        items: Int[Tensor, " I"] | None,
        histories: Int[Tensor, "I N"],
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "I K"]:
        """Vectors z_i = q_i + q'_i of items (Eq. 8), from their histories N(i).

        Parameters
        ----------
        items : int64 [I] or None
            None for items that were not in training; q_i is then zero.
        histories : int [I, N]
            Users, padded in front with m.
        rng : torch.Generator or None
            Draws dropout; None switches dropout off.
        """
        interaction: Tensor = self.item_tower(self.user_embedding, histories, rng)  # q'_i, [I, K]
        if items is None:
            return interaction
        return interaction + self.own_embeddings(self.item_embedding, items, rng)

    def own_embeddings(
        self,
        table: Float[Tensor, "V K"],
        indices: Int[Tensor, " B"],
        rng: torch.Generator | None,
    ) -> Float[Tensor, "B K"]:
        """Embeddings p_u or q_i: rows of `table` at `indices`.

        In training, a random share `id_embedding_dropout` of the rows is set to zero; `rng` None
        switches this off.
        """
        own = table.index_select(0, indices)  # [B, K]
        if rng is None or self.config.id_embedding_dropout == 0:
            return own
        # The kept embeddings are not scaled up, unlike in usual dropout: a zero embedding beside an
        # interaction vector is exactly the input of a new user.
        kept = torch.rand((len(own), 1), generator=rng, device=own.device)  # whole vectors
        return own * (kept >= self.config.id_embedding_dropout)

    def score(
        self, z_users: Float[Tensor, "U K"], z_items: Float[Tensor, "I K"]
    ) -> Float[Tensor, "U I"]:
        """Logit of every user with every item, hᵀ(z_u ⊙ z_i): Eq. 8 before σ."""
        return (z_users * self.h) @ z_items.T

    def score_of_pairs(
        self,
        z_users: Float[Tensor, "U K"],
        z_items: Float[Tensor, "I K"],
        pair_users: Int[Tensor, " P"],
        pair_items: Int[Tensor, " P"],
    ) -> Float[Tensor, " P"]:
        """Logit of each (user, item) pair, that is, entries of the matrix `score`.

        `pair_users` and `pair_items` are row numbers in `z_users` and `z_items`. `pair_users` must
        ascend.
        """
        return pair_products(z_users * self.h, z_items, pair_users, pair_items)

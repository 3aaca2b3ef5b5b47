"""COMET: convolutional dimension interaction (arXiv 2007.14129v1), Eqs. 2–8, as the paper has it.

Users u and items i have embeddings p_u and q_i of size K, the rows of two tables. N(u) is the
history of a user, N(i) that of an item, at most N of each, padded in front.

    E_i   = rows q_j, j ∈ N(u)                    embedding map of a user, [N, K]          (Eq. 2)
    E_u   = rows p_k, k ∈ N(i)                    embedding map of an item, [N, K]         (Eq. 3)
    c_l   = ReLU(W_l ∗ E + b_l)                   filters [N, H_l] over all rows of a map  (Eq. 4)
    c     = [c_1; …; c_L]                         cross features, [D]                      (Eq. 5)
    x     = ReLU(W¹ c + b¹), …                    hidden layers                            (Eq. 6)
    p'_u  = W x + b                               interaction vector, [K]; q'_i likewise   (Eq. 7)
    ŷ_ui  = σ(hᵀ((p_u + p'_u) ⊙ (q_i + q'_i)))    prediction                               (Eq. 8)

Eq. 8 separates into z_u = p_u + p'_u and z_i = q_i + q'_i, so a step encodes each distinct user and
item once, and not once a pair: the numbers are the same. One choice changes numbers: histories
leave out the batch's own positives (ADR 0003).

| parameter | shape | starts as |
|---|---|---|
| user_embedding (p), item_embedding (q) | [m, K], [n, K] | uniform ± init_scale |
| filters and biases of a convolution | [channels, N, H_l], [channels] | uniform ± 1/√(N · H_l) |
| weights and biases of an MLP | [out, in], [out] | Xavier uniform, 0 |
| h | [K] | Xavier uniform |

Other towers, and COMET with one tower or none, are in `comet_variants`. The preset `best` is one of
these. The variants' class is what the registry builds; with the paper's settings every line that
computes is one of this file.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

from comet_rec.models.comet_config import CometConfig
from comet_rec.models.kernels.pair_products import pair_products
from comet_rec.models.layers import MultiWidthConvolution, Perceptron, uniform

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Float, Int

__all__ = ["COMET", "CometConfig", "Tower"]


class Tower(nn.Module):
    """Embedding map → convolutions → MLP: the interaction vector (Eqs. 2–7).

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
        histories: Int[Tensor, "B N"],
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """Interaction vectors of histories whose rows come from `table`.

        Parameters
        ----------
        table : Tensor [V, K]
        histories : int [B, N]
            Index V is the pad, a row of zeros.
        rng : torch.Generator or None
            Draws dropout; None switches it off.
        """
        # Eqs. 2–5, then W¹ c of Eq. 6 in the same pass: the cross features [B, D] are wide (D is
        # 2,776 in the paper's setting), and the product meets them while they are in the cache.
        product = self.convolution(table, histories, self.mlp.weights[0])  # [B, O]
        return self.mlp.after_first(product, rng)  # the rest of Eqs. 6 and 7: [B, K]


class COMET(nn.Module):
    """COMET, Eqs. 2–8.

    Parameters
    ----------
    config : CometConfig
    n_users, n_items : int
        m and n; these indices are the pads of the two histories.
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
        """z_u = p_u + p'_u (Eq. 8); N(u) picks rows of the item table (Eq. 2).

        Parameters
        ----------
        users : int64 [U] or None
            None for users that training never saw: p_u is zero.
        histories : int [U, N]
            Items, padded in front with n.
        rng : torch.Generator or None
            Draws dropout; None switches it off.
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
        """z_i = q_i + q'_i (Eq. 8); N(i) picks rows of the user table (Eq. 3).

        Parameters
        ----------
        items : int64 [I] or None
            None for items that training never saw: q_i is zero.
        histories : int [I, N]
            Users, padded in front with m.
        rng : torch.Generator or None
            Draws dropout; None switches it off.
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
        """p_u or q_i; in training a share `id_embedding_dropout` of them is zero as a whole."""
        own = table.index_select(0, indices)
        if rng is None or self.config.id_embedding_dropout == 0:
            return own
        # The others are not made larger to match: a user whom training never saw meets exactly
        # this case, an interaction vector beside a zero.
        kept = torch.rand((len(own), 1), generator=rng, device=own.device)
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
        """Entries of `score` at chosen pairs, ascending by user: what a training step needs."""
        return pair_products(z_users * self.h, z_items, pair_users, pair_items)

"""Causal self-attention over sequences of different lengths, without pads and without masks.

The rows of all sequences stand in one matrix [V, D], so every other layer is one operation without
pads. Attention alone needs the sequences. They are put in the order of their lengths:

    a a | c c c | b b    →    a a b b | c c c        groups of one length: [2, 2, D], [1, 3, D]

Sequences of one length are a dense block of that order, a view without a copy. A causal mask
belongs to the attention itself: row t reads rows 0 … t of its sequence.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec import verify
from comet_rec.data.histories import Ragged

with contextlib.suppress(ImportError):  # shapes are checked in tests only
    from jaxtyping import Bool, Float


@dataclass(frozen=True, eq=False)
class ByLength:
    """Rows of ragged sequences, in the order of the sequences' lengths.

    Parameters
    ----------
    values : int64 [V]
        The values of the sequences in that order.
    places : int64 [V]
        For each value in the order of the caller, its place in `values`.
    from_end : int64 [V]
        Number of values after each one in its sequence.
    groups : list of (int, int)
        Length, and number of sequences of that length, ascending; no length is 0.
    """

    values: Tensor
    places: Tensor
    from_end: Tensor
    groups: list[tuple[int, int]]

    @staticmethod
    def of(sequences: Ragged) -> ByLength:
        """The values of `sequences`, ordered by the lengths of the sequences."""
        lengths = sequences.counts
        # All values of a sequence have its length as key, and the sort is stable.
        by_value = lengths.repeat_interleave(lengths)  # [V]
        order = torch.argsort(by_value, stable=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        ends = sequences.starts[1:].repeat_interleave(lengths)  # end of each value's sequence
        from_end = ends - 1 - torch.arange(len(order), device=order.device)

        sizes, numbers = torch.unique(lengths[lengths > 0], return_counts=True)
        groups = list(zip(sizes.tolist(), numbers.tolist(), strict=True))
        return ByLength(sequences.values[order], places, from_end[order], groups)


def causal_attention(
    queries: Float[Tensor, "V D"],
    keys: Float[Tensor, "V D"],
    values: Float[Tensor, "V D"],
    heads: int,
    groups: list[tuple[int, int]],
) -> Float[Tensor, "V D"]:
    """Scaled dot-product attention of each row over the rows up to itself in its sequence.

    Parameters
    ----------
    queries, keys, values : Tensor [V, D]
        Rows in the order of `ByLength`.
    heads : int
        Number of heads; each reads D / heads columns.
    groups : list of (int, int)
        Length, and number of sequences, as in `ByLength`.
    """
    if verify.slow():
        return direct_attention(queries, keys, values, heads, groups)
    sizes = [length * number for length, number in groups]
    outputs = []
    parts = (torch.split(x, sizes) for x in (queries, keys, values))
    for (length, number), *rows in zip(groups, *parts, strict=True):
        # [b · L, D] → [b, heads, L, D / heads]
        q, k, v = (x.view(number, length, heads, -1).transpose(1, 2) for x in rows)
        attended = nnf.scaled_dot_product_attention(q, k, v, is_causal=True)
        outputs.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(outputs) if outputs else values


def direct_attention(
    queries: Float[Tensor, "V D"],
    keys: Float[Tensor, "V D"],
    values: Float[Tensor, "V D"],
    heads: int,
    groups: list[tuple[int, int]],
) -> Float[Tensor, "V D"]:
    """The same result as `causal_attention`, one sequence at a time (slow, for tests)."""
    outputs, first = [], 0
    lengths = [length for length, number in groups for _ in range(number)]
    for length in lengths:
        rows = slice(first, first + length)
        q, k, v = (x[rows].view(length, heads, -1) for x in (queries, keys, values))
        logits = torch.einsum("ihd,jhd->hij", q, k) / q.shape[2] ** 0.5  # [heads, L, L]
        later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        shares = torch.softmax(logits.masked_fill(later, -torch.inf), dim=2)
        outputs.append(torch.einsum("hij,jhd->ihd", shares, v).flatten(1))
        first += length
    return torch.cat(outputs) if outputs else values


def padded_attention(
    queries: Float[Tensor, "V D"],
    keys: Float[Tensor, "V D"],
    values: Float[Tensor, "V D"],
    heads: int,
    real: Bool[Tensor, "n L"],
) -> Float[Tensor, "V D"]:
    """The same result as `causal_attention`, for sequences that are padded to one length L.

    It is slower, and of fixed shape: for exported graphs and for tests. There are V = n · L rows,
    one for each place, and `real` is false at pads. The result at a pad has no meaning.
    """
    number, longest = real.shape
    # [n · L, D] → [n, heads, L, D / heads]
    q, k, v = (x.view(number, longest, heads, -1).transpose(1, 2) for x in (queries, keys, values))
    places = torch.arange(longest, device=real.device)
    # A row reads the real rows up to itself, and always itself, since a softmax of nothing is NaN.
    readable = (places[:, None] >= places) & real[:, None, :]  # [n, L, L]
    readable = readable | (places[:, None] == places)
    attended = nnf.scaled_dot_product_attention(q, k, v, attn_mask=readable[:, None])
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)

"""Diverse lists by maximal marginal relevance (Carbonell, Goldstein, SIGIR 1998).

A list is filled item by item. The next item is the candidate with the largest

    (1 − d) · relevance − d · largest cosine with an item that is already in the list,

where d is the diversity and relevance is the score, scaled to [0, 1] among the candidates of the
list. With d = 0 the list is in the order of the scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

QUERIES = 128
"""Number of lists at a time. Each list needs the cosines of all pairs of its candidates."""


def diversified(
    items: Int64, scores: Float32, factors: Tensor, k: int, diversity: float
) -> tuple[Int64, Float32]:
    """Choose k items from each list of candidates by maximal marginal relevance.

    Parameters
    ----------
    items : int64 [Q, M]
        Candidates of each list, best first; −1 fills the rest of a row.
    scores : float32 [Q, M]
        Scores of the candidates.
    factors : Tensor [n, W]
        Item vectors that are compared by their cosine.
    k : int
    diversity : float
        d, from 0 to 1.

    Returns
    -------
    items : int64 [Q, k']
        Chosen items in the order of the choice, k' = min(k, M); −1 fills the rest of a row.
    scores : float32 [Q, k']
        Their scores.
    """
    k = min(k, items.shape[1])
    picked = np.full((len(items), k), -1, dtype=np.int64)
    picked_scores = np.full((len(items), k), -np.inf, dtype=np.float32)
    for first in range(0, len(items), QUERIES):
        block = slice(first, first + QUERIES)
        places = _picked(items[block], scores[block], factors, k, diversity)  # [B, k]
        picked[block] = np.take_along_axis(items[block], places, axis=1)
        picked_scores[block] = np.take_along_axis(scores[block], places, axis=1)
    return picked, picked_scores


def _picked(items: Int64, scores: Float32, factors: Tensor, k: int, diversity: float) -> Int64:
    """Columns of `items` that maximal marginal relevance chooses, in order, [B, k]."""
    exists = torch.from_numpy(items >= 0)  # [B, M]
    vectors = nnf.normalize(factors[torch.from_numpy(np.maximum(items, 0))], dim=2)  # [B, M, W]
    cosines = vectors @ vectors.mT  # [B, M, M]
    relevance = torch.from_numpy(scores).masked_fill(~exists, 0)
    highest = relevance.masked_fill(~exists, -torch.inf).amax(dim=1, keepdim=True)
    lowest = relevance.masked_fill(~exists, torch.inf).amin(dim=1, keepdim=True)
    relevance = (relevance - lowest) / (highest - lowest).clamp(min=1e-12)
    relevance = relevance.masked_fill(~exists, -torch.inf)  # behind all that exist

    lists = torch.arange(len(items))
    likeness = torch.zeros_like(relevance)  # largest cosine with an item of the list, [B, M]
    places = torch.empty((len(items), k), dtype=torch.int64)
    taken = torch.zeros_like(exists)
    for position in range(k):
        merit = (1 - diversity) * relevance - diversity * likeness
        # A candidate that does not exist comes last, one that is taken never again.
        merit = merit.masked_fill(~exists, -1e30).masked_fill(taken, -torch.inf)
        best = merit.argmax(dim=1)  # the first of equal ones: the better score
        places[:, position] = best
        taken[lists, best] = True
        now = cosines[lists, best]
        likeness = now if position == 0 else torch.maximum(likeness, now)
    return places.numpy()

"""Findings of a split by time: new users, new items, and what the lists are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.queries import Bool, Queries
from comet_rec.data.split import HeldOut, Split
from comet_rec.data.time_split import counts_of
from comet_rec.evaluation.metrics import TieRule
from comet_rec.evaluation.ranking import Int64, Ranks, blocks, checked
from comet_rec.models.interfaces import Scorer

LENGTH = 10
"""Number of items of the lists whose coverage and popularity are measured."""


def findings(
    scores: Scorer, split: Split, sampled: Ranks, ranked: HeldOut | None, full: Ranks | None
) -> dict[str, Any]:
    """Findings beside the metrics of a model, as plain data.

    Parameters
    ----------
    scores : Scorer
        The model's scores of the test queries.
    split : Split
        A split by time.
    sampled : Ranks
        Ranks among sampled candidates, of all test items.
    ranked : HeldOut or None
        Test items of the full ranking; None without it.
    full : Ranks or None
        Ranks of the full ranking.

    Returns
    -------
    dict
        "target" and "lists", the number of lists; the counts of `counts_of`; "groups", the metrics
        of users with and without an earlier row, and of items that only validation rows have;
        "coverage@10" and "popularity@10", as `list_figures` returns them, or None.
    """
    queries = split.test.queries
    assert queries is not None
    groups = {}
    for name, mask in _groups(split, split.test).items():
        if not mask.any():
            continue
        groups[name] = {
            "users": len(np.unique(split.test.users[mask])),
            "items": int(mask.sum()),
            "sampled": _means(sampled, mask, split.protocol.ties),
            "full": None,
        }
    if ranked is not None and full is not None:
        for name, mask in _groups(split, ranked).items():
            if mask.any():
                groups[name]["full"] = _means(full, mask, split.protocol.ties)
    counts = counts_of(split.interactions, split.part, split.test.users, queries.exists)
    popularity = np.bincount(split.known.items, minlength=split.known.n_items)
    lists: dict[str, float | None] = {f"coverage@{LENGTH}": None, f"popularity@{LENGTH}": None}
    if ranked is not None:
        lists |= list_figures(scores, ranked, popularity)
    return {"target": split.protocol.target, "lists": len(queries), **counts, **lists,
            "groups": groups}  # fmt: skip


def _groups(split: Split, held: HeldOut) -> dict[str, Bool]:
    """Masks of held-out items, bool [T], by the name of the group."""
    train = split.train
    known_users = np.bincount(split.known.users, minlength=train.n_users) > 0
    trained_items = np.bincount(train.items, minlength=train.n_items) > 0
    is_known = known_users[held.users]
    return {
        "known users": is_known,
        "new users": ~is_known,
        "items without a training row": ~trained_items[held.positives],
    }


def _means(ranks: Ranks, mask: Bool, ties: TieRule) -> dict[str, float]:
    return ranks.take(mask).means(ties)[0]


def list_figures(
    scores: Scorer, held: HeldOut, popularity: Int64, length: int = LENGTH
) -> dict[str, float]:
    """Catalogue coverage and mean popularity of the lists of held-out items.

    Parameters
    ----------
    scores : Scorer
    held : HeldOut
        Items with queries; each query has one list.
    popularity : int64 [I]
        Number of earlier rows of each item.
    length : int
        Number of items of a list.

    Returns
    -------
    dict
        "coverage@10": share of the existing items that are in some list. "popularity@10": mean
        number of earlier rows of the items, over lists and places. Items of equal scores are taken
        in the order of their ids.
    """
    queries = held.queries
    assert queries is not None
    numbers = np.unique(held.lists)
    listed = np.zeros(len(popularity), dtype=bool)
    rows = places = 0
    for block in blocks(len(numbers), 4 * scores.n_items):
        chosen = _listed(checked(scores.score_all(numbers[block])), queries, numbers[block], length)
        listed |= chosen.any(axis=0)
        rows += int(chosen.sum(axis=0) @ popularity)
        places += int(chosen.sum())
    return {
        f"coverage@{length}": float(listed.sum() / queries.exists.sum()),
        f"popularity@{length}": rows / max(places, 1),
    }


def _listed(scores: npt.NDArray[np.float32], queries: Queries, numbers: Int64, length: int) -> Bool:
    """Whether each item is in the list of each query, bool [B, I]; `scores` are [B, I]."""
    lowest = np.float32(-np.inf)
    scores = np.where(queries.exists, scores, lowest)
    scores[queries.seen(numbers)] = lowest
    length = min(length, scores.shape[1])
    least = np.partition(scores, -length, axis=1)[:, -length:].min(axis=1)[:, None]
    above, level = scores > least, scores == least
    room = length - above.sum(axis=1)[:, None]
    level &= np.cumsum(level, axis=1) <= room
    return np.asarray((above | level) & (scores > lowest))

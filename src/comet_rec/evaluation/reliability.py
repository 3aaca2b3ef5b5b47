"""How far sampled figures can be trusted: other draws, other numbers of negatives, popularity.

Krichene & Rendle (KDD 2020): a metric among sampled candidates is another metric than the one over
the catalogue, and the two may order models differently. From full ranks the expectation of the
sampled figure follows for any number of negatives, without drawing any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from comet_rec.data.interactions import Interactions
from comet_rec.data.sampling import unobserved_items
from comet_rec.data.split import HeldOut
from comet_rec.evaluation.metrics import TieRule, figures
from comet_rec.evaluation.ranking import Ranks, sampled_ranks
from comet_rec.models.interfaces import Scorer
from comet_rec.random import generator

Int64 = npt.NDArray[np.int64]
STRATA = ("head", "middle", "tail")
TIE_SHARES = 16
"""Places among the tied that are taken one by one."""
RESAMPLED = 500
"""Draws of users for an interval of τ."""


def unseen_others(
    held: HeldOut, seen: Interactions, among: npt.NDArray[np.bool_] | None = None
) -> Int64:
    """Items that a full ranking compares each positive with, int64 [T].

    Parameters
    ----------
    held : HeldOut
    seen : Interactions
    among : bool [n], optional
        Items that count; all without it.
    """
    rows, items = seen.interacted_items(held.users)
    counts = np.ones(seen.n_items, dtype=bool) if among is None else among
    seen_rows = rows[(items != held.positives[rows]) & counts[items]]
    seen_items = np.bincount(seen_rows, minlength=len(held))
    return np.asarray(counts.sum() - counts[held.positives] - seen_items)


def expected_figures(ranks: Ranks, others: Int64, negatives: int, k: int) -> tuple[float, float]:
    """HR@k and NDCG@k that sampling `negatives` candidates gives in the mean over all draws.

    With b of M other items better than the positive, the number among m that are drawn without
    replacement is hypergeometric (M, b, m). Of t tied ones 0 to t count as better, each as likely;
    where they are many, stretches of these places are stood for by their middle: the first
    `TIE_SHARES` one by one, then each stretch an eighth as long as all before it.

    Parameters
    ----------
    ranks : Ranks
        Over the whole catalogue.
    others : int64 [T]
        M, items that each positive was ranked against.
    negatives : int
        m; all of the others where there are fewer.
    k : int
    """
    # A user with ties stands there once for each share of them.
    places = ranks.tied + 1
    edges = _stretches(int(places.max(initial=1)))
    counts = np.searchsorted(edges, places)
    users = np.repeat(np.arange(len(counts)), counts)
    stretch = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    low, high = edges[stretch], np.minimum(edges[stretch + 1], places[users])
    tied = (low + high - 1) // 2
    others = others[users]
    better = np.minimum(ranks.better[users] + tied, others)
    drawn = np.minimum(negatives, others)
    chances = _hypergeometric(others, better, drawn, k)
    gains = 1 / np.log2(np.arange(k) + 2)
    weights = (high - low) / places[users] / max(len(counts), 1)
    # Not a product of the linear algebra library, whose last digits go by the threads.
    figures = np.stack([chances.sum(axis=1), (chances * gains).sum(axis=1)]) * weights
    hits, gain = figures.sum(axis=1)
    return float(hits), float(gain)


def _stretches(places: int) -> Int64:
    """Where each stretch of places begins, and one begin past the last place."""
    edges = list(range(TIE_SHARES + 1))
    while edges[-1] < places:
        edges.append(edges[-1] + edges[-1] // 8)
    return np.array(edges, dtype=np.int64)


def _hypergeometric(others: Int64, better: Int64, drawn: Int64, k: int) -> npt.NDArray[np.float64]:
    """Chances of 0 … k − 1 better ones among those drawn, [R, k].

    From the chance of none and the ratios of neighbours; where none is impossible, as scipy has it.
    """
    from scipy.special import gammaln
    from scipy.stats import hypergeom

    places = np.arange(k)
    worse = others - better
    out = np.zeros((len(others), k))
    certain = worse < drawn  # at least one better item is drawn
    numbers = others[certain, None], better[certain, None], drawn[certain, None]
    out[certain] = hypergeom.pmf(places[None], *numbers)
    m, b, n, w = (x[~certain].astype(np.float64) for x in (others, better, drawn, worse))
    none = gammaln(w + 1) - gammaln(w - n + 1) - gammaln(m + 1) + gammaln(m - n + 1)
    ratios = [(b - j) * (n - j) / ((j + 1) * (w - n + j + 1)) for j in range(k - 1)]
    steps = np.cumprod(np.maximum(np.column_stack([np.ones_like(m), *ratios]), 0), axis=1)
    out[~certain] = np.exp(none)[:, None] * steps
    return out


def redrawn(
    scores: Scorer, log: Interactions, held: HeldOut, seeds: Sequence[int], ties: TieRule
) -> list[dict[str, float]]:
    """Sampled figures under other draws of as many candidates, one dict for each seed."""
    unobserved = unobserved_items(log)
    found = []
    for seed in seeds:
        rng = generator(seed, "candidates.again")
        candidates = unobserved.draw_distinct(held.users, held.candidates.shape[1], rng)
        ranks = sampled_ranks(scores, replace(held, candidates=candidates))
        found.append(figures(ranks.better, ranks.tied, ties)[0])
    return found


def stratum_of(items: Int64, popularity: Int64) -> npt.NDArray[np.int8]:
    """0 head, 1 middle, 2 tail: the most popular items that hold a third of all rows, and so on.

    Parameters
    ----------
    items : int64 [T]
    popularity : int64 [n]
        Rows of each item in training.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    strata = np.empty(len(popularity), dtype=np.int8)
    strata[order] = np.minimum(3 * before // max(int(popularity.sum()), 1), 2)
    strata[popularity == 0] = 2
    return strata[items]


def by_popularity(
    ranks: Ranks, held: HeldOut, train: Interactions, ties: TieRule
) -> dict[str, dict[str, float]]:
    """Users, HR@10 and NDCG@10 by how popular the test item is in training."""
    popularity = np.bincount(train.items, minlength=train.n_items)
    strata = stratum_of(held.positives, popularity)
    found = {}
    for place, name in enumerate(STRATA):
        inside = strata == place
        if not inside.any():
            continue
        means, _ = figures(ranks.better[inside], ranks.tied[inside], ties)
        users = float(inside.sum())
        found[name] = {"users": users, "HR@10": means["HR@10"], "NDCG@10": means["NDCG@10"]}
    return found


def agreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's τ between two figures of the same models; 1 means the same order."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def agreement_interval(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of τ between the means of both, under resampling of users.

    Parameters
    ----------
    first, second : float64 [models, T]
        Values of each model's test users.
    seed : int
    """
    rng = generator(seed, "agreement.bootstrap")
    users = first.shape[1]
    found = []
    for _ in range(RESAMPLED):
        counts = rng.multinomial(users, np.full(users, 1 / users))
        found.append(agreement((first @ counts).tolist(), (second @ counts).tolist()))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)

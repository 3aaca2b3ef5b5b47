"""Reliability of sampled metrics: other candidate samples, numbers of negatives, item popularity.

A sampled metric may order models differently from the full metric (Krichene & Rendle, KDD 2020).
The ranks among all items give the expected sampled metric for any number of negatives, without
sampling.
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
"""Strata of items by popularity; `stratum_of` defines them."""
TIE_SHARES = 16
"""Number of positions among tied items that `expected_figures` computes one by one."""
RESAMPLED = 500
"""Number of bootstrap samples of users for an interval of Kendall's τ."""


def unseen_others(
    held: HeldOut, seen: Interactions, among: npt.NDArray[np.bool_] | None = None
) -> Int64:
    """Number of items that each positive is ranked against in a full ranking, int64 [T].

    The positive itself and its user's other items in `seen` do not count.

    Parameters
    ----------
    held : HeldOut
        Users and their positives.
    seen : Interactions
        Rows whose items the ranking of their user leaves out.
    among : bool [n], optional
        Whether each item counts; by default all items do.
    """
    rows, items = seen.interacted_items(held.users)  # each row is a position in held
    counts = np.ones(seen.n_items, dtype=bool) if among is None else among
    seen_rows = rows[(items != held.positives[rows]) & counts[items]]
    seen_items = np.bincount(seen_rows, minlength=len(held))
    return np.asarray(counts.sum() - counts[held.positives] - seen_items)


def expected_figures(ranks: Ranks, others: Int64, negatives: int, k: int) -> tuple[float, float]:
    """Expected HR@k and NDCG@k over all samples of `negatives` candidates.

    Let b of M other items rank above the positive. If m of the M items are sampled without
    replacement, the number of them above the positive is hypergeometric (M, b, m).

    If t items tie with the positive, 0 to t of them rank above it, with equal probability. The
    first `TIE_SHARES` of these numbers are computed one by one. Later numbers form stretches, and
    the middle of a stretch stands for all its numbers. Each stretch is an eighth as long as all
    numbers before it.

    Parameters
    ----------
    ranks : Ranks
        Ranks among all items.
    others : int64 [T]
        M, the number of items that each positive was ranked against.
    negatives : int
        m, the number of sampled negatives; M if M is smaller.
    k : int
    """
    # R rows: one for each user and each stretch of the user's positions among tied items.
    places = ranks.tied + 1
    edges = _stretches(int(places.max(initial=1)))
    counts = np.searchsorted(edges, places)
    users = np.repeat(np.arange(len(counts)), counts)
    # Number of the stretch within its user, [R].
    stretch = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    low, high = edges[stretch], np.minimum(edges[stretch + 1], places[users])
    tied = (low + high - 1) // 2  # middle of the places low … high − 1
    others = others[users]
    better = np.minimum(ranks.better[users] + tied, others)
    drawn = np.minimum(negatives, others)
    chances = _hypergeometric(others, better, drawn, k)  # [R, k]
    gains = 1 / np.log2(np.arange(k) + 2)
    weights = (high - low) / places[users] / max(len(counts), 1)
    # No matrix product: its last digits would depend on the number of threads.
    figures = np.stack([chances.sum(axis=1), (chances * gains).sum(axis=1)]) * weights
    hits, gain = figures.sum(axis=1)
    return float(hits), float(gain)


def _stretches(places: int) -> Int64:
    """First number of each stretch; the last entry is `places` or more."""
    edges = list(range(TIE_SHARES + 1))
    while edges[-1] < places:
        edges.append(edges[-1] + edges[-1] // 8)
    return np.array(edges, dtype=np.int64)


def _hypergeometric(others: Int64, better: Int64, drawn: Int64, k: int) -> npt.NDArray[np.float64]:
    """Probabilities that 0 … k − 1 of the sampled items rank above the positive, [R, k].

    Each probability is computed from the one before it, starting at 0 items. Rows in which 0 items
    are impossible come from scipy.
    """
    from scipy.special import gammaln
    from scipy.stats import hypergeom

    places = np.arange(k)
    worse = others - better
    out = np.zeros((len(others), k))
    certain = worse < drawn  # at least one better item is sampled
    numbers = others[certain, None], better[certain, None], drawn[certain, None]
    out[certain] = hypergeom.pmf(places[None], *numbers)
    m, b, n, w = (x[~certain].astype(np.float64) for x in (others, better, drawn, worse))
    # log P(0) = log C(w, n) − log C(m, n), and ratios[j] = P(j + 1) / P(j).
    none = gammaln(w + 1) - gammaln(w - n + 1) - gammaln(m + 1) + gammaln(m - n + 1)
    ratios = [(b - j) * (n - j) / ((j + 1) * (w - n + j + 1)) for j in range(k - 1)]
    steps = np.cumprod(np.maximum(np.column_stack([np.ones_like(m), *ratios]), 0), axis=1)
    out[~certain] = np.exp(none)[:, None] * steps
    return out


def redrawn(
    scores: Scorer, log: Interactions, held: HeldOut, seeds: Sequence[int], ties: TieRule
) -> list[dict[str, float]]:
    """Sampled metrics on new samples of candidates, one dict for each seed.

    Each user of `held` gets as many new candidates as before.
    """
    unobserved = unobserved_items(log)
    means = []
    for seed in seeds:
        rng = generator(seed, "candidates.again")
        candidates = unobserved.draw_distinct(held.users, held.candidates.shape[1], rng)
        ranks = sampled_ranks(scores, replace(held, candidates=candidates))
        means.append(figures(ranks.better, ranks.tied, ties)[0])
    return means


def stratum_of(items: Int64, popularity: Int64) -> npt.NDArray[np.int8]:
    """Popularity stratum of each item, int8 [T]: 0 head, 1 middle, 2 tail.

    The head has the most popular items that hold a third of all rows; the middle has the next
    third.

    Parameters
    ----------
    items : int64 [T]
    popularity : int64 [n]
        Number of training rows of each item.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]  # rows of all more popular items
    strata = np.empty(len(popularity), dtype=np.int8)
    strata[order] = np.minimum(3 * before // max(int(popularity.sum()), 1), 2)
    strata[popularity == 0] = 2
    return strata[items]


def by_popularity(
    ranks: Ranks, held: HeldOut, train: Interactions, ties: TieRule
) -> dict[str, dict[str, float]]:
    """Number of users, HR@10 and NDCG@10 for each popularity stratum of the test items.

    A stratum without test items is left out.
    """
    popularity = np.bincount(train.items, minlength=train.n_items)
    strata = stratum_of(held.positives, popularity)
    by_stratum = {}
    for place, name in enumerate(STRATA):
        inside = strata == place
        if not inside.any():
            continue
        means, _ = figures(ranks.better[inside], ranks.tied[inside], ties)
        users = float(inside.sum())
        by_stratum[name] = {"users": users, "HR@10": means["HR@10"], "NDCG@10": means["NDCG@10"]}
    return by_stratum


def agreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's τ between two metrics; 1 means that both order the models alike.

    `first` and `second` have one value for each model.
    """
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def agreement_interval(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of Kendall's τ between two metrics of the same models.

    The bootstrap resamples users.

    Parameters
    ----------
    first, second : float64 [models, T]
        The two metrics of each model and test user.
    seed : int
        Seed of the bootstrap.
    """
    rng = generator(seed, "agreement.bootstrap")
    users = first.shape[1]
    taus = []
    for _ in range(RESAMPLED):
        counts = rng.multinomial(users, np.full(users, 1 / users))
        taus.append(agreement((first @ counts).tolist(), (second @ counts).tolist()))
    low, high = np.nanpercentile(taus, [2.5, 97.5])
    return float(low), float(high)

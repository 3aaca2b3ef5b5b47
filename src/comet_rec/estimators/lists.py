"""Top-k lists for known users and for new histories, with external ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.artefact.run import Run, second_config
from comet_rec.config import Config, is_whole
from comet_rec.data.histories import Ragged, fold_in
from comet_rec.data.id_lists import IdList, history_lists, id_list
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.nearest import nearest, shown
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError, InputError, UnknownIdError, argument
from comet_rec.estimators.rules import Rows, Rules
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import new_user_vectors, run_scores
from comet_rec.models import base
from comet_rec.models.interfaces import TwoTower
from comet_rec.retrieval.diversity import diversified
from comet_rec.retrieval.exact import BLOCK_BYTES, top_k, top_k_of_pairs, top_k_of_rows

POOL, POOL_SHARE = 100, 10
"""Candidates of a diverse list: `POOL` items, or `POOL_SHARE` times the list's length if longer."""
GROWTH = 4
"""Factor by which a list of candidates grows while `per_group` leaves too few of them."""
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Found = tuple[Int64, Float32]
"""Lists of Q users: items and scores [Q, k], best first. Unused places hold −1 and −inf."""
Source = Tensor | Callable[[Int64], Float32]
"""Input of the ranking for Q requested users: their vectors [Q, K], or a function.

The function takes positions of users in the request, and returns their scores of all items.
"""


class Ranker:
    """Ranks items for users by the rules of a request, which are prepared once for all users.

    Parameters
    ----------
    run : Run
    rules : Rules
    unknown : mapping of id to int, optional
        Number of each requested user outside the log, from the number of users on.
    """

    def __init__(self, run: Run, rules: Rules, unknown: Mapping[Any, int] | None = None) -> None:
        self.factors = None  # item vectors to compare in diverse lists
        if rules.diversify > 0:
            if run.item_vectors is None:
                raise ConfigError(
                    f"diversify = {rules.diversify:g}: {run.config.name} has no item vectors to "
                    "compare; use a model with vectors, e.g. comet or mf"
                )
            self.factors = factors(run, run.item_vectors, "item")
        self.run, self.rules = run, rules
        self.n_items = run.interactions.n_items
        self.allowed = rules.allowed(run.interactions)
        self.groups = rules.group_numbers(run.interactions)
        self.allow_pairs = rules.pairs(run.interactions, "allow_pairs", unknown or {})
        self.block_pairs = rules.pairs(run.interactions, "block_pairs", unknown or {})

    def best(self, source: Source, users: Int64, seen: Rows | None) -> Found:
        """Lists of Q users, ranked by the model.

        Parameters
        ----------
        source : Tensor [Q, K] or function
        users : int64 [Q]
            Number of each user in the pair filters.
        seen : pair of int64 [M], or None
            (position of the user, item) pairs to leave out, ascending by position.
        """
        k = self.rules.k
        pool = k if self.rules.diversify == 0 else max(POOL, POOL_SHARE * k)
        items, scores = self._ranked(source, users, seen, pool, self.run.item_vectors)
        if self.factors is not None:
            items, scores = diversified(items, scores, self.factors, k, self.rules.diversify)
        return items, scores

    def popular(self, users: Int64) -> Found:
        """Lists of the most popular items for Q users; the score is the number of users."""
        known = self.run.known
        counts = np.bincount(known.items, minlength=self.n_items).astype(np.float32)
        alike = self.allow_pairs is None and self.block_pairs is None
        distinct = users[:1] if alike else users  # without pair filters, all lists are equal
        # User vectors (1) and item vectors (count) have the count as their product.
        ones, vectors = torch.ones(len(distinct), 1), torch.from_numpy(counts[:, None])
        items, scores = self._ranked(ones, distinct, None, self.rules.k, vectors)
        times = len(users) if alike else 1
        return np.repeat(items, times, 0), np.repeat(scores, times, 0)

    def _ranked(
        self, source: Source, users: Int64, seen: Rows | None, k: int, vectors: Tensor | None
    ) -> Found:
        """The k best items of each user that all filters leave, and `per_group` of each group."""
        k = min(k, self.n_items)
        masked = self._masked(users, seen)
        if self.groups is None:
            return self._filtered(source, users, masked, k, vectors)
        items = np.full((len(users), k), -1, dtype=np.int64)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        left, pool = np.arange(len(users)), k  # users whose list is not complete yet
        while len(left) > 0:
            again = []
            size = max(1, BLOCK_BYTES // (16 * pool))
            for rows in (left[first : first + size] for first in range(0, len(left), size)):
                part = _of_places(source, rows), users[rows], _of_rows(masked, rows)
                found, values = self._filtered(*part, pool, vectors)
                kept = self._within_groups(found)  # [B, pool]
                place = np.cumsum(kept, axis=1) - 1  # place of a kept item in the list
                row, column = np.nonzero(kept & (place < k))
                items[rows[row], place[row, column]] = found[row, column]
                scores[rows[row], place[row, column]] = values[row, column]
                # A pool with an unused place holds every item that is left.
                complete = (place[:, -1] >= k - 1) | (found[:, -1] < 0) | (pool == self.n_items)
                again.append(rows[~complete])
            left, pool = np.concatenate(again), min(GROWTH * pool, self.n_items)
        return items, scores

    def _within_groups(self, found: Int64) -> npt.NDArray[np.bool_]:
        """Which items of each list are among the first `per_group` of their group, bool [B, k]."""
        assert self.groups is not None
        assert self.rules.per_group is not None
        groups = self.groups[found]  # of an unused place (−1): some group, but it is not kept
        # Sort each row by group; a stable sort keeps the best item of a group first.
        order = np.argsort(groups, axis=1, kind="stable")
        by_group = np.take_along_axis(groups, order, axis=1)
        place = np.broadcast_to(np.arange(groups.shape[1]), groups.shape)
        starts = np.zeros_like(groups)  # where the group of each place starts in the sorted row
        starts[:, 1:] = np.where(by_group[:, 1:] != by_group[:, :-1], place[:, 1:], 0)
        before = place - np.maximum.accumulate(starts, axis=1)  # better items of the same group
        kept = np.empty(groups.shape, dtype=np.bool_)
        np.put_along_axis(kept, order, before < self.rules.per_group, axis=1)
        return np.asarray((kept | (groups < 0)) & (found >= 0))

    def _masked(self, users: Int64, seen: Rows | None) -> Rows | None:
        """Pairs to leave out of the lists: seen items and those that `block_pairs` blocks."""
        if self.block_pairs is None:
            return seen
        blocked = self.block_pairs.rows(users)
        if seen is None:
            return blocked
        rows, items = (np.concatenate(both) for both in zip(seen, blocked, strict=True))
        order = np.argsort(rows, kind="stable")
        return rows[order], items[order]

    def _filtered(
        self, source: Source, users: Int64, masked: Rows | None, k: int, vectors: Tensor | None
    ) -> Found:
        """The k best items of each user that the filters leave, without the limit of groups."""
        if self.allow_pairs is not None:
            return self._among_pairs(source, users, masked, k, vectors)
        items = np.full((len(users), k), -1, dtype=np.int64)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        if isinstance(source, Tensor):
            assert vectors is not None
            longest = self.run.longest_item if vectors is self.run.item_vectors else None
            parts = top_k(source, vectors, k, masked=masked, allowed=self.allowed, longest=longest)
        else:
            rows_of = lambda block: source(np.arange(block.start, block.stop))  # noqa: E731
            parts = top_k_of_rows(
                rows_of, len(users), self.n_items, k, masked=masked, allowed=self.allowed
            )
        for block, best, values in parts:
            items[block], scores[block] = best, values
        return items, scores

    def _among_pairs(
        self, source: Source, users: Int64, masked: Rows | None, k: int, vectors: Tensor | None
    ) -> Found:
        """The k best items of each user among those that `allow_pairs` lists for the user."""
        assert self.allow_pairs is not None
        rows, items = self.allow_pairs.rows(users)
        open_ = np.ones(len(rows), dtype=np.bool_) if self.allowed is None else self.allowed[items]
        if masked is not None:
            closed = masked[0] * self.n_items + masked[1]
            open_ &= ~np.isin(rows * self.n_items + items, closed)
        rows, items = rows[open_], items[open_]
        scores = np.empty(len(rows), dtype=np.float32)
        if isinstance(source, Tensor):
            assert vectors is not None
            # Gathered vectors of users and items are float64, [b, W] each.
            size = max(1, BLOCK_BYTES // (16 * vectors.shape[1]))
            for first in range(0, len(rows), size):
                part = slice(first, first + size)
                left = source[torch.from_numpy(rows[part])].double()
                right = vectors[torch.from_numpy(items[part])].double()
                scores[part] = torch.linalg.vecdot(left, right).numpy()
        else:
            size = max(1, BLOCK_BYTES // (4 * self.n_items))
            for first in range(0, len(users), size):
                last = min(first + size, len(users))
                a, b = np.searchsorted(rows, [first, last])
                if b > a:
                    scores[a:b] = source(np.arange(first, last))[rows[a:b] - first, items[a:b]]
        return top_k_of_pairs(scores, rows, items, len(users), k)


def _of_places(source: Source, places: Int64) -> Source:
    """The source of some of the requested users."""
    if isinstance(source, Tensor):
        return source[torch.from_numpy(places)]
    return lambda some: source(places[some])


def _of_rows(pairs: Rows | None, rows: Int64) -> Rows | None:
    """The pairs of some rows, which ascend; their numbers become positions in `rows`."""
    if pairs is None:
        return None
    kept = np.isin(pairs[0], rows)
    return np.searchsorted(rows, pairs[0][kept]), pairs[1][kept]


def for_users(run: Run, users: Iterable[Any] | None, rules: Rules) -> Table:
    """Recommend items to users of the log, in the order of `users`; see `Estimator.recommend`."""
    log = run.interactions
    if users is None:
        indices = np.arange(log.n_users)
        return known_users(Ranker(run, rules), indices)
    stored, indices = log.user_ids.lookup(id_list(users, "users"), "users")
    asked = log.user_ids.as_external(stored)
    if rules.unknown == "skip":  # skipped users (index -1) get no rows, so their id is unused
        asked = log.user_ids.external(np.maximum(indices, 0))
    missing = indices < 0  # [Q]
    if missing.any() and rules.unknown == "error":
        raise unknown_id(log.user_ids, asked[missing], len(indices), "user")
    places, newcomers = np.flatnonzero(~missing), np.flatnonzero(missing)
    if len(newcomers) == 0 or rules.unknown != "popular":
        return _table(run, asked, [(places, *_known(Ranker(run, rules), indices[places]))])
    # Unknown users have numbers of their own, by which the pair filters find them.
    distinct = dict.fromkeys(stored[newcomers].tolist())
    numbers = {user: log.n_users + number for number, user in enumerate(distinct)}
    ranker = Ranker(run, rules, numbers)
    popular = ranker.popular(np.array([numbers[user] for user in stored[newcomers].tolist()]))
    known_lists = _known(ranker, indices[places])
    return _table(run, asked, [(places, *known_lists), (newcomers, *popular)])


def known_users(ranker: Ranker, users: Int64) -> Table:
    """Recommend items to the users with these indices."""
    run = ranker.run
    lists = _known(ranker, users)
    return _table(run, run.interactions.user_ids.external(users), [(np.arange(len(users)), *lists)])


def _known(ranker: Ranker, users: Int64) -> Found:
    """Lists of the users with these indices."""
    run = ranker.run
    seen = None if ranker.rules.include_seen else run.known.interacted_items(users)
    if run.user_vectors is not None:
        source: Source = run.user_vectors[torch.from_numpy(users)]
    else:
        scorer = run_scores(run)
        source = lambda places: checked(scorer.score_all(users[places]))  # noqa: E731
    return ranker.best(source, users, seen)


def for_histories(
    run: Run, histories: Sequence[Sequence[Any]], rules: Rules, device: torch.device
) -> Table:
    """Recommend items to new users; see `Estimator.recommend_for_history`."""
    indices = [
        _history(run.interactions, history, place, rules)
        for place, history in enumerate(history_lists(histories))
    ]
    empty = np.array([len(history) == 0 for history in indices], dtype=bool)
    # A non-iterative model scores every item 0 for an empty history.
    non_iterative = base.non_iterative(run.config.name)
    fallback = empty if rules.unknown == "popular" or non_iterative else np.zeros_like(empty)
    known = np.flatnonzero(~fallback)
    members = [indices[place] for place in known]
    source = folded_in(run, members, device)
    seen = None
    if not rules.include_seen:
        ragged = Ragged.of_rows(members)
        seen = ragged.rows.numpy(), ragged.values.numpy()
    ranker = Ranker(run, rules)
    parts = [(known, *ranker.best(source, known, seen))]
    if fallback.any():
        newcomers = np.flatnonzero(fallback)
        parts.append((newcomers, *ranker.popular(newcomers)))
    return _table(run, np.arange(len(indices)), parts)


def folded_in(run: Run, histories: list[Int64], device: torch.device) -> Source:
    """Vectors of new users from their histories, or a function that scores all items for them."""
    model, n_items = run.model, run.interactions.n_items
    models = [model] if run.blend is None else [model, run.second_model]
    if any(map(reads_histories, models)):
        parts = [_user_vectors(each, histories, n_items, device) for each in models]
        if run.blend is not None:
            parts[1] *= run.blend.weight
        vectors = torch.cat(parts, dim=1)  # [Q, K + K of the second model]
        checked(vectors.numpy())
        return vectors
    if base.non_iterative(run.config.name) and model.folds_in:
        ragged = Ragged.of_rows(histories)
        items, starts = ragged.values.numpy(), ragged.starts.numpy()
        ones = np.ones(len(items), dtype=np.float32)
        matrix = csr_array((ones, items, starts), shape=(len(histories), n_items))  # [Q, I]
        matrix.sort_indices()
        no_user = np.full(len(histories), -1)  # index of a user without parameters
        return lambda places: checked(model.score_all(no_user[places], matrix[places]))
    raise ConfigError(
        f"{run.config.name} cannot fold in new users, because it reads no histories; train a "
        "model that reads histories, e.g. comet"
    )


def reads_histories(model: Any) -> bool:
    """Whether `model` encodes new users from their histories."""
    return isinstance(model, TwoTower) and model.histories is not None and model.folds_in


def _user_vectors(model: Any, histories: list[Int64], n_items: int, device: torch.device) -> Tensor:
    """Encode new users from their histories, [Q, K]; zeros if `model` reads no histories."""
    if not reads_histories(model):
        return torch.zeros(len(histories), len(model.weight))
    padded = fold_in(histories, model.histories, n_items)
    return new_user_vectors(model.to(device), padded).cpu()


def _table(run: Run, asked: npt.NDArray[Any], parts: list[tuple[Int64, Int64, Float32]]) -> Table:
    """Merge lists into one table with external ids, in the order of the request.

    `asked` holds the user ids of the request. Each part holds positions in the request [Q], and
    the items and scores of their lists [Q, k].
    """
    places = np.concatenate([part[0] for part in parts])
    order = np.argsort(places, kind="stable")
    items = np.concatenate([part[1] for part in parts])[order]
    scores = np.concatenate([part[2] for part in parts])[order]
    row, column = np.nonzero(items >= 0)  # lists may be shorter than k
    return Table(
        {
            "user_id": asked[places[order][row]],
            "item_id": run.interactions.item_ids.external(items[row, column]),
            "score": scores[row, column],
            "rank": column + 1,
        }
    )


def _history(log: Interactions, history: IdList, place: int, rules: Rules) -> Int64:
    """Item indices of one history, without repetitions, in the order of first occurrence.

    `place` is the position of the history in the request, for errors.
    """
    stored, indices = log.item_ids.lookup(history, f"history {place}")
    missing = indices < 0
    if missing.any() and rules.unknown == "error":
        unknown_items = log.item_ids.as_external(stored[missing])
        raise unknown_id(log.item_ids, unknown_items, len(indices), "item", f" in history {place}")
    return np.array(list(dict.fromkeys(indices[~missing].tolist())), dtype=np.int64)


def unknown_id(
    ids: Ids, missing: npt.NDArray[Any], asked: int, role: str, where: str = "", *,
    policies: bool = True,
) -> UnknownIdError:  # fmt: skip
    """Error for ids that are not in the log; it suggests the id nearest to the first of them.

    With `policies`, the error also names the values of `unknown` that allow such ids.
    """
    first = missing[:1].tolist()[0]
    near = nearest(ids, first)
    what = f"unknown {role} {shown(first)}{where} ({len(missing)} of {asked} unknown)"
    hint = f"the ids of the log are {ids.in_words}" if near is None else f"did you mean {near!r}?"
    if policies:
        ways = " or ".join(argument("unknown", way) for way in ("skip", "popular"))
        hint += f" ({ways} allows unknown ids)"
    return UnknownIdError(f"{what}; {hint}")


def known(ids: Ids, values: Iterable[Any], role: str) -> Int64:
    """Convert user or item ids, as `role` says, to indices; every id must be in the log.

    Raises
    ------
    UnknownIdError
        When an id is not in the log.
    """
    argument_name = f"{role}s"
    stored, indices = ids.lookup(id_list(values, argument_name), argument_name)
    missing = indices < 0
    if missing.any():
        unknown = ids.as_external(stored[missing])
        raise unknown_id(ids, unknown, len(indices), role, policies=False)
    return np.asarray(indices)


def neighbours(run: Run, role: Literal["user", "item"], ids: Iterable[Any], k: int) -> Table:
    """Find the k users or items, as `role` says, that are most similar to each of `ids`.

    See `Estimator.similar_items`.
    """
    if not is_whole(k) or k < 1:
        raise InputError(f"k = {k!r}: must be a whole number above 0")
    vectors, names = run.item_vectors, run.interactions.item_ids
    if role == "user":
        vectors, names = run.user_vectors, run.interactions.user_ids
    if vectors is None:
        raise ConfigError(
            f"{run.config.name} has no vectors to compare: its scores are not inner products; "
            "use a model with vectors, e.g. comet or mf"
        )
    indices = known(names, ids, role)
    unit = nnf.normalize(factors(run, vectors, role), dim=1)  # [n, W]
    # Mask row, column: an id is not similar to itself. Unused places keep index -1.
    itself = np.arange(len(indices)), indices
    similar = np.full((len(indices), min(k, len(unit))), -1, dtype=np.int64)
    cosines = np.zeros(similar.shape, dtype=np.float32)
    queries = unit[torch.from_numpy(indices)]  # [Q, W]
    for block, top_indices, scores in top_k(queries, unit, k, masked=itself):
        similar[block], cosines[block] = top_indices, scores
    row, column = np.nonzero(similar >= 0)
    return Table(
        {
            f"{role}_id": names.external(indices[row]),
            f"similar_{role}_id": names.external(similar[row, column]),
            "similarity": cosines[row, column],
            "rank": column + 1,
        }
    )


def factors(run: Run, vectors: Tensor, role: str) -> Tensor:
    """Factor columns of user or item vectors, without their bias columns.

    The columns of a blended second model are multiplied by its weight.
    """
    width = base.model_class(run.config.name).vector_dim(run.config.model)
    parts = [vectors[:, : _factor_dim(run.config)]]
    if run.blend is not None:
        # The second model's columns of users are already multiplied by the weight.
        scale = run.blend.weight if role == "item" else 1.0
        second = vectors[:, width : width + _factor_dim(second_config(run.config))]
        parts.append(scale * second)
    return torch.cat(parts, dim=1)


def _factor_dim(config: Config) -> int:
    dim: int = base.model_class(config.name).factor_dim(config.model)
    return dim

"""Top-k lists for known users and for new histories, with external ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from comet_rec.artefact.run import Run
from comet_rec.data.histories import Ragged
from comet_rec.data.id_lists import history_lists, id_list
from comet_rec.data.tables import Table
from comet_rec.estimators import lookup
from comet_rec.estimators.newcomers import folded_in, folds_in
from comet_rec.estimators.ranker import Float32, Found, Int64, Ranker, Source
from comet_rec.estimators.rules import Rows, Rules
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import run_scores
from comet_rec.models import base


@dataclass(frozen=True, eq=False)
class Lists:
    """Lists of Q users, in the order of a request.

    Parameters
    ----------
    users : ndarray [Q]
        Id of each user as the log has it, or as it was asked for if the log lacks it.
    items : int64 [Q, k]
        Item indices, best first. Unused places hold −1.
    scores : float32 [Q, k]
        Their scores; −inf in unused places.
    popular : bool [Q]
        Whether the list holds popular items, because the model cannot score the user.
    """

    users: npt.NDArray[Any]
    items: Int64
    scores: Float32
    popular: npt.NDArray[np.bool_]

    def table(self, run: Run) -> Table:
        """Table with one row for each listed item."""
        row, column = np.nonzero(self.items >= 0)  # lists may be shorter than k
        return Table(
            {
                "user_id": self.users[row],
                "item_id": run.interactions.item_ids.external(self.items[row, column]),
                "score": self.scores[row, column],
                "rank": column + 1,
            }
        )


def for_users(
    run: Run,
    users: Iterable[Any] | None,
    rules: Rules,
    *,
    recent: Sequence[Int64] | None = None,
    device: torch.device | None = None,
) -> Lists:
    """Recommend items to users of the log, in the order of `users`; see `Estimator.recommend`.

    Parameters
    ----------
    run : Run
    users : list of ids, or None for all users
    rules : Rules
    recent : sequence of int64 arrays, optional
        Items that each user took after the model was trained, oldest first. They are left out of
        the list, and a model that reads histories reads them. A user outside the log who has recent
        items is a new user with that history.
    device : torch.device, optional
        Where histories with recent items are encoded.
    """
    log = run.interactions
    if users is None:
        everyone = np.arange(log.n_users)
        ids = log.user_ids.external(everyone)
        return _merged(ids, [(everyone, *_known(Ranker(run, rules), everyone))])
    stored, indices = log.user_ids.lookup(id_list(users, "users"), "users")
    has_recent = np.zeros(len(indices), dtype=bool)
    if recent is not None and folds_in(run):
        has_recent = np.array([len(items) > 0 for items in recent], dtype=bool)
    missing = (indices < 0) & ~has_recent  # [Q]
    if missing.any() and rules.unknown == "error":
        asked = log.user_ids.as_external(stored[missing])
        raise lookup.unknown_id(log.user_ids, asked, len(indices), "user")
    # Unknown users have numbers of their own, by which the pair filters find them.
    outside = dict.fromkeys(stored[indices < 0].tolist())
    numbers = {user: log.n_users + number for number, user in enumerate(outside)}
    ranker = Ranker(run, rules, numbers)
    plain = np.flatnonzero(~missing & ~has_recent)
    parts = [(plain, *_known(ranker, indices[plain], _of_places(recent, plain)))]
    if has_recent.any():
        places = np.flatnonzero(has_recent)
        number = np.where(indices < 0, [numbers.get(user, -1) for user in stored.tolist()], indices)
        found = _with_recent(ranker, indices[places], number[places], _of_places(recent, places),
                             device or torch.device("cpu"))  # fmt: skip
        parts.append((places, *found))
    popular = np.flatnonzero(missing)
    if rules.unknown == "popular" and len(popular) > 0:
        number = np.array([numbers[user] for user in stored[popular].tolist()])
        parts.append((popular, *ranker.popular(number)))
    ids = log.user_ids.as_external(stored)
    if rules.unknown == "skip" and not (has_recent & (indices < 0)).any():
        # Users without a list need no id. Without their ids, the array keeps the type of the log's.
        ids = log.user_ids.external(np.maximum(indices, 0))
    return _merged(ids, parts, popular if rules.unknown == "popular" else None)


def known_users(ranker: Ranker, users: Int64) -> Table:
    """Recommend items to the users with these indices."""
    run = ranker.run
    ids = run.interactions.user_ids.external(users)
    return _merged(ids, [(np.arange(len(users)), *_known(ranker, users))]).table(run)


def _known(ranker: Ranker, users: Int64, recent: list[Int64] | None = None) -> Found:
    """Lists of the users with these indices; their recent items are only left out."""
    run = ranker.run
    if run.user_vectors is not None:
        source: Source = run.user_vectors[torch.from_numpy(users)]
    else:
        scorer = run_scores(run)
        source = lambda places: checked(scorer.score_all(users[places]))  # noqa: E731
    return ranker.best(source, users, _seen(ranker, users, recent))


def _with_recent(
    ranker: Ranker, users: Int64, numbers: Int64, recent: list[Int64] | None, device: torch.device
) -> Found:
    """Lists of users whose history ends with recent items; −1 is the index of a new user.

    `numbers` are the numbers of the users in the pair filters.
    """
    assert recent is not None
    known = ranker.run.known
    items = np.full((len(users), min(ranker.rules.k, ranker.n_items)), -1, dtype=np.int64)
    scores = np.full(items.shape, -np.inf, dtype=np.float32)
    for is_new in (False, True):
        places = np.flatnonzero((users < 0) == is_new)
        if len(places) == 0:
            continue
        histories = [lookup.distinct(recent[place]) for place in places]
        group = None if is_new else users[places]
        if group is not None:
            starts = known.user_starts
            histories = [
                lookup.distinct(
                    np.concatenate([known.items[starts[user] : starts[user + 1]], more])
                )
                for user, more in zip(group, histories, strict=True)
            ]
        source = folded_in(ranker.run, histories, device, group)
        seen = _seen(ranker, users[places], [recent[place] for place in places])
        items[places], scores[places] = ranker.best(source, numbers[places], seen)
    return items, scores


def _seen(ranker: Ranker, users: Int64, recent: list[Int64] | None) -> Rows | None:
    """(position, item) pairs that lists leave out: known interactions and recent items.

    −1 is the index of a new user.
    """
    if ranker.rules.include_seen:
        return None
    inside = np.flatnonzero(users >= 0)
    rows, items = ranker.run.known.interacted_items(users[inside])
    rows = inside[rows]
    if not recent:
        return rows, items
    more = Ragged.of_rows(recent)
    rows = np.concatenate([rows, more.rows.numpy()])
    items = np.concatenate([items, more.values.numpy()])
    order = np.argsort(rows, kind="stable")
    return rows[order], items[order]


def _of_places(recent: Sequence[Int64] | None, places: Int64) -> list[Int64] | None:
    return None if recent is None else [recent[place] for place in places.tolist()]


def for_histories(
    run: Run, histories: Sequence[Sequence[Any]], rules: Rules, device: torch.device
) -> Lists:
    """Recommend items to new users; see `Estimator.recommend_for_history`."""
    indices = [
        lookup.history(run.interactions, history, place, rules)
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
    popular = np.flatnonzero(fallback)
    if len(popular) > 0:
        parts.append((popular, *ranker.popular(popular)))
    return _merged(np.arange(len(indices)), parts, popular)


def _merged(
    ids: npt.NDArray[Any], parts: list[tuple[Int64, Int64, Float32]], popular: Int64 | None = None
) -> Lists:
    """Merge parts of a request: positions in the request [Q'], items and scores [Q', k].

    `popular` are the positions that the model cannot score.
    """
    k = max(items.shape[1] for _, items, _ in parts)
    items = np.full((len(ids), k), -1, dtype=np.int64)
    scores = np.full((len(ids), k), -np.inf, dtype=np.float32)
    for places, part_items, part_scores in parts:
        items[places, : part_items.shape[1]] = part_items
        scores[places, : part_items.shape[1]] = part_scores
    is_popular = np.zeros(len(ids), dtype=bool)
    is_popular[popular if popular is not None else []] = True
    return Lists(ids, items, scores, is_popular)

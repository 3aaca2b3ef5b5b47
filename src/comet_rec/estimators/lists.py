"""Top-k lists for known users and for new histories, with external ids."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.artefact.run import Run, second_config
from comet_rec.config import Config, is_whole
from comet_rec.config import unknown as unknown_word
from comet_rec.data.histories import Ragged, fold_in
from comet_rec.data.id_lists import IdList, history_lists, id_list
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.nearest import nearest, shown
from comet_rec.data.tables import Table
from comet_rec.errors import ConfigError, InputError, UnknownIdError, argument
from comet_rec.evaluation.ranking import checked
from comet_rec.evaluation.scoring import new_user_vectors, run_scores
from comet_rec.models import base
from comet_rec.models.interfaces import TwoTower
from comet_rec.retrieval.diversity import diversified
from comet_rec.retrieval.exact import top_k, top_k_of_rows

Unknown = Literal["error", "skip", "popular"]
POOL, POOL_SHARE = 100, 10
"""Candidates of a diverse list: `POOL` items, or `POOL_SHARE` times the list's length if longer."""
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rules:
    """Arguments of `Estimator.recommend`, checked: which items a list may hold, and how many."""

    k: int
    include_seen: bool
    allow: Iterable[Any] | None
    block: Iterable[Any] | None
    unknown: Unknown
    diversify: float = 0.0

    def __post_init__(self) -> None:
        for name in ("allow", "block"):
            if getattr(self, name) is not None:  # kept as a list: an iterator works only once
                ids = id_list(getattr(self, name), name, ordered=False)
                object.__setattr__(self, name, ids)
        if not is_whole(self.k) or self.k < 1:
            raise InputError(f"k = {self.k!r}: must be a whole number above 0")
        if not isinstance(self.include_seen, (bool, np.bool_)):
            raise InputError(f"include_seen = {self.include_seen!r}: must be True or False")
        if self.unknown not in get_args(Unknown):
            raise ConfigError(unknown_word("policy", str(self.unknown), list(get_args(Unknown))))
        number = isinstance(self.diversify, numbers.Real) and not isinstance(self.diversify, bool)
        if not number or not 0 <= self.diversify <= 1:
            raise InputError(f"diversify = {self.diversify!r}: must be a number from 0 to 1")

    def allowed(self, log: Interactions) -> npt.NDArray[np.bool_] | None:
        """Mask of the items that a list may hold by `allow` and `block`, bool [I]; None for all."""
        if self.allow is None and self.block is None:
            return None
        mask = np.full(log.n_items, self.allow is None)
        for name, value in (("allow", True), ("block", False)):
            ids: IdList | None = getattr(self, name)
            if ids is not None:
                _, indices = log.item_ids.lookup(ids, name)
                mask[indices[indices >= 0]] = value  # -1: not in the log
        return mask


def for_users(run: Run, users: Iterable[Any] | None, rules: Rules) -> Table:
    """Recommend items to users of the log, in the order of `users`; see `Estimator.recommend`."""
    log = run.interactions
    if users is None:
        indices, asked = np.arange(log.n_users), log.user_ids.external(np.arange(log.n_users))
    else:
        stored, indices = log.user_ids.lookup(id_list(users, "users"), "users")
        asked = log.user_ids.as_external(stored)
        if rules.unknown == "skip":  # skipped users (index -1) get no rows, so their id is unused
            asked = log.user_ids.external(np.maximum(indices, 0))
    missing = indices < 0  # [Q]
    if missing.any() and rules.unknown == "error":
        raise unknown_id(log.user_ids, asked[missing], len(indices), "user")
    known = np.flatnonzero(~missing)
    seen = None if rules.include_seen else run.known.interacted_items(indices[known])
    if run.user_vectors is not None:
        source: Source = run.user_vectors[torch.from_numpy(indices[known])]
    else:
        scorer, known_users = run_scores(run), indices[known]
        source = lambda block: checked(scorer.score_all(known_users[block]))  # noqa: E731
    parts = [_ranked(run, source, rules, seen, known)]
    if missing.any() and rules.unknown == "popular":
        parts.append(_popular(run, np.flatnonzero(missing), rules))
    return _table(run, asked, parts)


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
    source = _folded_in(run, members, device)
    seen = None
    if not rules.include_seen:
        ragged = Ragged.of_rows(members)
        seen = ragged.rows.numpy(), ragged.values.numpy()
    parts = [_ranked(run, source, rules, seen, known)]
    if fallback.any():
        parts.append(_popular(run, np.flatnonzero(fallback), rules))
    return _table(run, np.arange(len(indices)), parts)


Source = Tensor | Callable[[slice], npt.NDArray[np.float32]]
"""Input of the ranking for Q requested users: their vectors [Q, K], or a function.

The function takes a slice of the users, and returns their scores of all items.
"""


def _folded_in(run: Run, histories: list[Int64], device: torch.device) -> Source:
    """Vectors of new users from their histories, or a function that scores all items for them."""
    model, n_items = run.model, run.interactions.n_items
    models = [model] if run.blend is None else [model, run.second_model]
    if any(map(_reads_histories, models)):
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
        return lambda block: checked(model.score_all(no_user[block], matrix[block]))
    raise ConfigError(
        f"{run.config.name} cannot fold in new users, because it reads no histories; train a "
        "model that reads histories, e.g. comet"
    )


def _reads_histories(model: Any) -> bool:
    return isinstance(model, TwoTower) and model.histories is not None and model.folds_in


def _user_vectors(model: Any, histories: list[Int64], n_items: int, device: torch.device) -> Tensor:
    """Encode new users from their histories, [Q, K]; zeros if `model` reads no histories."""
    if not _reads_histories(model):
        return torch.zeros(len(histories), len(model.weight))
    padded = fold_in(histories, model.histories, n_items)
    return new_user_vectors(model.to(device), padded).cpu()


_Part = tuple[Int64, Int64, npt.NDArray[np.float32]]
"""Some of the requested lists: their positions in the request [Q], items and scores [Q, k]."""


def _ranked(
    run: Run, source: Source, rules: Rules, seen: tuple[Int64, Int64] | None, places: Int64
) -> _Part:
    """Lists ranked by the model, for the positions `places` of the request.

    Each list has k places. If fewer items are left, its last places hold item -1 and score -inf.
    """
    n_items = run.interactions.n_items
    pool = rules.k if rules.diversify == 0 else max(POOL, POOL_SHARE * rules.k)
    k = min(pool, n_items)
    items = np.full((len(places), k), -1, dtype=np.int64)
    scores = np.full((len(places), k), -np.inf, dtype=np.float32)
    allowed = rules.allowed(run.interactions)
    if isinstance(source, Tensor):
        assert run.item_vectors is not None
        parts = top_k(source, run.item_vectors, k, masked=seen, allowed=allowed)
    else:
        parts = top_k_of_rows(source, len(places), n_items, k, masked=seen, allowed=allowed)
    for block, best, values in parts:
        items[block], scores[block] = best, values
    if rules.diversify > 0:
        if run.item_vectors is None:
            raise ConfigError(
                f"diversify = {rules.diversify:g}: {run.config.name} has no item vectors to "
                "compare; use a model with vectors, e.g. comet or mf"
            )
        vectors = factors(run, run.item_vectors, "item")
        items, scores = diversified(items, scores, vectors, rules.k, rules.diversify)
    return places, items, scores


def _popular(run: Run, places: Int64, rules: Rules) -> _Part:
    """The same list of popular items for all `places`; the score is the number of users."""
    log = run.interactions
    counts = np.bincount(run.known.items, minlength=log.n_items).astype(np.float32)
    # A user vector (1) and item vectors (count) make one list, which is copied to each user.
    vectors = torch.ones(1, 1), torch.from_numpy(counts[:, None])
    _, items, scores = next(top_k(*vectors, rules.k, allowed=rules.allowed(log)))
    return places, np.repeat(items, len(places), 0), np.repeat(scores, len(places), 0)


def _table(run: Run, asked: npt.NDArray[Any], parts: list[_Part]) -> Table:
    """Merge lists into one table with external ids, in the order of the request.

    `asked` holds the user ids of the request. Each list has its best item first.
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

"""Scorers of trained models, which score all items or given (user, item) pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec import processes
from comet_rec.artefact.run import Run
from comet_rec.data.histories import LatestRows, UserHistories, fold_in, input_histories
from comet_rec.data.interactions import Interactions
from comet_rec.data.queries import Bool, Queries
from comet_rec.data.split import HeldOut
from comet_rec.errors import InputError, NonFiniteError
from comet_rec.evaluation.ranking import blocks
from comet_rec.models import base
from comet_rec.models.interfaces import NonIterative, Scorer, TwoTower

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

ENCODED = 2048
"""Number of users or items whose vectors are computed at a time."""
PAIRS = 1 << 16
"""Number of pairs that `PairScores` scores at a time."""


def full_users(model: str) -> int | None:
    """Largest number of users in a full ranking by this model (a registered name); None for all."""
    limit: int | None = base.model_class(model).full_ranking_users
    return limit


@dataclass(frozen=True, eq=False)
class VectorScores:
    """Scores that are inner products of user vectors [m, K] and item vectors [n, K].

    Items with equal vectors get equal scores. A plain float32 product does not ensure this, since
    its last bits depend on an item's position. So `score_all` multiplies each distinct vector once,
    and `score_pairs` computes in float64 and rounds.
    """

    users: Tensor
    items: Tensor

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.items)

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items for each of the B users, [B, I]."""
        distinct, place = self._distinct
        scores = np.asarray((self.users[torch.from_numpy(users)] @ distinct.T).numpy())
        return scores if place is None else scores[:, place]

    @cached_property
    def _distinct(self) -> tuple[Tensor, Int64 | None]:
        """Distinct item vectors, and for each item the position of its vector among them.

        If all vectors differ, the positions are None.
        """
        packed = np.add(self.items.numpy(), 0, order="C")  # −0 becomes 0, since bytes are compared
        if packed.size == 0:
            return self.items, None
        # One value of raw bytes for each row, [n].
        row_bytes = packed.view(np.dtype((np.void, packed.shape[1] * packed.itemsize)))[:, 0]
        _, first, place = np.unique(row_bytes, return_index=True, return_inverse=True)
        if len(first) == len(self.items):
            return self.items, None
        return self.items[torch.from_numpy(first)], place

    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores of C items for each of the B users; `items` and the result are [B, C]."""
        out = np.empty(items.shape, dtype=np.float32)
        # The gathered item vectors are float64, which takes twice the memory of float32 scores.
        for block in blocks(len(users), 2 * items.shape[1] * self.items.shape[1]):
            left = self.users[torch.from_numpy(users[block])][:, :, None]  # [b, K, 1]
            right = self.items[torch.from_numpy(np.ascontiguousarray(items[block]))]  # [b, C, K]
            out[block] = torch.bmm(right.double(), left.double())[:, :, 0].numpy()
        return out


@dataclass(frozen=True, eq=False)
class FunctionScores:
    """Scores from a function of a user id and a list of item ids, one score for each item.

    The function gets ids as they are in the log. With `owners`, int64 [Q], scorers are asked with
    queries, and `owners` has the user of each query.
    """

    function: Callable[[Any, list[Any]], Any]
    log: Interactions
    owners: Int64 | None = None

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.log.n_items

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items for each of the B users, [B, I]."""
        every = np.broadcast_to(np.arange(self.n_items), (len(users), self.n_items))
        return self.score_pairs(users, every)

    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores of C items for each of the B users; `items` and the result are [B, C]."""
        out = np.empty(items.shape, dtype=np.float32)
        users = users if self.owners is None else self.owners[users]
        ids = self.log.user_ids.external(users).tolist()
        for row, (user, user_items) in enumerate(zip(ids, items, strict=True)):
            # Each item once, in the order of ids: an item's position must not reveal the positive.
            distinct, place = np.unique(user_items, return_inverse=True)
            answer = self.function(user, self.log.item_ids.external(distinct).tolist())
            # Ranks need only the order of scores, which rounding to float32 could change.
            out[row] = _order_of_scores(answer, user, len(distinct))[place]
        return out


def _order_of_scores(answer: Any, user: Any, count: int) -> Int64:
    """Position of each score among the distinct scores in ascending order, int64 [count].

    Equal scores get equal positions.
    """
    try:
        scores = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(
            f"the model's scores for user {user!r} are not numbers: {error}"
        ) from error
    if scores.shape != (count,):
        raise InputError(
            f"the model gave scores of shape {scores.shape} for {count} items of user {user!r}; "
            "give one score for each item"
        )
    if not np.isfinite(scores).all():
        raise NonFiniteError(
            f"the model gave user {user!r} a score that is NaN or infinite; give finite numbers"
        )
    return np.unique(scores, return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of a model that scores (user, item) pairs one by one (`PairScorer`).

    Pairs are scored in blocks, to limit memory. `owners` is as in `FunctionScores`.
    """

    model: Any
    n_items: int
    owners: Int64 | None = None

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items for each of the B users, [B, I]."""
        return self.score_pairs(
            users, np.broadcast_to(np.arange(self.n_items), (len(users), self.n_items))
        )

    @torch.no_grad()
    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores of C items for each of the B users; `items` and the result are [B, C]."""
        users = users if self.owners is None else self.owners[users]
        device = next(self.model.parameters()).device
        out = np.empty(items.shape, dtype=np.float32)
        width = max(1, min(items.shape[1], PAIRS))
        for first in range(0, len(users), PAIRS // width):
            rows = slice(first, first + PAIRS // width)
            block_users = torch.from_numpy(np.array(users[rows])).to(device)
            for left in range(0, items.shape[1], width):
                columns = slice(left, left + width)
                block_items = torch.from_numpy(np.array(items[rows, columns])).to(device)
                scores = self.model.score_pairs(block_users, block_items)
                out[rows, columns] = scores.cpu().numpy()
        return out


@dataclass(frozen=True, eq=False)
class NonIterativeScores:
    """Scores of a model that is trained without epochs (`NonIterative`).

    `known` is the matrix of known interactions; the model reads the rows of the users to score.
    """

    model: Any
    known: Any
    n_items: int

    def score_all(self, users: Int64) -> Float32:
        """Scores of all items for each of the B users, [B, I]."""
        return np.asarray(self.model.score_all(users, self.known[users]), dtype=np.float32)

    def score_pairs(self, users: Int64, items: Int64) -> Float32:
        """Scores of C items for each of the B users; `items` and the result are [B, C]."""
        out = np.empty(items.shape, dtype=np.float32)
        for block in blocks(len(users), self.n_items):
            out[block] = np.take_along_axis(self.score_all(users[block]), items[block], axis=1)
        return out


@dataclass(frozen=True, eq=False)
class QueryScores:
    """Scores of a `NonIterative` model from the histories of queries."""

    model: Any
    queries: Queries

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.queries.log.n_items

    def score_all(self, queries: Int64) -> Float32:
        """Scores of all items for each of the B queries, [B, I]."""
        rows, items = self.queries.histories(queries)
        shape = len(queries), self.n_items
        matrix = csr_array((np.ones(len(rows), dtype=np.float32), (rows, items)), shape=shape)
        matrix.sort_indices()
        users = self.queries.users[queries]
        return np.asarray(self.model.score_all(users, matrix), dtype=np.float32)

    def score_pairs(self, queries: Int64, items: Int64) -> Float32:
        """Scores of C items for each of the B queries; `items` and the result are [B, C]."""
        out = np.empty(items.shape, dtype=np.float32)
        for block in blocks(len(queries), self.n_items):
            # Queries of one list follow one another, and each is scored once.
            distinct, place = np.unique(queries[block], return_inverse=True)
            scores = self.score_all(distinct)
            out[block] = np.take_along_axis(scores[place], items[block], axis=1)
        return out


def reads_histories(model: Any) -> bool:
    """Whether a two-tower model encodes users by their histories."""
    return model.histories is not None and bool(model.folds_in)


def query_vectors(model: Any, queries: Queries, trained: Bool) -> Tensor:
    """Vectors h ⊙ z_u of queries from their histories, on the CPU, [Q, W].

    Parameters
    ----------
    model : TwoTower
        A model that reads histories.
    queries : Queries
    trained : bool [U]
        Users with a trained embedding. The vectors of other users come from the history alone.
    """
    out = torch.empty((len(queries), len(model.weight)), dtype=model.weight.dtype)
    is_known = trained[queries.users]
    for group in (is_known, ~is_known):
        numbers = np.flatnonzero(group)
        for first in range(0, len(numbers), ENCODED):
            block = numbers[first : first + ENCODED]
            rows, items = queries.histories(block)
            ends = np.cumsum(np.bincount(rows, minlength=len(block)))
            histories = fold_in(np.split(items, ends[:-1]), model.histories, queries.log.n_items)
            owners = queries.users[block] if is_known[block[0]] else None
            out[torch.from_numpy(block)] = vectors_from_histories(model, histories, owners).cpu()
    return out


def vectors(model: Any, rows: Interactions, histories: Any = None) -> tuple[Tensor, Tensor]:
    """User and item vectors of a two-tower model, on the CPU, with input histories from `rows`.

    `histories` may hold the result of `input_histories` for the same rows, so that it is not
    computed again.
    """
    histories = input_histories(rows, model.histories) if histories is None else histories
    user_histories, item_histories = histories
    users, items = all_vectors(model, user_histories, item_histories, rows.n_users, rows.n_items)
    return users.cpu(), items.cpu()


@torch.no_grad()
def all_vectors(
    model: Any,
    user_histories: UserHistories | None,
    item_histories: Tensor | LatestRows | None,
    n_users: int,
    n_items: int,
) -> tuple[Tensor, Tensor]:
    """Vectors whose plain inner product is the logit of Eq. 8: h ⊙ z_u [m, W] and z_i [n, W].

    W is the length of the model's vectors.

    Parameters
    ----------
    model : TwoTower
    user_histories, item_histories : int [m, N] and [n, N], or full histories, or None
        Input histories of users and of items; None for a model that has none.
    n_users, n_items : int
    """
    users = _encoded(model, model.encode_users, user_histories, n_users)
    items = _encoded(model, model.encode_items, item_histories, n_items)
    return users * model.weight.detach(), items


@torch.no_grad()
def vectors_from_histories(
    model: Any, histories: UserHistories | None, users: Int64 | None = None
) -> Tensor:
    """Vectors h ⊙ z_u of users with the given histories, [B, W].

    Parameters
    ----------
    model : TwoTower
    histories : int [B, N], full histories, or None
        None for a model that reads none.
    users : int64 [B], optional
        Indices of users who were in training; their own embeddings count too. By default, the
        vectors come from the histories alone.
    """

    def encode(places: Tensor, block: Any) -> Tensor:
        # places are 0 … B − 1
        chosen = None if users is None else torch.from_numpy(users).to(places.device)[places]
        vectors: Tensor = model.encode_users(chosen, block)
        return vectors

    count = len(histories) if histories is not None else 0 if users is None else len(users)
    weight: Tensor = model.weight.detach()
    return _encoded(model, encode, histories, count) * weight


def _encoded(model: Any, encode: Any, histories: UserHistories | None, count: int) -> Tensor:
    """Vectors that `encode` gives for indices 0 … count − 1, in blocks of `ENCODED`, [count, W].

    Each process encodes its share of them.
    """
    device = model.weight.device
    part = processes.share(count)
    out = []
    for first in range(part.start, part.stop, ENCODED):
        indices = torch.arange(first, min(first + ENCODED, part.stop))
        block = None if histories is None else histories[indices].to(device)
        out.append(encode(indices.to(device), block))
    empty = model.weight.detach().new_empty((0, len(model.weight)))
    return processes.gathered(torch.cat(out) if out else empty, count)


def blended(
    users: Tensor, items: Tensor, second_users: Any, second_items: Any, weight: float
) -> tuple[Tensor, Tensor]:
    """Concatenate the vectors of a model and of a second model, for a weighted sum of scores.

    An inner product of the results is first score + weight · second score.
    """
    scale = torch.tensor(weight, dtype=users.dtype)
    return torch.cat([users, second_users * scale], dim=1), torch.cat([items, second_items], dim=1)


def model_scores(model: Any, rows: Interactions, histories: Any = None) -> Scorer:
    """Scorer of a trained model that takes its input histories from `rows`.

    `histories` may hold the result of `input_histories` for these rows, so that it is not computed
    again.
    """
    if isinstance(model, NonIterative):
        return NonIterativeScores(model, rows.matrix, rows.n_items)
    if isinstance(model, TwoTower):
        return VectorScores(*vectors(model, rows, histories))
    return PairScores(model, rows.n_items)


def held_scores(model: Any, rows: Interactions, held: HeldOut, histories: Any = None) -> Scorer:
    """Scorer of a trained model for held-out items; it is asked with `HeldOut.lists`.

    Parameters
    ----------
    model
    rows : Interactions
        Training rows of the model, which are also the input histories if `held` has no queries.
    held : HeldOut
    histories : optional
        As for `model_scores`.
    """
    queries = held.queries
    if queries is None:
        return model_scores(model, rows, histories)
    if isinstance(model, NonIterative):
        return QueryScores(model, queries)
    if isinstance(model, TwoTower):
        return VectorScores(*held_vectors(model, rows, queries, histories))
    return PairScores(model, rows.n_items, queries.users)


def held_vectors(
    model: Any, rows: Interactions, queries: Queries, histories: Any = None
) -> tuple[Tensor, Tensor]:
    """Vectors of queries and of items of a two-tower model; parameters are as for `held_scores`."""
    if not reads_histories(model):
        users, items = vectors(model, rows, histories)
        return users[torch.from_numpy(queries.users)], items
    _, item_histories = input_histories(rows, model.histories) if histories is None else histories
    with torch.no_grad():
        items = _encoded(model, model.encode_items, item_histories, rows.n_items).cpu()
    return query_vectors(model, queries, has_rows(rows)), items


def with_new_users(model: Any, users: Tensor, rows: Interactions) -> Tensor:
    """User vectors [U, W] in which users without a row have the vector of an empty history.

    Their own embeddings are untrained. Models that read no histories keep them.
    """
    is_new = ~has_rows(rows)
    if not is_new.any() or not reads_histories(model):
        return users
    empty = fold_in([np.empty(0, dtype=np.int64)], model.histories, rows.n_items)
    users = users.clone()
    users[torch.from_numpy(is_new)] = vectors_from_histories(model, empty).cpu()
    return users


def has_rows(rows: Interactions) -> Bool:
    """Whether each user has a row, bool [U]."""
    return np.bincount(rows.users, minlength=rows.n_users) > 0


def run_scores(run: Run, held: HeldOut | None = None) -> Scorer:
    """Scorer of a finished run, whose input histories contain all known interactions.

    For held-out items with queries, the histories are those of the queries.
    """
    if held is not None and held.queries is not None:
        return _query_scores(run, held.queries)
    if run.user_vectors is not None and run.item_vectors is not None:
        return VectorScores(run.user_vectors, run.item_vectors)
    return model_scores(run.model, run.known)


def _query_scores(run: Run, queries: Queries) -> Scorer:
    """Scorer of a finished run for the queries of its split."""
    if base.non_iterative(run.config.name):
        return QueryScores(run.model, queries)
    if run.user_vectors is None or run.item_vectors is None:
        return PairScores(run.model, run.interactions.n_items, queries.users)
    assert run.split is not None
    trained = has_rows(run.split.known if run.config.train.refit else run.split.train)
    if reads_histories(run.model):
        parts = [query_vectors(run.model, queries, trained)]
    else:
        width = len(run.model.weight)  # the columns of a second model follow
        parts = [run.user_vectors[torch.from_numpy(queries.users), :width]]
    if run.blend is not None:
        weight = torch.tensor(run.blend.weight, dtype=parts[0].dtype)
        parts.append(query_vectors(run.second_model, queries, trained) * weight)
    return VectorScores(torch.cat(parts, dim=1), run.item_vectors)

"""First parameters of new users and new items in the tables of a trained model.

Trained users and items keep their parameters. A new item gets a vector from the users who took it:

- The inputs of the item are a mean over these users: for each user, the mean vector of the other
  items in the user's history.
- A ridge regression maps the inputs of old items onto their trained vectors. Each old item shows
  only as many of its users as some new item has. So an item with few users gets a cautious vector.

A new item without any row gets a vector from its features, e.g. its title. Another ridge regression
maps the features of old items onto their trained vectors.

A new item or user gets its vector anew in each update, until a training has changed it.

New users get zeros if the model folds in: a zero embedding beside a history is exactly the input of
a new user. For other models, a new user gets a vector from its items in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from torch import Tensor

from comet_rec.config import Config
from comet_rec.data.interactions import row_places
from comet_rec.data.joined import Joined
from comet_rec.errors import InputError
from comet_rec.models import base
from comet_rec.random import generator, torch_seed

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

EXAMPLES = 20_000
"""Largest number of trained vectors that a map is fitted on."""
PENALTIES = tuple(10.0**power for power in range(-6, 1))
"""Penalties of the ridge regression that are tried, as multiples of the largest eigenvalue."""


@dataclass(frozen=True, eq=False)
class Untrained:
    """Users and items of a joined log whose parameters no training has changed yet.

    Parameters
    ----------
    users, items : bool [m], [n]
    described : pair of int64 [d] and float64 [d, F], or None
        Item indices, and the features of these items.
    """

    users: Bool
    items: Bool
    described: tuple[Int64, Float64] | None = None


def grown(
    config: Config, state: Mapping[str, Tensor], joined: Joined, untrained: Untrained
) -> dict[str, Tensor]:
    """Parameters for all users and items of a joined log, from those for the old log.

    Parameters
    ----------
    config : Config
    state : mapping of str to Tensor
        Parameters of the model for the old log.
    joined : Joined
    untrained : Untrained
        Users and items that get first parameters.
    """
    log, old = joined.log, (len(joined.users), len(joined.items))
    seed = torch_seed(config.seed, "parameters")
    model = base.build(config.name, config.model, log.n_users, log.n_items, seed)
    bigger = {name: value.detach().clone() for name, value in model.state_dict().items()}
    of_users = _tables(config, old, (old[0] + 1, old[1]))
    of_items = item_tables(config, *old)
    for name, values in state.items():
        if name in of_users:
            bigger[name][torch.from_numpy(joined.users)] = values
        elif name in of_items:
            bigger[name][torch.from_numpy(joined.items)] = values
        else:
            bigger[name] = values

    item_rows = _side_by_side(bigger, of_items)  # [n, W]
    new_items, new_users = untrained.items, untrained.users
    if new_items.any() and of_items:
        taken = np.bincount(log.items, minlength=log.n_items) > 0
        if untrained.described is not None:
            indices, features = untrained.described
            cold = new_items & ~taken & np.isin(np.arange(log.n_items), indices)
            learned = ~new_items & taken
            item_rows[cold] = _described_vectors(item_rows, indices, features, learned, cold)
        if (new_items & taken).any():
            item_rows[new_items & taken] = _item_vectors(log.matrix, item_rows, new_items)
        _put_back(bigger, of_items, item_rows)
    if new_users.any() and of_users:
        user_rows = _side_by_side(bigger, of_users)
        user_rows[new_users] = 0
        if not model.folds_in:
            user_rows[new_users] = _user_vectors(log.matrix, item_rows, user_rows, new_users)
        _put_back(bigger, of_users, user_rows)
    return bigger


def item_tables(config: Config, n_users: int, n_items: int) -> list[str]:
    """Names of the parameters that have a row for each item."""
    return _tables(config, (n_users, n_items), (n_users, n_items + 1))


def _tables(config: Config, sizes: tuple[int, int], more: tuple[int, int]) -> list[str]:
    """Names of the parameters whose shapes differ between two numbers of users and items."""
    before, after = (base.state_arrays(config, *each) for each in (sizes, more))
    return [name for name in before if before[name].shape != after[name].shape]


def _side_by_side(state: Mapping[str, Tensor], names: list[str]) -> Float64:
    """All parameters of each user or each item, one row for each, [n, W]."""
    parts = [state[name].double().numpy().reshape(len(state[name]), -1) for name in names]
    return np.concatenate(parts, axis=1) if parts else np.empty((0, 0))


def _put_back(state: dict[str, Tensor], names: list[str], rows: Float64) -> None:
    """Replace parameters by the columns of `rows`; inverse of `_side_by_side`."""
    widths = [state[name][0].numel() for name in names]
    for name, part in zip(names, np.split(rows, np.cumsum(widths)[:-1], axis=1), strict=True):
        values = torch.from_numpy(np.ascontiguousarray(part)).to(state[name].dtype)
        state[name] = values.reshape(state[name].shape)


def _item_vectors(matrix: csr_array, rows: Float64, new: Bool) -> Float64:
    """Vectors of the new items that have rows, from the histories of their users, [items, W].

    Parameters
    ----------
    matrix : sparse [m, n]
        Ones at the observed pairs.
    rows : float64 [n, W]
        Trained vectors of the old items.
    new : bool [n]
    """
    by_item = csr_array(matrix.T)  # [n, m]
    known = matrix @ np.where(new, 0.0, 1.0)  # old items in each history, [m]
    sums = matrix @ np.where(new[:, None], 0.0, rows)  # [m, W]

    def features(takers: csr_array, itself: Float64 | None) -> Float64:
        # The mean over the other items of a history leaves the example itself out of sum and count.
        others = known if itself is None else known - 1
        weights = np.divide(1.0, others, out=np.zeros_like(others), where=others > 0)  # [m]
        means = takers @ (sums * weights[:, None])  # [x, W]
        if itself is not None:
            means -= itself * (takers @ weights)[:, None]
        counted = takers @ (weights > 0).astype(float)  # users with another item, [x]
        return np.asarray(means / np.maximum(counted, 1)[:, None])

    wanted = by_item[np.flatnonzero(new & (np.diff(by_item.indptr) > 0))]
    examples, shown = _examples(by_item, ~new, np.diff(wanted.indptr))
    map_ = ridge(_with_count(features(shown, rows[examples]), shown), rows[examples])
    return np.asarray(_with_count(features(wanted, None), wanted) @ map_)


def _described_vectors(
    rows: Float64, items: Int64, features: Float64, examples: Bool, wanted: Bool
) -> Float64:
    """Vectors of the items `wanted` [n], from features of items, [items, W].

    A map is fitted on the trained vectors of the items `examples` [n].

    Raises
    ------
    InputError
        When none of the examples has features.
    """
    inputs = np.column_stack([features, np.ones(len(items))])
    learned = np.flatnonzero(examples[items])[:EXAMPLES]
    if wanted.any() and len(learned) == 0:
        raise InputError(
            "items: describes no item that the model knows, so nothing can be learned for the new "
            "ones; add rows for the items of the log"
        )
    map_ = ridge(inputs[learned], rows[items[learned]])
    place = np.full(len(rows), -1)
    place[items] = np.arange(len(items))
    return np.asarray(inputs[place[wanted]] @ map_)


def _user_vectors(matrix: csr_array, item_rows: Float64, rows: Float64, new: Bool) -> Float64:
    """Vectors of the new users, from the vectors of their items, [users, W]."""

    def features(taken: csr_array) -> Float64:
        return np.asarray((taken @ item_rows) / np.maximum(np.diff(taken.indptr), 1)[:, None])

    wanted = matrix[np.flatnonzero(new)]
    examples, shown = _examples(matrix, ~new, np.diff(wanted.indptr))
    map_ = ridge(_with_count(features(shown), shown), rows[examples])
    return np.asarray(_with_count(features(wanted), wanted) @ map_)


def _examples(matrix: csr_array, old: Bool, counts: Int64) -> tuple[Int64, csr_array]:
    """Random old rows of a sparse matrix, each with only a random part of its entries.

    Each part is as large as a random one of `counts`, so that the examples resemble the new rows.
    """
    rng = generator(matrix.nnz, "update.examples")
    usable = np.flatnonzero(old & (np.diff(matrix.indptr) > 0))
    chosen = np.sort(rng.choice(usable, min(len(usable), EXAMPLES), replace=False))
    places, lengths = row_places(matrix.indptr.astype(np.int64), chosen)
    row = np.repeat(np.arange(len(chosen)), lengths)
    shuffled = np.lexsort((rng.random(len(row)), row))  # a random order within each row
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = place < np.repeat(rng.choice(np.maximum(counts, 1), len(chosen)), lengths)
    columns = matrix.indices[places][shuffled][kept]
    ones = np.ones(len(columns), dtype=matrix.dtype)
    return chosen, csr_array((ones, (row[kept], columns)), shape=(len(chosen), matrix.shape[1]))


def _with_count(features: Float64, entries: csr_array) -> Float64:
    """Features and two more columns: the logarithm of the number of entries, and 1."""
    counts = np.diff(entries.indptr)
    logs = np.log(np.maximum(counts, 1))
    return np.column_stack([features, logs, np.ones(len(counts))])


def ridge(features: Float64, targets: Float64) -> Float64:
    """Matrix of a ridge regression from features [x, d] onto targets [x, W], [d, W].

    The penalty is the one of `PENALTIES` with the smallest error when each example is left out in
    turn (Allen 1974). Such an error is the plain one divided by 1 − h, where h is the example's
    entry on the diagonal of the hat matrix.
    """
    values, basis = np.linalg.eigh(features.T @ features)  # ascending
    turned = features @ basis  # [x, d]
    along = turned.T @ targets  # [d, W]
    best, found = np.inf, along
    for share in PENALTIES:
        scale = 1 / (np.maximum(values, 0) + share * values[-1])  # [d]
        solution = scale[:, None] * along
        left_out = np.maximum(1 - (turned**2) @ scale, 1e-6)  # 1 − h, [x]
        error = np.mean(((targets - turned @ solution) / left_out[:, None]) ** 2)
        if error < best:
            best, found = error, solution
    return np.asarray(basis @ found)

"""Parts of a training batch: the pairs of some users, and the rows of tables that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.batches import Batch, SharedItems
from comet_rec.data.histories import Ragged
from comet_rec.data.interactions import row_starts
from comet_rec.data.prefixes import Prefixes

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Role = Literal["user", "item"]


def part_of_users(batch: Batch, chosen: Bool) -> Batch:
    """The pairs of some users of a batch, as a batch.

    Pairs keep their order, and so do users and items. With a softmax the positives are scored
    against the same items as in the whole batch.

    Parameters
    ----------
    batch : Batch
    chosen : bool [U]
        True for the entries of ``batch.users`` whose pairs to keep.
    """
    kept_users = np.flatnonzero(chosen)
    pair_users, pair_items = batch.pair_users.numpy(), batch.pair_items.numpy()
    pairs = np.flatnonzero(chosen[pair_users])
    place_of_user = np.cumsum(chosen) - 1
    # Numbers of the kept positives, in order. Every positive is a pair, so its number is a group.
    groups, group_numbers = np.unique(batch.groups.numpy()[pairs], return_inverse=True)

    kept_items = np.arange(len(batch.items))
    shared = batch.shared
    if shared is not None:
        columns = shared.columns.numpy()
        kept_items = np.union1d(columns, pair_items[pairs])
        shared = SharedItems(
            torch.from_numpy(np.searchsorted(kept_items, columns)),
            shared.log_weights,
            shared.positive_columns[torch.from_numpy(groups)],
        )
    elif len(batch.items) < batch.n_items:  # a full softmax needs all items
        kept_items = np.unique(pair_items[pairs])

    item_histories = batch.item_histories
    if item_histories is not None:
        item_histories = item_histories[torch.from_numpy(kept_items)]
    return replace(
        batch,
        users=batch.users[torch.from_numpy(kept_users)],
        items=batch.items[torch.from_numpy(kept_items)],
        user_histories=_histories_of(batch.user_histories, kept_users),
        item_histories=item_histories,
        pair_users=torch.from_numpy(place_of_user[pair_users[pairs]]),
        pair_items=torch.from_numpy(np.searchsorted(kept_items, pair_items[pairs])),
        labels=batch.labels[torch.from_numpy(pairs)],
        groups=torch.from_numpy(group_numbers),
        shared=shared,
        masked=None if batch.masked is None else batch.masked[torch.from_numpy(groups)],
    )


def _histories_of(histories: Any, users: Int64) -> Any:
    """Histories of some of the users."""
    if histories is None:
        return None
    if not isinstance(histories, Prefixes):
        return histories[torch.from_numpy(users)]
    # Keep the sequences of these users. An empty history has no sequence: its place is −1.
    last = histories.last.numpy()[users]
    sequence = histories.sequences.rows.numpy()[last[last >= 0]]
    kept = np.unique(sequence)
    starts = histories.sequences.starts.numpy()
    counts = starts[kept + 1] - starts[kept]
    moved = row_starts(counts)[:-1] - starts[kept]  # how far each kept sequence moves
    last = last.copy()
    last[last >= 0] += moved[np.searchsorted(kept, sequence)]
    return Prefixes(histories.sequences[torch.from_numpy(kept)], torch.from_numpy(last))


def compacted(batch: Batch, n_users: int) -> tuple[Batch, dict[Role, Tensor]]:
    """The batch with its distinct users and items numbered from 0, and their indices.

    A model whose tables hold only these rows, in this order, gives the same logits for the new
    batch as the whole model for the old one.

    Parameters
    ----------
    batch : Batch
    n_users : int
        Number of users of the log, which pads the histories of items.

    Returns
    -------
    batch : Batch
    rows : dict of int64 [R]
        For "user" and "item", the indices of the rows, ascending.
    """
    users, (own_users, of_items) = _numbered([batch.users, batch.item_histories], n_users)
    members = batch.user_histories
    if isinstance(members, Ragged):
        members = members.values
    elif isinstance(members, Prefixes):
        members = members.sequences.values
    items, (own_items, of_users) = _numbered([batch.items, members], batch.n_items)
    histories: Any = of_users
    if isinstance(batch.user_histories, Ragged):
        histories = Ragged(of_users, batch.user_histories.starts)
    elif isinstance(batch.user_histories, Prefixes):
        sequences = Ragged(of_users, batch.user_histories.sequences.starts)
        histories = Prefixes(sequences, batch.user_histories.last)
    small = replace(
        batch, users=own_users, items=own_items, user_histories=histories, item_histories=of_items
    )
    return small, {"user": users, "item": items}


def _numbered(parts: Sequence[Tensor | None], pad: int) -> tuple[Tensor, list[Any]]:
    """Distinct indices in tensors, ascending, and the tensors with their numbers.

    The pad becomes the number of distinct indices, so it stays one past the last row.
    """
    # Marking rows of a table takes a byte for each row. It is many times as fast as sorting the
    # indices, of which histories hold hundreds for each user.
    seen = np.zeros(pad + 1, dtype=bool)
    for part in parts:
        if part is not None:
            seen[part.numpy()] = True
    rows = np.flatnonzero(seen[:pad])
    number = np.empty(pad + 1, dtype=np.int64)
    number[rows] = np.arange(len(rows))
    number[pad] = len(rows)
    numbered = [
        None if part is None else torch.from_numpy(number[part.numpy()]).to(part.dtype)
        for part in parts
    ]
    return torch.from_numpy(rows), numbered

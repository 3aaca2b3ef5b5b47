"""Training batches: their distinct users and items, and the pairs to score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.data.epoch_order import EpochOrder
from comet_rec.data.histories import Histories, HistorySettings, Ragged, shuffled
from comet_rec.data.interactions import Interactions
from comet_rec.data.prefixes import Prefixes
from comet_rec.data.sampling import Negatives, SamplingName
from comet_rec.random import generator

Int64 = npt.NDArray[np.int64]

LARGEST_SHARE = 0.1
"""Largest share of all positives that one batch may hold, and largest share of one user's positives
that a batch may group. Larger batches would empty the histories that leave their positives out."""


@dataclass(frozen=True, eq=False)
class SharedItems:
    """Sampled items of a sampled softmax: all positives of a batch are scored against them.

    Parameters
    ----------
    columns : int64 [C]
        Positions of the sampled items in `Batch.items`, ascending.
    log_weights : float32 [C]
        Corrections to add to the logits of the sampled items (`Negatives.shared`).
    positive_columns : int64 [B]
        Position of each positive's item in `columns`; −1 if the item was not sampled.
    """

    columns: Tensor
    log_weights: Tensor
    positive_columns: Tensor

    def to(self, device: torch.device) -> SharedItems:
        """The same object with all tensors on `device`."""
        return SharedItems(
            self.columns.to(device), self.log_weights.to(device), self.positive_columns.to(device)
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Index tensors of one training step.

    `users` and `items` list each distinct user and item once, so that a model encodes each of them
    once. All other fields refer to positions in these two lists.

    Parameters
    ----------
    users : int64 [U]
        Distinct users. With "causal" histories there is one entry for each positive, because each
        positive has its own history: the user's rows before it.
    items : int64 [I]
        Distinct items of positives and negatives; all items for a full softmax.
    user_histories : int32 [U, N], Ragged, Prefixes or None
        N(u), padded in front with n_items. Ragged for models that read full histories; prefixes of
        sequences in batches of whole sequences; None for models without histories.
    item_histories : int32 [I, N] or None
        N(i), padded in front with n_users.
    pair_users, pair_items : int64 [P]
        Positions of each pair's user and item in `users` and `items`; `pair_users` ascends.
    labels : float32 [P]
        1 for a positive, 0 for a negative (Eq. 1).
    groups : int64 [P]
        Number of the positive that each pair belongs to: the positive itself, or one of its
        negatives.
    shared : SharedItems or None
        Items of a sampled softmax. With a softmax, the pairs are only the positives.
    masked : Ragged or None
        For each positive, the columns of the logits that its softmax leaves out.
    n_items : int
        Number of items of the log, which the loss gBCE needs.
    """

    users: Tensor
    items: Tensor
    user_histories: Tensor | Ragged | Prefixes | None
    item_histories: Tensor | None
    pair_users: Tensor
    pair_items: Tensor
    labels: Tensor
    groups: Tensor
    shared: SharedItems | None = None
    masked: Ragged | None = None
    n_items: int = 0

    @property
    def positives(self) -> int:
        """Number of positives, B."""
        return int((self.labels > 0).sum())

    def to(self, device: torch.device) -> Batch:
        """The same batch with all tensors on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if value is not None and name != "n_items"
        }
        return replace(self, **moved)


class Batches:
    """All training batches of a log; each one is a pure function of (seed, epoch, batch number).

    Every positive occurs once per epoch, with `negatives` items that its user has not interacted
    with in the training rows (Eq. 9). A user's positives are spread evenly over the epoch, so no
    batch holds a large part of one history.

    Two settings make the lists of distinct users and items in a batch shorter. A shorter list means
    fewer items or users to encode, and the expected loss stays the same. `positives_per_user` puts
    several positives of a user into the same batch (grouped sampling). `negative_pool` samples the
    negatives of a batch from a small random pool. By symmetry each negative is still uniform over
    the user's unobserved items.

    Parameters
    ----------
    log : Interactions
        The training rows.
    batch_size : int
        Positives in a batch. The number is lowered to a tenth of the log.
    negatives : int
        Negatives of each positive.
    histories : HistorySettings or None
        None for models that read no histories.
    seed : int
    positives_per_user : int
        Largest number of a user's positives that are put into the same batch on purpose. The
        number is lowered to a tenth of the user's history.
    negative_pool : int
        Items in the pool of a batch; 0 for no pool.
    sampling, popularity_power
        Settings of `Negatives`.
    softmax_items : int or None
        None if the loss is no softmax: negatives are sampled for each positive. For a softmax, the
        number of sampled items that all positives of a batch are scored against; 0 means all items.
    mask_known_positives : bool
        Leave the user's other positives out of the softmax of each positive.
    positives : bool [R] or None
        Rows that serve as positives, in every epoch; None for all. The other rows occur only in
        histories.
    """

    def __init__(
        self,
        log: Interactions,
        *,
        batch_size: int,
        negatives: int,
        histories: HistorySettings | None,
        seed: int,
        positives_per_user: int = 1,
        negative_pool: int = 0,
        sampling: SamplingName = "uniform",
        popularity_power: float = 1.0,
        softmax_items: int | None = None,
        mask_known_positives: bool = False,
        positives: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.log = log
        self.batch_size = max(1, min(batch_size, int(len(log) * LARGEST_SHARE)))
        self.positives = positives
        self.negatives = negatives
        self.settings = histories
        self.seed = seed
        self.softmax_items = softmax_items
        self.mask_known_positives = mask_known_positives
        counts = np.diff(log.user_starts)
        share = (counts * LARGEST_SHARE).astype(np.int64)
        self._group_sizes = np.clip(share, 1, positives_per_user)  # [m]
        self._histories = Histories(log) if histories is not None else None
        full = histories is not None and histories.policy == "full"
        self._full = self._histories.users.full() if full and self._histories else None
        self._causal = histories is not None and histories.policy == "causal"
        self._negatives = Negatives(
            log, sampling=sampling, power=popularity_power, pool=negative_pool
        )

    @cached_property
    def _masked(self) -> npt.NDArray[np.bool_]:
        """Rows that histories leave out, bool [R]; all false between two batches.

        A new array for each batch would take longer than the batch itself in a large log. So only
        one thread may make batches at a time.
        """
        return np.zeros(len(self.log), dtype=bool)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        count = len(self.log) if self.positives is None else int(self.positives.sum())
        return -(-count // self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Batches of epoch number `epoch` in order, from batch number `first` on."""
        make = self._batch if self.softmax_items is None else self._softmax_batch
        order = EpochOrder(self.log, self._group_sizes, self.positives, self.seed, epoch)
        for number, rows in order.batches(self.batch_size, first):
            rng = generator(self.seed, "batch", epoch, number)
            yield make(np.sort(rows), rng)

    def _batch(
        self, rows: Int64, rng: np.random.Generator, prefixes: Prefixes | None = None
    ) -> Batch:
        """Batch with these rows of the log as positives, each with its own negatives.

        `prefixes` are the histories of the rows' users, if they are not drawn here.
        """
        positive_users = self.log.users[rows].astype(np.int64)  # [B]
        positive_items = self.log.items[rows].astype(np.int64)
        drawn = self._negatives.of_users(positive_users, self.negatives, positive_items, rng)
        negative_users = np.repeat(positive_users, self.negatives)
        exists = drawn >= 0  # a user who interacted with every item has no negatives
        labels = np.repeat(np.array([1, 0], dtype=np.float32), [len(rows), int(exists.sum())])
        positive = np.arange(len(rows))
        groups = np.concatenate([positive, np.repeat(positive, self.negatives)[exists]])
        if self._causal:
            users, pair_users = positive_users, groups
        else:
            users, pair_users = np.unique(
                np.concatenate([positive_users, negative_users[exists]]), return_inverse=True
            )
        items, pair_items = np.unique(
            np.concatenate([positive_items, drawn[exists]]), return_inverse=True
        )
        by_user = np.argsort(pair_users, kind="stable")  # `pair_products` needs ascending users
        histories = self._input_histories(rows, users, items, rng, prefixes)
        return Batch(
            users=torch.from_numpy(users),
            items=torch.from_numpy(items),
            user_histories=histories[0],
            item_histories=histories[1],
            pair_users=torch.from_numpy(pair_users[by_user]),
            pair_items=torch.from_numpy(pair_items[by_user]),
            labels=torch.from_numpy(labels[by_user]),
            groups=torch.from_numpy(groups[by_user]),
            n_items=self.log.n_items,
        )

    def _softmax_batch(
        self, rows: Int64, rng: np.random.Generator, prefixes: Prefixes | None = None
    ) -> Batch:
        """Batch for a softmax loss: these rows as positives, and the items to score them with."""
        positive_users = self.log.users[rows].astype(np.int64)  # [B]
        positive_items = self.log.items[rows].astype(np.int64)
        positive = np.arange(len(rows))
        users, pair_users = positive_users, positive
        if not self._causal:
            users, pair_users = np.unique(positive_users, return_inverse=True)

        items, pair_items = np.arange(self.log.n_items), positive_items
        sampled, shared = None, None
        if self.softmax_items:
            sampled, weights = self._negatives.shared(self.softmax_items, positive_items, rng)
            items, places = np.unique(
                np.concatenate([sampled, positive_items]), return_inverse=True
            )
            columns, pair_items = np.split(places, [len(sampled)])
            # `sampled` is ascending, so a binary search finds a positive that was sampled.
            column = np.minimum(np.searchsorted(sampled, positive_items), len(sampled) - 1)
            positive_columns = np.where(sampled[column] == positive_items, column, -1)
            shared = SharedItems(
                torch.from_numpy(columns),
                torch.from_numpy(weights),
                torch.from_numpy(positive_columns),
            )

        masked = None
        if self.mask_known_positives:
            masked = Ragged.of_arrays(
                *self._negatives.positives_among(positive_users, positive_items, sampled)
            )
        histories = self._input_histories(rows, users, items, rng, prefixes)
        return Batch(
            users=torch.from_numpy(users),
            items=torch.from_numpy(items),
            user_histories=histories[0],
            item_histories=histories[1],
            pair_users=torch.from_numpy(pair_users),
            pair_items=torch.from_numpy(pair_items),
            labels=torch.from_numpy(np.ones(len(rows), dtype=np.float32)),
            groups=torch.from_numpy(positive),
            shared=shared,
            masked=masked,
            n_items=self.log.n_items,
        )

    def _input_histories(
        self, rows: Int64, users: Int64, items: Int64, rng: np.random.Generator,
        prefixes: Prefixes | None,
    ) -> tuple[Tensor | Ragged | Prefixes | None, Tensor | None]:  # fmt: skip
        """Histories of the batch's users and items.

        With `exclude_target`, padded histories do not contain the batch's positives. The histories
        of users are drawn before those of items.
        """
        if self.settings is None or self._histories is None:
            return None, None
        if self._full is not None:
            return self._full[torch.from_numpy(users)], None
        # The rows before a positive cannot contain it, so causal user histories need no mask.
        masked = None
        random_rows = self.settings.items or not self._causal
        if random_rows and self.settings.exclude_target:
            masked = self._masked
            masked[rows] = True
        sides = self._histories
        user_histories: Tensor | Prefixes
        if prefixes is not None:
            user_histories = prefixes
        elif self._causal:
            padded = sides.users.before(rows, users, self.settings.length)
            if self.settings.shuffle:
                padded = shuffled(padded, sides.users.pad, rng)
            user_histories = torch.from_numpy(padded)
        else:
            drawn = sides.users.drawn(users, masked, self.settings, rng)
            user_histories = torch.from_numpy(drawn)
        item_histories = None
        if self.settings.items:
            item_histories = torch.from_numpy(sides.items.drawn(items, masked, self.settings, rng))
        if masked is not None:
            masked[rows] = False
        return user_histories, item_histories

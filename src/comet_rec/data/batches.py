"""Training batches: distinct users, distinct items, and where each pair finds its two ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from comet_rec.data.bags import Bags
from comet_rec.data.choosing import shuffled
from comet_rec.data.histories import Histories, HistorySettings
from comet_rec.data.interactions import Interactions
from comet_rec.data.negatives import Negatives, SamplingName
from comet_rec.data.randomness import generator

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

LARGEST_SHARE = 0.1
"""Most of the log, and so of any user's history, that one batch holds as positives."""


@dataclass(frozen=True, eq=False)
class Shared:
    """Drawn items that all positives of a batch are scored against.

    Parameters
    ----------
    columns : int64 [C]
        Their places in the batch's items, ascending.
    log_weights : float32 [C]
        Correction of each logit for its sampling probability (`Negatives.shared`).
    own : int64 [B]
        Place in `columns` of each positive's own item; −1 where it was not drawn.
    """

    columns: Int64
    log_weights: npt.NDArray[np.float32]
    own: Int64


@dataclass(frozen=True, eq=False)
class Batch:
    """Index arrays of one training step; no embedding, no tensor.

    Parameters
    ----------
    users : int64 [U]
        Distinct users; with causal histories the user of each positive, since what came before
        differs.
    items : int64 [I]
        Distinct items, positives and negatives; for a softmax over the catalogue all items.
    user_histories : int32 [U, N], Bags or None
        Shown rows of N(u), padded in front with n_items; or all of N(u); None where the model
        asks for none.
    item_histories : int32 [I, N] or None
        Shown rows of N(i), padded in front with n_users.
    pair_users, pair_items : int64 [P]
        Places in `users` and `items`, ascending by user.
    labels : float32 [P]
        1 for an observed pair, 0 for a sampled one (Eq. 1).
    groups : int64 [P]
        Number of the positive that each pair is, or was drawn for.
    positives : int
        Number of positives.
    shared : Shared or None
        With a sampled softmax: the items drawn. The pairs are then the positives alone.
    masked : Bags or None
        For each positive the shared items (without `shared`: all items) left out of its softmax.
    """

    users: Int64
    items: Int64
    user_histories: Int32 | Bags | None
    item_histories: Int32 | None
    pair_users: Int64
    pair_items: Int64
    labels: npt.NDArray[np.float32]
    groups: Int64
    positives: int
    shared: Shared | None = None
    masked: Bags | None = None


class Batches:
    """All batches of a training log, each a pure function of (seed, epoch, number).

    Every positive occurs once an epoch, with `negatives` items that its user never touched in
    training (Eq. 9). A user's positives are spread evenly over the epoch, so that no batch
    holds more of a history than its own share of the log, give or take one row or group.

    Two settings make a batch hold fewer distinct users and items, hence fewer tower passes,
    and leave the expectation of the loss as it is: `positives_per_user` rows of a user come
    together (each still once an epoch), and negatives come from a random pool that the batch
    shares (each is still uniform over what its user never touched, by symmetry).

    Parameters
    ----------
    log : Interactions
        The training rows.
    batch_size : int
        Positives a batch; at most a tenth of the log is taken.
    negatives : int
        Drawn for each positive.
    histories : HistorySettings or None
        Settings of the model's histories; None for models without histories.
    seed : int
    positives_per_user : int
        Most rows of a user that come together; never more than a tenth of the history.
    negative_pool : int
        Items in the pool of a batch; 0 draws from the whole catalogue.
    sampling, popularity_power
        As in `Negatives`.
    softmax_items : int or None
        None gives each positive its own negatives. Otherwise it gets none, and the batch as many
        items as this, shared by its positives; 0 for the whole catalogue.
    mask_touched : bool
        Leave the other items that a user touched out of the softmax.
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
        mask_touched: bool = False,
    ) -> None:
        self.log = log
        self.batch_size = max(1, min(batch_size, int(len(log) * LARGEST_SHARE)))
        self.negatives = negatives
        self.settings = histories
        self.seed = seed
        self.softmax_items = softmax_items
        self.mask_touched = mask_touched
        counts = np.diff(log.user_starts)
        share = (counts * LARGEST_SHARE).astype(np.int64)
        self._together = np.clip(share, 1, positives_per_user)
        self._histories = Histories(log) if histories is not None else None
        whole = histories is not None and histories.policy == "whole"
        self._bags = self._histories.users.whole() if whole and self._histories else None
        self._causal = histories is not None and histories.policy == "causal"
        self._negatives = Negatives(
            log, sampling=sampling, power=popularity_power, pool=negative_pool
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.log) // self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Batches of an epoch in order, from number `first` on."""
        order = self._order(epoch)
        for number in range(first, len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            rng = generator(self.seed, "batch", epoch, number)
            make = self._batch if self.softmax_items is None else self._softmax_batch
            yield make(np.sort(rows), rng)

    def _order(self, epoch: int) -> Int64:
        """Rows of the log, each user's in random order and evenly spaced from a random start."""
        rng = generator(self.seed, "order", epoch)
        log = self.log
        shuffled = rng.permutation(len(log))
        by_user = shuffled[np.argsort(log.users[shuffled], kind="stable")]
        counts = np.diff(log.user_starts)
        place = np.arange(len(log)) - np.repeat(log.user_starts[:-1], counts)
        group = place // np.repeat(self._together, counts)
        groups = np.repeat(-(-counts // self._together), counts)
        start = np.repeat(rng.random(log.n_users), counts)
        return np.asarray(by_user[np.argsort((group + start) / groups, kind="stable")])

    def _batch(self, rows: Int64, rng: np.random.Generator) -> Batch:
        """Positives and their own negatives."""
        positive_users = self.log.users[rows].astype(np.int64)
        positive_items = self.log.items[rows].astype(np.int64)
        drawn = self._negatives.untouched(positive_users, self.negatives, positive_items, rng)
        negative_users = np.repeat(positive_users, self.negatives)
        exists = drawn >= 0  # a user who touched everything has no negatives
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
        by_user = np.argsort(pair_users, kind="stable")
        shown_users, shown_items = self._shown(rows, users, items, rng)
        return Batch(
            users,
            items,
            shown_users,
            shown_items,
            pair_users[by_user],
            pair_items[by_user],
            labels[by_user],
            groups[by_user],
            len(rows),
        )

    def _softmax_batch(self, rows: Int64, rng: np.random.Generator) -> Batch:
        """Positives, and items that they share."""
        positive_users = self.log.users[rows].astype(np.int64)
        positive_items = self.log.items[rows].astype(np.int64)
        positive = np.arange(len(rows))
        users, pair_users = positive_users, positive
        if not self._causal:
            users, pair_users = np.unique(positive_users, return_inverse=True)
        items, pair_items, shared = np.arange(self.log.n_items), positive_items, None
        candidates = None
        if self.softmax_items:
            candidates, weights = self._negatives.shared(self.softmax_items, positive_items, rng)
            items, places = np.unique(
                np.concatenate([candidates, positive_items]), return_inverse=True
            )
            columns, pair_items = np.split(places, [len(candidates)])
            own = np.minimum(np.searchsorted(candidates, positive_items), len(candidates) - 1)
            shared = Shared(columns, weights, np.where(candidates[own] == positive_items, own, -1))
        masked = None
        if self.mask_touched:
            masked = self._negatives.others(positive_users, positive_items, candidates)
        of_users, of_items = self._shown(rows, users, items, rng)
        labels = np.ones(len(rows), dtype=np.float32)
        return Batch(
            users, items, of_users, of_items, pair_users, pair_items, labels, positive, len(rows),
            shared, masked,
        )  # fmt: skip

    def _shown(
        self, rows: Int64, users: Int64, items: Int64, rng: np.random.Generator
    ) -> tuple[Int32 | Bags | None, Int32 | None]:
        """Histories of the batch's users and items, its own positives left out if asked."""
        if self.settings is None or self._histories is None:
            return None, None
        if self._bags is not None:
            return self._bags[users], None
        hidden = None  # what a draw leaves out; what came before needs no draw
        drawn = self.settings.items or not self._causal
        if drawn and self.settings.exclude_target:
            hidden = np.zeros(len(self.log), dtype=bool)
            hidden[rows] = True
        sides = self._histories
        if self._causal:
            of_users = sides.users.before(rows, users, self.settings.length)
            if self.settings.shuffle:
                of_users = shuffled(of_users, sides.users.pad, rng)
        else:
            of_users = sides.users.drawn(users, hidden, self.settings, rng)
        of_items = None
        if self.settings.items:
            of_items = sides.items.drawn(items, hidden, self.settings, rng)
        return of_users, of_items

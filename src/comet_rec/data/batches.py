"""Training batches: distinct users, distinct items, and where each pair finds its two ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from comet_rec.data.histories import Bags, Histories, HistorySettings
from comet_rec.data.interactions import Interactions
from comet_rec.data.randomness import generator
from comet_rec.data.sampling import Complement

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

LARGEST_SHARE = 0.1
"""Most of the log, and so of any user's history, that one batch holds as positives."""

POOL_ROUNDS = 20
"""Draws from a batch's pool before a user who touched nearly all of it draws elsewhere."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Index arrays of one training step; no embedding, no tensor.

    Parameters
    ----------
    users : int64 [U]
        Distinct users; with causal histories the user of each positive, since what came before
        differs.
    items : int64 [I]
        Distinct items, positives and negatives.
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
        What the model wants to see; None for models without histories.
    seed : int
    positives_per_user : int
        Most rows of a user that come together; never more than a tenth of the history.
    negative_pool : int
        Items in the pool of a batch; 0 draws from the whole catalogue.
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
    ) -> None:
        self.log = log
        self.batch_size = max(1, min(batch_size, int(len(log) * LARGEST_SHARE)))
        self.negatives = negatives
        self.settings = histories
        self.seed = seed
        self.negative_pool = negative_pool
        counts = np.diff(log.user_starts)
        share = (counts * LARGEST_SHARE).astype(np.int64)
        self._together = np.clip(share, 1, positives_per_user)
        self._histories = Histories.of(log) if histories is not None else None
        whole = histories is not None and histories.policy == "whole"
        self._bags = self._histories.users.whole() if whole and self._histories else None
        self._causal = histories is not None and histories.policy == "causal"
        # What a filter dropped was touched all the same: no negative.
        self._complement = Complement(
            np.concatenate([log.users, log.dropped_users]),
            np.concatenate([log.items, log.dropped_items]),
            log.n_users,
            log.n_items,
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.log) // self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Batches of an epoch in order, from number `first` on."""
        order = self._order(epoch)
        for number in range(first, len(self)):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(np.sort(rows), epoch, number)

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

    def _batch(self, rows: Int64, epoch: int, number: int) -> Batch:
        rng = generator(self.seed, "batch", epoch, number)
        positive_users = self.log.users[rows].astype(np.int64)
        positive_items = self.log.items[rows].astype(np.int64)
        drawn = self._negatives(positive_users, rng)
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

    def _negatives(self, users: Int64, rng: np.random.Generator) -> Int64:
        """Untouched items of each user, [len(users) · negatives]; −1 where there is none."""
        if self.negative_pool == 0 or self.negative_pool >= self.log.n_items:
            return self._complement.draw(users, self.negatives, rng).ravel()
        pool = rng.choice(self.log.n_items, self.negative_pool, replace=False)
        owners = np.repeat(users, self.negatives)
        drawn = pool[rng.integers(0, len(pool), len(owners))]
        again = np.flatnonzero(self._complement.touched(owners, drawn))
        for _ in range(POOL_ROUNDS):
            if len(again) == 0:
                return drawn
            drawn[again] = pool[rng.integers(0, len(pool), len(again))]
            again = again[self._complement.touched(owners[again], drawn[again])]
        # A user who touched almost all of the pool draws from the catalogue.
        drawn[again] = self._complement.draw(owners[again], 1, rng).ravel()
        return drawn

    def _shown(
        self, rows: Int64, users: Int64, items: Int64, rng: np.random.Generator
    ) -> tuple[Int32 | Bags | None, Int32 | None]:
        """Histories of the batch's users and items, its own positives left out if asked."""
        if self.settings is None or self._histories is None:
            return None, None
        if self._bags is not None:
            return self._bags[users], None
        hidden = None
        if self.settings.exclude_target:
            hidden = np.zeros(len(self.log), dtype=bool)
            hidden[rows] = True
        sides = self._histories
        if self._causal:
            of_users = sides.users.before(rows, users, self.settings.length)
        else:
            of_users = sides.users.drawn(users, hidden, self.settings, rng)
        return of_users, sides.items.drawn(items, hidden, self.settings, rng)

"""Order of the positives in an epoch: each user's rows are spread evenly over it.

A user's rows stand in random order in groups, nearly always of one row. Group g of the user's G
groups stands at the fraction (g + start) / G of the epoch, where the start is random for each user.
So no batch holds a large part of one history.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from comet_rec import memory
from comet_rec.data.interactions import Interactions
from comet_rec.errors import DataError
from comet_rec.random import generator

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

LARGE = 1 << 25
"""Number of rows from which an order is made by segments, from draws for each block of rows."""
BLOCK_ROWS = 1 << 21
"""Number of rows whose places are drawn at a time in a large log."""
NO_LIMIT = 1 << 62
SHARE = 0.2
"""Share of the memory limit that a segment of the order may take."""


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """The rows of a log in the order of one epoch, as batches.

    Parameters
    ----------
    log : Interactions
    group_sizes : int64 [m]
        Number of rows in a group of each user.
    positives : bool [R] or None
        Rows to order; None for all.
    seed, epoch : int
        All draws are functions of these two.
    """

    log: Interactions
    group_sizes: Int64
    positives: Bool | None
    seed: int
    epoch: int

    def batches(self, size: int, first: int = 0) -> Iterator[tuple[int, Int64]]:
        """Number and rows of each batch of `size` rows, from batch number `first` on."""
        number, left = 0, np.empty(0, dtype=np.int64)
        parts = self._segments() if len(self.log) >= LARGE else iter([self._at_once()])
        for part in parts:
            left = np.concatenate([left, part]) if len(left) > 0 else part
            whole = len(left) // size
            for place in range(whole):
                if number >= first:
                    yield number, left[place * size : (place + 1) * size]
                number += 1
            left = left[whole * size :].copy()  # a view would keep the segment in memory
            del part
        if len(left) > 0 and number >= first:
            yield number, left

    def _at_once(self) -> Int64:
        """All rows in order, int64 [P]."""
        rng = generator(self.seed, "order", self.epoch)
        log = self.log
        shuffled_rows = rng.permutation(len(log))
        # The stable sort by user keeps the random order within each user.
        by_user = shuffled_rows[np.argsort(log.users[shuffled_rows], kind="stable")]
        counts = np.diff(log.user_starts)
        place = np.arange(len(log)) - np.repeat(log.user_starts[:-1], counts)
        group = place // np.repeat(self.group_sizes, counts)
        groups = np.repeat(-(-counts // self.group_sizes), counts)
        start = np.repeat(rng.random(log.n_users), counts)
        order = np.asarray(by_user[np.argsort((group + start) / groups, kind="stable")])
        return order if self.positives is None else order[self.positives[order]]

    def _segments(self) -> Iterator[Int64]:
        """The rows in order, in segments of the epoch that fit into the memory limit.

        Each segment passes over all blocks of rows, and keeps those whose fraction lies in it.
        """
        if len(self.log) > 1 << 32:
            raise DataError(
                f"a log of {len(self.log):,} rows: an epoch has at most 2^32 rows; train on the "
                "latest rows"
            )
        rows_at_once = max(BLOCK_ROWS, memory.share(SHARE, NO_LIMIT) // 16)
        segments = -(-len(self.log) // rows_at_once)
        bounds = np.linspace(0, 1 << 32, segments + 1).astype(np.uint64)
        starts = self.log.user_starts
        # First user of each block: blocks hold whole users, and about `BLOCK_ROWS` rows.
        blocks = np.unique(
            np.searchsorted(starts, np.arange(0, len(self.log), BLOCK_ROWS), side="right") - 1
        )
        blocks = np.append(blocks, self.log.n_users)
        for low, high in itertools.pairwise(bounds):
            # A segment has nearly its share of the rows; a block more is room for the difference.
            kept = np.empty(int(len(self.log) / segments * 1.02) + BLOCK_ROWS, dtype=np.uint64)
            count = 0
            for number in range(len(blocks) - 1):
                keys = self._keys(number, int(blocks[number]), int(blocks[number + 1]))
                if segments > 1:
                    fraction = keys >> np.uint64(32)
                    keys = keys[(fraction >= low) & (fraction < high)]
                kept[count : count + len(keys)] = keys
                count += len(keys)
            ordered = kept[:count]
            ordered.sort()
            ordered &= np.uint64(0xFFFFFFFF)  # the low half of a key is the row
            yield ordered.view(np.int64)

    def _keys(self, number: int, first: int, end: int) -> UInt64:
        """Sort keys of the rows of users `first` to `end` − 1: fraction · 2³² and the row."""
        rng = generator(self.seed, "order.block", self.epoch, number)
        starts = self.log.user_starts[first : end + 1]
        counts = np.diff(starts)
        owner = np.repeat(np.arange(end - first, dtype=np.uint64), counts)
        # Random 32 bits below the user: the rank of a row among those of its user is its place.
        drawn = rng.integers(0, 1 << 32, len(owner), dtype=np.uint64)
        order = np.argsort((owner << np.uint64(32)) | drawn, kind="stable")
        place = np.empty(len(owner), dtype=np.int64)
        place[order] = np.arange(len(owner)) - np.repeat(starts[:-1] - starts[0], counts)
        sizes = self.group_sizes[first:end]
        group = place // np.repeat(sizes, counts)
        groups = np.repeat(-(-counts // sizes), counts)
        start = np.repeat(rng.random(end - first), counts)
        fraction = ((group + start) / groups * (1 << 32)).astype(np.uint64)
        fraction = np.minimum(fraction, np.uint64((1 << 32) - 1))  # rounding may reach 1
        rows = np.arange(starts[0], starts[-1], dtype=np.uint64)
        keys = (fraction << np.uint64(32)) | rows
        return keys if self.positives is None else keys[self.positives[starts[0] : starts[-1]]]

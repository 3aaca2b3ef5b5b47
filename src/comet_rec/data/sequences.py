"""Training batches of whole sequences: all rows of a piece are positives of the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from comet_rec.data.batches import Batch, Batches
from comet_rec.data.prefixes import pieces, prefixes
from comet_rec.random import generator

Int64 = npt.NDArray[np.int64]


class SequenceBatches(Batches):
    """All training batches of a log, made of pieces of the users' sequences.

    The arguments are those of `Batches`. `histories` needs causal histories with ``steps > 0``.
    Every positive occurs once per epoch. A batch differs from one of `Batches` in two ways:

    - Its positives are all rows of its pieces. So its size is `batch_size` only on average, and it
      is never smaller than the longest piece.
    - ``user_histories`` are `Prefixes` of sequences, one for each entry of ``users``. With a
      context of N items they are the histories that `Batches` gives, in another form.

    Each batch is a pure function of (seed, epoch, batch number).
    """

    @cached_property
    def _positive_count(self) -> int:
        return len(self.log) if self.positives is None else int(self.positives.sum())

    @cached_property
    def _count(self) -> int:
        assert self.settings is not None
        longest = min(self.settings.steps, int(np.diff(self.log.user_starts).max(initial=0)))
        most = self._positive_count // max(self.batch_size, longest)
        return max(1, most) if self._positive_count > 0 else 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._count

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Batches of epoch number `epoch` in order, from batch number `first` on."""
        assert self.settings is not None
        rng = generator(self.seed, "sequence.cuts", epoch)
        begin, end = pieces(self.log, self.settings.steps, rng)
        begin, end, bounds = self._shuffled(begin, end, epoch)
        for number in range(first, len(self)):
            chosen = np.arange(bounds[number], bounds[number + 1])
            chosen = chosen[np.argsort(begin[chosen])]  # ascending rows give ascending users
            rows, histories = prefixes(
                self.log, begin[chosen], end[chosen], self.settings.context, self.positives
            )
            rng = generator(self.seed, "sequence.batch", epoch, number)
            make = self._batch if self.softmax_items is None else self._softmax_batch
            yield make(rows, rng, histories)

    def _shuffled(self, begin: Int64, end: Int64, epoch: int) -> tuple[Int64, Int64, Int64]:
        """The pieces with positives in random order, and the bounds of batches among them."""
        sizes = end - begin  # positives in each piece
        if self.positives is not None:
            before = np.append(0, np.cumsum(self.positives))  # positives before each row
            sizes = before[end] - before[begin]
        kept = np.flatnonzero(sizes > 0)
        order = kept[generator(self.seed, "sequence.order", epoch).permutation(len(kept))]
        # A piece belongs to the batch in which its first positive falls, if the positives are
        # divided evenly. No piece is longer than such a share, so no batch is empty.
        passed = np.cumsum(sizes[order]) - sizes[order]
        batch = passed * len(self) // max(self._positive_count, 1)
        bounds = np.searchsorted(batch, np.arange(len(self) + 1))
        return begin[order], end[order], bounds

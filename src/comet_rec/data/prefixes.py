"""Prefixes of sequences: the causal histories of a user's rows, without repeating an item.

The causal history of a row is the items before it, so consecutive rows share all but one item. A
user's rows are cut into pieces of at most `steps` rows, which a model encodes in one pass. Up to
`context` rows before a piece occur only in its histories. With steps = 3 and context = 2:

    rows of a user            0   1   2   3   4   5   6
    first piece               0   1   2                    histories: [], [0], [0 1]
        its sequence          0   1
    second piece                      :   3   4   5        histories: [1 2], [1 2 3], [1 2 3 4]
        its sequence              1   2   3   4
    third piece                               :   :   6    histories: [4 5]
        its sequence                          4   5

A sequence ends before the last row of its piece, so no history can show the row that it predicts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.data.histories import Ragged
from comet_rec.data.interactions import Interactions, ranges, row_starts

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Histories that are prefixes of sequences: the items of a sequence up to one of them.

    Parameters
    ----------
    sequences : Ragged
        Items of each sequence, oldest first.
    last : int64 [U]
        For each history, the position of its latest item in ``sequences.values``; −1 if the history
        is empty. A history is the part of its sequence up to that position.
    """

    sequences: Ragged
    last: Tensor

    def __len__(self) -> int:
        return len(self.last)

    def to(self, device: torch.device) -> Prefixes:
        """The same prefixes with tensors on `device`."""
        return Prefixes(self.sequences.to(device), self.last.to(device))

    @staticmethod
    def of_padded(histories: Tensor, pad: int) -> Prefixes:
        """Padded histories [U, N] without their pads, each as a sequence of its own."""
        real = histories != pad
        starts = nnf.pad(real.sum(dim=1).cumsum(0), (1, 0))
        return Prefixes.whole(Ragged(histories[real].long(), starts))

    @staticmethod
    def whole(sequences: Ragged) -> Prefixes:
        """Each sequence as one history, up to its latest item."""
        last = torch.where(sequences.counts > 0, sequences.starts[1:] - 1, -1)
        return Prefixes(sequences, last)

    def windows(self, length: int, pad: int) -> tuple[Windows, Tensor]:
        """The latest `length` items of each history as windows, and the window of each, int64 [U].

        Each sequence is one piece, from its first history to its end. All empty histories share a
        window of pads.
        """
        values, starts = self.sequences.values, self.sequences.starts
        given = self.last >= 0
        sequence = self.sequences.rows[self.last[given]]  # of each history that is not empty
        # Latest item of the first history of each sequence; past all items if it has none.
        first = torch.full_like(starts[1:], len(values))
        first = first.scatter_reduce(0, sequence, self.last[given], "amin")  # [n]
        # A piece begins `length − 1` places before that item; places before the sequence are pads.
        sizes = (starts[1:] - first).clamp(min=0) + length - 1
        used = first < len(values)
        sizes = torch.cat([starts.new_tensor([length]), sizes[used]])  # the piece of pads is first
        ends = torch.cat([starts[:1], sizes.cumsum(0)])
        pieces = Ragged(values.new_full((int(ends[-1]),), pad), ends)
        piece = pieces.rows[length:] - 1  # of each place behind the piece of pads
        within = torch.arange(len(piece), device=ends.device) + length - ends[1:-1][piece]
        places = first[used][piece] - length + 1 + within
        inside = places >= starts[:-1][used][piece]
        pieces.values[length:] = torch.where(inside, values[places.clamp(min=0)], pad)
        # Windows of the pieces before: their rows, less `length − 1` for each of them.
        offsets = torch.zeros_like(first)
        offsets[used] = ends[1:-1] - (length - 1) * torch.arange(
            1, len(ends) - 1, device=ends.device
        )
        place = torch.zeros_like(self.last)
        place[given] = offsets[sequence] + self.last[given] - first[sequence]
        return Windows(pieces, length), place

    def padded(self, length: int, pad: int) -> Tensor:
        """The latest `length` items of each history, padded in front with `pad`, int32 [U, length].

        This form repeats most items `length` times: models should read the sequences instead.
        """
        values, last = self.sequences.values, self.last
        first = self.sequences.starts[self.sequences.rows]  # start of each value's sequence, [V]
        # Position −1 of an empty history gets no item: the column below never reaches its start.
        start = torch.cat([first, first.new_zeros(1)])[last]
        places = last[:, None] + torch.arange(1 - length, 1, device=last.device)  # [U, length]
        items = torch.cat([values, values.new_full((1,), pad)])[places.clamp(min=-1)]
        return items.where(places >= start[:, None], pad).int()


@dataclass(frozen=True, eq=False)
class Windows:
    """Padded histories of consecutive steps, as windows of `length` rows over longer pieces.

    The history of a step is the N rows before it. So the steps t to t + T − 1 of a user have one
    piece of N + T − 1 rows, and their histories are its windows::

        piece     r0 r1 r2 r3 r4        (N = 3, T = 3)
        step t    r0 r1 r2
        t + 1        r1 r2 r3
        t + 2           r2 r3 r4

    Parameters
    ----------
    pieces : Ragged
        Rows of each piece, at least N. A piece of M rows has M − N + 1 windows.
    length : int
        N.
    """

    pieces: Ragged
    length: int

    def __len__(self) -> int:
        return len(self.pieces.values) - len(self.pieces) * (self.length - 1)

    @property
    def counts(self) -> Tensor:
        """Number of windows of each piece, int64 [P]."""
        return self.pieces.counts - (self.length - 1)

    def select(self, chosen: Tensor) -> tuple[Windows, Tensor]:
        """The windows of the pieces where `chosen` [P] is true, and their places here, int64."""
        of_chosen = chosen.repeat_interleave(self.pieces.counts)
        ends = nnf.pad(self.pieces.counts[chosen].cumsum(0), (1, 0))
        windows = Windows(Ragged(self.pieces.values[of_chosen], ends), self.length)
        return windows, torch.nonzero(chosen.repeat_interleave(self.counts))[:, 0]

    def padded(self) -> Tensor:
        """The windows as histories of their own, int64 [W, N]."""
        counts = self.counts
        # Window w of piece p begins w rows after the start of the piece. The windows of all pieces
        # before it are `length − 1` fewer than the rows, for each piece.
        first = torch.arange(len(self), device=counts.device)
        piece = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        first = first + piece * (self.length - 1)  # [W]
        places = first[:, None] + torch.arange(self.length, device=counts.device)
        return self.pieces.values[places]

    def to(self, device: torch.device) -> Windows:
        """The same windows with tensors on `device`."""
        return Windows(self.pieces.to(device), self.length)


def pieces(log: Interactions, steps: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Cut the rows of all users into pieces; returns the first row and the end of each, int64 [n].

    A user with more than `steps` rows has a random number of rows in the first piece. So the cuts
    differ from epoch to epoch.
    """
    counts = np.diff(log.user_starts)
    drawn = rng.integers(1, steps + 1, size=len(counts))
    in_first = np.where(counts > steps, drawn, steps)  # rows in the first piece of a user, [m]
    after_first = np.maximum(counts - in_first, 0)
    numbers = np.where(counts > 0, 1 + -(-after_first // steps), 0)  # pieces of each user

    number, _ = ranges(np.zeros_like(numbers), numbers)  # 0, 1, … within each user, [n]
    start, stop = (np.repeat(x, numbers) for x in (log.user_starts[:-1], log.user_starts[1:]))
    end = start + np.repeat(in_first, numbers) + number * steps
    return np.maximum(end - steps, start), np.minimum(end, stop)


def prefixes(
    log: Interactions, first: Int64, end: Int64, context: int, positives: Bool | None = None
) -> tuple[Int64, Prefixes]:
    """Rows of the given pieces, int64 [B], and the history of each row.

    Parameters
    ----------
    log : Interactions
    first, end : int64 [n]
        Rows from ``first[p]`` to ``end[p] − 1`` make piece p.
    context : int
        Largest number of rows before a piece that its histories contain.
    positives : bool [R] or None
        Rows of the log to return; None for all. The others only occur in histories.
    """
    rows, sizes = ranges(first, end)
    begin = np.maximum(first - context, log.user_starts[log.users[first]])
    places, lengths = ranges(begin, end - 1)
    starts = row_starts(lengths)
    # The row before a positive stands in the piece's sequence, if it is not before its beginning.
    since = rows - 1 - np.repeat(begin, sizes)
    last = np.where(since >= 0, np.repeat(starts[:-1], sizes) + since, -1)
    if positives is not None:
        rows, last = rows[positives[rows]], last[positives[rows]]
    sequences = Ragged.of_arrays(log.items[places].astype(np.int64), starts)
    return rows, Prefixes(sequences, torch.from_numpy(last))

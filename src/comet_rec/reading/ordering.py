"""Coded rows to canonical order, repeats removed, in little memory.

Rows are dealt out to blocks of whole users, small enough for a processor's cache. Within a block
(user, time, place) is one 64-bit number, and a plain sort of numbers is several times faster than
a sort that carries rows along.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.interactions import Int32, Int64

BLOCK_BITS = 18
UInt64 = npt.NDArray[np.uint64]


@dataclass
class Rows:
    """Rows of a log, dealt out to blocks of whole users.

    Parameters
    ----------
    counts : int64 [n_users]
        Number of rows of each user, at least 1.
    n_items : int
        Number of items.
    clock : dtype or None
        Type of the times, an integer; None without times.
    """

    counts: Int64
    n_items: int
    clock: npt.DTypeLike | None
    columns: dict[str, npt.NDArray[Any]] = field(init=False)

    def __post_init__(self) -> None:
        rows = int(self.counts.sum())
        # So small that (user, item, place) of a block is one 64-bit number as well.
        most = 1 << min(BLOCK_BITS, (64 - _bits(self.n_items)) // 2)
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        first = [0]
        while first[-1] < len(self.counts):
            fit = int(np.searchsorted(ends, ends[first[-1]] + most, side="right")) - 1
            first.append(max(first[-1] + 1, fit))
        self._first = np.array(first)
        self._starts: Int64 = ends[self._first].astype(np.int64)
        self._filled = self._starts[:-1].copy()
        # Numpy sorts 16-bit numbers by counting.
        small = np.uint16 if len(first) <= 1 << 16 else np.uint32
        self._block = np.repeat(np.arange(len(first) - 1, dtype=small), np.diff(self._first))
        types: dict[str, npt.DTypeLike] = {"u": np.int32, "i": np.int32}
        if self.clock is not None:
            types["t"] = self.clock
        self.columns = {name: np.empty(rows, dtype=kind) for name, kind in types.items()}

    def add(self, chunk: dict[str, npt.NDArray[Any]]) -> None:
        """Deal out rows that stand behind all those before.

        Parameters
        ----------
        chunk : mapping of str to array [C]
            User `u`, item `i`, place in the file `n` (distinct) and, with times, time `t`.
        """
        if bool(np.any(chunk["n"][1:] < chunk["n"][:-1])):  # a join may turn rows around
            turned = np.argsort(chunk["n"])
            chunk = {name: column[turned] for name, column in chunk.items()}
        blocks = self._block[chunk["u"]]
        order = np.argsort(blocks, kind="stable")
        counts = np.bincount(blocks, minlength=len(self._filled))
        ends = np.cumsum(counts)
        for name, column in self.columns.items():
            dealt = np.take(chunk[name], order)
            for block in np.flatnonzero(counts):
                at, count, end = self._filled[block], counts[block], ends[block]
                column[at : at + count] = dealt[end - count : end]
        self._filled += counts

    def ordered(self, threads: int) -> tuple[Int32, Int32, npt.NDArray[Any] | None]:
        """All rows by user, time and place; the first row of each pair, without the others.

        Returns
        -------
        users, items : int32 [K]
        times : array [K] or None
        """
        with ThreadPoolExecutor(threads) as pool:  # numpy's sorts let other threads run
            kept = list(pool.map(self._order_block, range(len(self._filled))))
        for column in self.columns.values():
            filled = 0
            for start, count in zip(self._starts[:-1].tolist(), kept, strict=True):
                column[filled : filled + count] = column[start : start + count]
                filled += count
            column.resize(filled, refcheck=False)  # gives the rest back; a slice would hold it
        return self.columns["u"], self.columns["i"], self.columns.get("t")

    def _order_block(self, block: int) -> int:
        """Order a block in its place; the number of rows that are kept, at its beginning."""
        here = slice(int(self._starts[block]), int(self._starts[block + 1]))
        rows = {name: column[here] for name, column in self.columns.items()}
        users = (rows["u"] - np.int32(self._first[block])).astype(np.uint64)
        order = stable_order(users, rows.get("t"))
        users, items = users[order], rows["i"][order]
        keep = np.flatnonzero(first_of_pair(users, items, self.n_items))
        end = here.start + len(keep)
        self.columns["i"][here.start : end] = items[keep]
        if "t" in rows:
            self.columns["t"][here.start : end] = rows["t"][order[keep]]
        self.columns["u"][here.start : end] = rows["u"][order[keep]]
        return len(keep)


def _bits(n: int) -> int:
    """Bits that the numbers 0…n−1 need."""
    return max(0, int(n) - 1).bit_length()


def _shifted(numbers: UInt64, bits: int) -> UInt64:
    return numbers << np.uint64(bits)


def _numbered(keys: UInt64) -> tuple[UInt64, Int64]:
    """Sorted keys, and the place of each before; equal keys keep their order.

    Keys must leave free the bits that their number needs.
    """
    bits = _bits(len(keys))
    packed = _shifted(keys, bits) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    places = (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
    packed >>= np.uint64(bits)
    return packed, places


def stable_order(users: UInt64, times: npt.NDArray[Any] | None) -> Int64:
    """Permutation that sorts rows by user, then time, then place, int64 [R].

    Parameters
    ----------
    users : uint64 [R]
        Less than 2⁶⁴ / R.
    times : integers [R] or None
    """
    if times is None or len(times) == 0:
        return _numbered(users)[1]
    low, high = int(times.min()), int(times.max())
    # Modulo 2⁶⁴: right for any span of int64, where the difference itself may overflow.
    since = times.astype(np.uint64) - np.uint64(low % 2**64)
    spare = 64 - _bits(len(users)) - _bits(int(users.max()) + 1)
    coarse = max(0, _bits(high - low + 1) - spare)
    width = _bits(high - low + 1) - coarse
    keys, order = _numbered(_shifted(users, width) | (since >> np.uint64(coarse)))
    if coarse:  # close times of one user still stand as in the file
        same = keys[1:] == keys[:-1]
        close = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        among = np.lexsort((since[order[close]], keys[close]))
        order[close] = order[close[among]]
    return order


def first_of_pair(users: UInt64, items: Int32, n_items: int) -> npt.NDArray[np.bool_]:
    """True at the first row of each pair, bool [R]; users · items · R must be below 2⁶⁴."""
    pairs, places = _numbered(_shifted(users, _bits(n_items)) | items.astype(np.uint64))
    first = np.ones(len(pairs), dtype=np.bool_)
    first[places[1:][pairs[1:] == pairs[:-1]]] = False
    return first

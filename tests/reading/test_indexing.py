"""The canonical order made in numpy, held against Python's own sort."""

from __future__ import annotations

import numpy as np
import pytest

from comet_rec.reading import indexing
from comet_rec.reading.indexing import Rows, stable_order

Row = tuple[int, int, int, int]


def expected(rows: list[Row], *, timed: bool) -> list[tuple[int, ...]]:
    """Rows (user, item, time, place) by user, time and place, first of each pair."""
    seen: set[tuple[int, int]] = set()
    kept = []
    for u, i, t, _ in sorted(rows, key=lambda r: (r[0], r[2] if timed else 0, r[3])):
        if (u, i) not in seen:
            seen.add((u, i))
            kept.append((u, i, t) if timed else (u, i))
    return kept


def ordered(
    rows: list[Row], n_items: int, clock: type[np.generic] | None, chunk: int, threads: int = 2
) -> list[tuple[int, ...]]:
    table = np.array(rows, dtype=np.int64)
    box = Rows(np.bincount(table[:, 0]), n_items, clock)
    for begin in range(0, len(rows), chunk):
        part = table[begin : begin + chunk]
        box.add({"u": part[:, 0], "i": part[:, 1], "t": part[:, 2], "n": part[:, 3]})
    users, items, times = box.ordered(threads)
    columns = [users, items] if times is None else [users, items, times]
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("clock", [None, np.uint32, np.int64])
@pytest.mark.parametrize("bits", [1, 3, 5, 18])
@pytest.mark.parametrize("turned", [False, True])
def test_rows_come_out_as_from_a_stable_sort(
    monkeypatch: pytest.MonkeyPatch, clock: type[np.generic] | None, bits: int, turned: bool
) -> None:
    monkeypatch.setattr(indexing, "BLOCK_BITS", bits)
    rng = np.random.default_rng(bits)
    users = np.concatenate([np.arange(40), np.full(60, 17), rng.integers(0, 40, 300)])
    drawn = zip(
        rng.permutation(users).tolist(),
        rng.integers(0, 9, 400).tolist(),
        rng.integers(0, 12, 400).tolist(),
        np.sort(rng.choice(10_000, 400, replace=False)).tolist(),
        strict=True,
    )
    rows = list(drawn)
    want = expected(rows, timed=clock is not None)
    arrived = list(rows)
    for begin in range(0, 400, 70) if turned else ():
        rng.shuffle(part := arrived[begin : begin + 70])
        arrived[begin : begin + 70] = part
    assert ordered(arrived, 9, clock, chunk=70) == want


def test_times_of_any_span_in_blocks_of_many_users() -> None:
    """Spans of up to 64 bits do not fit beside user and place: close times need a second look."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 1_000, 20_000).astype(np.uint64)
    for low, high in [(0, 2**20), (-(2**62), 2**62), (-(2**63), 2**63 - 1)]:
        far = rng.integers(low, high, 200, dtype=np.int64)
        times = np.minimum(far[rng.integers(0, 200, 20_000)], 2**63 - 9)
        times += rng.integers(0, 4, 20_000)  # neighbours, and many equal ones
        order = stable_order(users, times)
        np.testing.assert_array_equal(order, np.lexsort((times, users)))


def test_one_row_and_many_items() -> None:
    last = 2**31 - 1
    assert ordered([(0, last - 1, 7, 0)], last, np.int64, chunk=1) == [(0, last - 1, 7)]
    rows = [(0, last - 1, 7, 0), (0, 5, 6, 1), (0, last - 1, 1, 2), (1, last - 1, 0, 3)]
    assert ordered(rows, last, np.int64, chunk=2) == expected(rows, timed=True)

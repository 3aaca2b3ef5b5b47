"""A log of any size whose users and items follow a power law, as a folder of Parquet files.

    python benchmarks/power_law.py --rows 100000000 --users 1000000 --items 100000 --out LOG

Users and items are drawn independently with chances ∝ rank^(−0.7). The ranks of items are shuffled,
so ids say nothing about popularity. Times are distinct seconds in random order. Each file is a
function of the seed and its number, so a log of the same arguments is the same anywhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb
import numpy as np

FILE_ROWS = 5_000_000
EXPONENT = 0.7


def ranks(n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Ranks 0 … n − 1 with chances ∝ (rank + 1)^(−0.7), by the inverse of their distribution."""
    return np.minimum((n * rng.random(count) ** (1 / (1 - EXPONENT))).astype(np.int64), n - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    names = np.random.default_rng((given.seed, 0)).permutation(given.items)
    with duckdb.connect() as con:
        for number, first in enumerate(range(0, given.rows, FILE_ROWS)):
            rng = np.random.default_rng((given.seed, 1, number))
            count = min(FILE_ROWS, given.rows - first)
            columns = {
                "user_id": ranks(given.users, count, rng),
                "item_id": names[ranks(given.items, count, rng)],
                "timestamp": 1_000_000_000 + first + rng.permutation(count),
            }
            con.register("given", columns)
            con.execute(f"COPY given TO '{given.out}/part-{number:05d}.parquet' (FORMAT parquet)")
            con.unregister("given")


if __name__ == "__main__":
    main()

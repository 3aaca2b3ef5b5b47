"""Reading a log of 20 million rows with text ids beside the bare query that does the same.

    python benchmarks/reading.py --before ../before/src --out results/bench/reading.json

A power law of users and items, written once as Parquet and as CSV. In turns (A B A B), each in a
process of its own: `comet_rec.read`, the same of another checkout where one is named, and the
frozen statements of `reading.sql` in a plain DuckDB. Seconds of the reading alone, by the clock and
of the processor, medians and their ratios; peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from machine import command, machine, write

STATEMENTS = Path(__file__).with_name("reading.sql")
USERS, ITEMS = 138_493, 26_744


def write_logs(folder: Path, rows: int) -> dict[str, Path]:
    """The log as Parquet and as CSV."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> np.ndarray:
        chances = np.cumsum(np.arange(1, n + 1) ** -0.7)
        return np.searchsorted(chances, rng.random(rows) * chances[-1])

    columns = {"u": drawn(USERS), "i": drawn(ITEMS), "t": rng.integers(10**9, 2 * 10**9, rows)}
    paths = {form: folder / f"log.{form}" for form in ("parquet", "csv")}
    with duckdb.connect(config={"temp_directory": str(folder)}) as con:
        con.register("given", columns)
        con.execute(
            "CREATE TABLE log AS SELECT printf('user-%08d', u) AS user_id, "
            "printf('item-%07d', i) AS item_id, t AS timestamp FROM given"
        )
        con.execute(f"COPY log TO '{paths['parquet']}' (FORMAT parquet)")
        con.execute(f"COPY log TO '{paths['csv']}' (FORMAT csv)")
    return paths


def one(way: str, path: Path) -> dict[str, float]:
    """Seconds and peak memory of one reading, in this process."""
    if way == "bare":
        began, worked = time.perf_counter(), time.process_time()
        rows = _bare(path)
    else:
        import comet_rec as cr

        cr.read  # noqa: B018 - its module is imported before the clock starts
        began, worked = time.perf_counter(), time.process_time()
        rows = len(cr.read(path))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = float(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak}


def _bare(path: Path) -> int:
    with (
        tempfile.TemporaryDirectory() as spill,
        duckdb.connect(config={"temp_directory": spill}) as con,
    ):
        found = []
        for statement in STATEMENTS.read_text().format(rows=f"'{path}'").split(";"):
            result = con.execute(statement)
            if statement.strip().startswith("SELECT"):
                found.append(result.fetchnumpy())
        return len(found[0]["u"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="src folder of another checkout")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], Path(given.one[1]))))
        return
    result: dict[str, Any] = {"command": command(), "rows": given.rows, "formats": {}}
    with tempfile.TemporaryDirectory() as folder:
        for form, path in write_logs(Path(folder), given.rows).items():
            ways = ["library", *(["before"] if given.before else []), "bare"]
            found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(given.rounds):
                for way, runs in found.items():
                    program = [sys.executable, __file__, "--one", way, str(path)]
                    paths = {"PYTHONPATH": str(given.before.resolve())} if way == "before" else {}
                    done = subprocess.run(
                        program, capture_output=True, text=True, check=True, env=os.environ | paths
                    )
                    runs.append(json.loads(done.stdout))
            seconds, cpu_seconds = (
                {way: statistics.median(run[name] for run in runs) for way, runs in found.items()}
                for name in ("seconds", "cpu_seconds")
            )
            result["formats"][form] = {
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "ratio": seconds["library"] / seconds["bare"],
                "peak_mib": {w: max(run["peak_mib"] for run in r) for w, r in found.items()},
                "runs": found,
            }
            if given.before:
                result["formats"][form]["ratio_to_before"] = {
                    "seconds": seconds["library"] / seconds["before"],
                    "cpu_seconds": cpu_seconds["library"] / cpu_seconds["before"],
                }
    result["machine"] = machine()
    write(result, given.out)


if __name__ == "__main__":
    main()

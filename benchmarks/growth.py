"""How costs grow with the log and with the catalogue.

    python benchmarks/growth.py --out results/bench/growth.json --plot docs/_static/growth.svg

Synthetic logs whose users and items follow a power law, 10^5 to 10^7 interactions: seconds a tower
pass in training, and resident memory of log, model and batch tables against a line of bytes an
interaction. Catalogues of 3,700 to a million items: tower passes a positive, with negatives of each
pair's own and with a pool that the batch shares, and what that makes of the ratio to a port that
encodes both towers for each of the five pairs (10 passes a positive).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

from comet_rec.data.batches import Batches
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.estimators.presets import preset
from machine import command, machine, write

SIZES = (10**5, 10**6, 10**7)
CATALOGUES = (3_700, 20_000, 100_000, 1_000_000)
POOL = 2048
PORT_PASSES = 10


def power_law(rows: int, n_users: int, n_items: int, seed: int = 0) -> Interactions:
    """A log whose users and items are drawn with chances ∝ rank^(−0.7), repeats left out."""
    rng = np.random.default_rng(seed)

    def drawn(n: int, size: int) -> np.ndarray:
        chances = np.cumsum(np.arange(1, n + 1) ** -0.7)
        return np.searchsorted(chances, rng.random(size) * chances[-1])

    keys = np.unique(drawn(n_users, rows) * n_items + drawn(n_items, rows))
    while len(keys) < rows:
        more = rows - len(keys)
        keys = np.unique(
            np.concatenate([keys, drawn(n_users, more) * n_items + drawn(n_items, more)])
        )
    users, items = np.divmod(keys, n_items)
    return Interactions(
        users=users.astype(np.int32),
        items=items.astype(np.int32),
        times=rng.permutation(rows).astype(np.int64),
        time_scope="global",
        user_ids=Ids("int", np.arange(n_users)),
        item_ids=Ids("int", np.arange(n_items)),
    )


def resident() -> float:
    """Resident size of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(x for x in lines if x.startswith("VmRSS")).split()[1])


def one_size(rows: int, steps: int) -> dict[str, float]:
    """Seconds a tower pass, and memory, at one size; in a process of its own."""
    from throughput import Library, seconds

    before = resident()
    log = power_law(rows, max(1000, rows // 100), max(1000, rows // 300))
    plain = {"train.batch_size": 8192, "train.warmup": 0.0, "train.average": 0.0}
    config = preset("paper", "comet", log).with_settings(plain)
    library = Library.of(log, config)
    library.step()
    held = resident() - before
    passes, spent, towers = [], [], []
    for _ in range(steps):
        spent += seconds(library.step, 1)
        towers += seconds(library.towers, 1)
        passes.append(library.passes)
    weights = (log.n_users + log.n_items) * config.model.embedding_dim * 4
    return {
        "rows": rows,
        "users": log.n_users,
        "items": log.n_items,
        "microseconds_a_pass": 1e6
        * statistics.median(s / p for s, p in zip(towers, passes, strict=True)),
        "microseconds_of_the_loop_a_pass": 1e6
        * statistics.median(s / p for s, p in zip(spent, passes, strict=True)),
        "bytes_held": held,
        "bytes_of_tables": weights,
    }


def passes_a_positive(n_items: int, pool: int) -> float:
    """Tower passes a positive at batches of 8,192 on a log of a million rows."""
    log = power_law(10**6, 10_000, n_items)
    batches = Batches(log, batch_size=8192, negatives=4, histories=None, seed=0, negative_pool=pool)
    batch = next(batches.epoch(0))
    return (len(batch.users) + len(batch.items)) / batch.positives


def plot(result: dict[str, Any], path: Path) -> None:
    """Three panels: cost of a pass, memory, passes a positive."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "comet-rec"
    import matplotlib.pyplot as plt

    figure, (cost, memory, passes) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    rows = [size["rows"] for size in result["sizes"]]
    cost.plot(rows, [size["microseconds_a_pass"] for size in result["sizes"]], "o-")
    cost.set(xscale="log", ylim=(0, None), xlabel="interactions", ylabel="µs a tower pass")
    memory.plot(rows, [size["bytes_held"] / 2**20 for size in result["sizes"]], "o", label="held")
    line = [
        (
            result["bytes_an_interaction"] * s["rows"]
            + result["bytes_fixed"]
            + 4 * s["bytes_of_tables"]
        )
        / 2**20
        for s in result["sizes"]
    ]
    memory.plot(rows, line, "--", label="stated line")
    memory.set(xscale="log", yscale="log", xlabel="interactions", ylabel="MiB")
    memory.legend()
    items = [row["items"] for row in result["catalogues"]]
    for key, label in (("own", "negatives of their own"), ("pool", f"pool of {POOL:,}")):
        passes.plot(items, [row[key] for row in result["catalogues"]], "o-", label=label)
    passes.axhline(PORT_PASSES, linestyle="--", color="grey", label="literal port")
    passes.set(xscale="log", ylim=(0, None), xlabel="items", ylabel="tower passes a positive")
    passes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(one_size(given.only, given.steps)))
        return
    began = time.perf_counter()
    sizes = []
    for rows in SIZES:
        program = [sys.executable, __file__, "--only", str(rows), "--steps", str(given.steps)]
        found = subprocess.run(program, capture_output=True, text=True, check=True)
        sizes.append(json.loads(found.stdout))
    costs = [size["microseconds_a_pass"] for size in sizes]
    # Tables stand four times: parameters, gradients, two moments. The rest is the log's and a
    # step's own: a line through the ends.
    rest = [size["bytes_held"] - 4 * size["bytes_of_tables"] for size in sizes]
    slope = (rest[-1] - rest[0]) / (SIZES[-1] - SIZES[0])
    result: dict[str, Any] = {
        "command": command(),
        "sizes": sizes,
        "cost_of_a_pass_spread": max(costs) / min(costs) - 1,
        "bytes_an_interaction": slope,
        "bytes_fixed": rest[0] - slope * SIZES[0],
        "catalogues": [
            {
                "items": n,
                "own": (own := passes_a_positive(n, 0)),
                "pool": (pool := passes_a_positive(n, POOL)),
                "port_passes_over_own": PORT_PASSES / own,
                "port_passes_over_pool": PORT_PASSES / pool,
            }
            for n in CATALOGUES
        ],
        "seconds": time.perf_counter() - began,
        "machine": machine(),
    }
    write(result, given.out)
    if given.plot:
        plot(result, given.plot)


if __name__ == "__main__":
    main()

"""Time of lists: one new user, one known user, and all users of a large log to a file.

    python benchmarks/lists.py --data ml-1m.parquet --out results/bench/lists.json

- A new user: `recommend_for_history` with one history of the log, with the model of the preset
  "auto" at random weights. The time does not depend on the weights.
- The ten best of 100,000 and of a million items (K = 128) in turns with the bare product and
  `torch.topk`: the search alone for one user and for a block of users, and the whole `recommend`.
- Lists of 10^4 and 10^5 users among 10^5 items (K = 64) to Parquet, each in its own process, with
  the process's memory before and its peak.

Medians of the processor time of one thread, which other processes of a machine change little; on an
idle machine it is the time that passes. A file's time is the time that passes. Vectors are random.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch

import comet_rec as cr
from comet_rec.artefact.run import Run, SecondModel, second_config
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.evaluation.scoring import blended, vectors
from comet_rec.models import base
from comet_rec.retrieval.exact import top_k
from machine import command, machine, write

CATALOGUES = (100_000, 1_000_000)
USERS = (10_000, 100_000)
BLOCK = 128
"""Users of a block. The bare product holds the scores of all items for all of them."""


def milliseconds(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median time of each function; they are called in turns, first once to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, run in ways.items():
            start = time.process_time()
            run()
            if round_ > 0:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def untrained(data: str) -> cr.COMET:
    """A COMET of the preset "auto" for a log, with random weights, and vectors from them."""
    log = cr.read(data)
    comet = cr.COMET()
    config = comet.config_for(log)
    model = base.build("comet", config.model, log.n_users, log.n_items, 0)
    second = second_config(config)
    other = base.build(second.name, second.model, log.n_users, log.n_items, 0)
    users, items = blended(*vectors(model, log), *vectors(other, log), 0.5)
    comet._run = Run(
        config, 1, model.state_dict(), log, None, users.detach(), items.detach(),
        blend=SecondModel(other.state_dict(), 0.5),
    )  # fmt: skip
    return comet


def made(n_users: int, n_items: int, k: int) -> cr.MF:
    """An MF with random vectors, whose users have ten random items each."""
    rng = np.random.default_rng(0)
    log = Interactions(
        users=np.repeat(np.arange(n_users, dtype=np.int32), 10),
        items=rng.integers(0, n_items, 10 * n_users, dtype=np.int32),
        times=None,
        time_scope="none",
        user_ids=Ids("int", np.arange(n_users)),
        item_ids=Ids("int", np.arange(n_items)),
    )
    mf = cr.MF(embedding_dim=k)
    torch.manual_seed(0)
    users, items = torch.randn(n_users, k), torch.randn(n_items, k)
    mf._run = Run(mf.config_for(log), 1, {}, log, None, users, items)
    return mf


def new_users(data: str, rounds: int) -> dict[str, float]:
    """Time of a call for one new user, over the histories of different users."""
    comet = untrained(data)
    log = comet.run.interactions
    starts = log.user_starts
    times = []
    for user in np.linspace(0, log.n_users - 1, rounds + 1).astype(int).tolist():
        history = log.item_ids.external(log.items[starts[user] : starts[user + 1]]).tolist()
        start = time.process_time()
        comet.recommend_for_history([history], 10)
        times.append(1e3 * (time.process_time() - start))
    first, *rest = times  # the first call builds the model
    return {
        "first_ms": first, "median_ms": statistics.median(rest),
        "p95_ms": float(np.quantile(rest, 0.95)),
    }  # fmt: skip


def catalogue(n_items: int, rounds: int) -> dict[str, float]:
    """Time a user of the ten best items, and of the bare product with `torch.topk`."""
    mf = made(100, n_items, 128)
    items, longest = mf.run.item_vectors, mf.run.longest_item
    assert items is not None
    one, block = torch.randn(1, 128), torch.randn(BLOCK, 128)
    single = milliseconds(
        {
            "search": lambda: list(top_k(one, items, 10, longest=longest)),
            "bare": lambda: torch.topk(one @ items.T, 10),
            "recommend": lambda: mf.recommend([7], 10),
        },
        rounds,
    )
    blocks = milliseconds(
        {
            "search": lambda: list(top_k(block, items, 10, longest=longest)),
            "bare": lambda: torch.topk(block @ items.T, 10),
        },
        max(1, rounds // 5),
    )
    return {
        "items": n_items,
        "search_ms": single["search"], "bare_ms": single["bare"],
        "recommend_ms": single["recommend"],
        "ratio": single["search"] / single["bare"],
        "recommend_ratio": single["recommend"] / single["bare"],
        "block_search_ms_a_user": blocks["search"] / BLOCK,
        "block_bare_ms_a_user": blocks["bare"] / BLOCK,
        "block_ratio": blocks["search"] / blocks["bare"],
    }  # fmt: skip


def memory(entry: str) -> float:
    """Memory of this process, MiB: VmRSS is the present one, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(entry)).split()[1]) / 1024


def to_file(n_users: int) -> dict[str, float]:
    """Write the lists of all users to Parquet, and report the time and the memory."""
    mf = made(n_users, 100_000, 64)
    before = memory("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lists.parquet"
        start, cpu = time.perf_counter(), time.process_time()
        mf.write_lists(path, 10)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        size = path.stat().st_size
    peak = memory("VmHWM")
    return {
        "users": n_users, "items": 100_000, "seconds": seconds, "users_a_second": n_users / seconds,
        "cpu_seconds": cpu,
        "mib_before": before, "mib_peak": peak, "mib_added": peak - before,
        "file_mib": size / 2**20,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="Parquet: user_id, item_id, timestamp")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--to-file", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.to_file:
        print(json.dumps(to_file(given.to_file)))
        return
    result: dict[str, Any] = {
        "command": command(),
        "new_user": new_users(given.data, 8 * given.rounds),
        "top_10": [catalogue(n_items, given.rounds) for n_items in CATALOGUES],
        "to_file": [],
        "machine": machine(),
    }
    for n_users in USERS:
        program = [sys.executable, __file__, "--data", "", "--to-file", str(n_users)]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        result["to_file"].append(json.loads(done.stdout))
    write(result, given.out)


if __name__ == "__main__":
    main()

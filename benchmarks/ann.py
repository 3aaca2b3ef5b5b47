"""The approximate index beside exact search: recall, latency, build time and memory.

    comet-rec train amazon-cds.parquet --all --time-limit 110s --out runs/cds
    python benchmarks/ann.py --run runs/cds --out results/bench/ann.json
    python benchmarks/ann.py --synthetic 1000000 --out results/bench/ann.json

Both searches give lists of ten without seen items, for at most 1,000 users. They are timed in turns
(A B A B), all users in one call and users one by one; medians, of one thread. One graph is over
inner products. The other is over distances of vectors that are made equally long (Bachrach et al.
2014). The width of a search (efSearch) is the one that `export --to faiss` would choose.

Synthetic items: 2,000 clusters with sizes that fall as 1/rank; directions whose variance falls as
1/rank, within and between clusters; lengths that vary by a fifth. A user is the sum of three items
of up to three clusters, plus noise, and has seen 50 of the items of these clusters.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import faiss
import numpy as np
import torch

from comet_rec.artefact.run import load_run
from comet_rec.export.index import AIM, USERS, sample
from comet_rec.retrieval.approximate import ApproximateIndex, widened
from comet_rec.retrieval.exact import top_k
from machine import command, machine, write

K, WIDTH, CLUSTERS, SEEN = 10, 64, 2000, 50
GRAPHS = {"inner products": False, "equal lengths": True}
ALONE = 100
"""Users that are timed one by one."""

Pairs = tuple[np.ndarray, np.ndarray]


def of_run(folder: Path) -> tuple[np.ndarray, np.ndarray, Pairs]:
    """User vectors [Q, W], item vectors [I, W] and seen items of a run."""
    run = load_run(folder)
    users = sample(run)
    return (
        run.user_vectors.numpy()[users],
        run.item_vectors.numpy(),
        run.known.interacted_items(users),
    )


def synthetic(n: int) -> tuple[np.ndarray, np.ndarray, Pairs]:
    """As `of_run`, for n items as the text of this file describes them."""
    rng = np.random.default_rng(0)
    scale = 1 / np.sqrt(np.arange(1, WIDTH + 1))  # standard deviation of each direction
    centres = (rng.normal(size=(CLUSTERS, WIDTH)) * scale).astype(np.float32)
    sizes = 1 / np.arange(1, CLUSTERS + 1)
    cluster = np.sort(rng.choice(CLUSTERS, n, p=sizes / sizes.sum()))
    items = np.empty((n, WIDTH), dtype=np.float32)
    for first in range(0, n, 1 << 16):
        part = slice(first, first + (1 << 16))
        noise = rng.normal(size=(len(cluster[part]), WIDTH)) * scale
        items[part] = centres[cluster[part]] + noise
    items *= rng.normal(1, 0.2, size=(n, 1)).clip(0.4).astype(np.float32)

    liked = rng.integers(n, size=(USERS, 3))
    users = items[liked].sum(axis=1) + rng.normal(size=(USERS, WIDTH)) * scale
    starts = np.searchsorted(cluster, np.arange(CLUSTERS + 1))
    seen = []
    for row in cluster[liked]:
        chosen = rng.choice(row, SEEN)
        seen.append(np.unique(rng.integers(starts[chosen], starts[chosen + 1])))
    rows = np.repeat(np.arange(USERS), [len(each) for each in seen])
    return users.astype(np.float32), items, (rows, np.concatenate(seen))


def exactly(users: np.ndarray, items: torch.Tensor, seen: Pairs, longest: float) -> np.ndarray:
    """Scores of the exact lists, [Q, K]."""
    parts = top_k(torch.from_numpy(users), items, K, masked=seen, longest=longest)
    return np.concatenate([part[2] for part in parts])


def medians(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, in turns; a first round warms up."""
    timed: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            if round_ > 0:
                timed[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in timed.items()}


def measured(users: np.ndarray, items: np.ndarray, seen: Pairs, rounds: int) -> dict[str, Any]:
    """Figures of one set of vectors."""
    tensor = torch.from_numpy(items)
    longest = float(torch.linalg.vector_norm(tensor, dim=1).amax())
    starts = np.searchsorted(seen[0], np.arange(len(users) + 1))

    def alone(search: Callable[[np.ndarray, Pairs], Any]) -> None:
        for user in range(min(ALONE, len(users))):
            mine = seen[1][starts[user] : starts[user + 1]]
            search(users[user : user + 1], (np.zeros(len(mine), dtype=np.int64), mine))

    graphs = {}
    for name, equal in GRAPHS.items():
        began = time.perf_counter()
        index = ApproximateIndex.build(items, equal_lengths=equal)
        built = time.perf_counter() - began
        print(f"{name}: built in {built:.0f} s", file=sys.stderr, flush=True)
        reached = widened(index, users, K, seen, AIM)
        seconds = medians(
            {
                "exact": lambda: exactly(users, tensor, seen, longest),
                "index": lambda index=index: index.search(users, K, masked=seen),
                "exact alone": lambda: alone(lambda u, s: exactly(u, tensor, s, longest)),
                "index alone": lambda index=index: alone(lambda u, s: index.search(u, K, masked=s)),
            },
            rounds,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            faiss.write_index(index.graph, str(path))
            size = path.stat().st_size
        graphs[name] = {
            "efSearch": index.width,
            "recall@10": reached,
            "build seconds": built,
            "MiB": size / 2**20,
            "ms a user": {
                "exact": seconds["exact"] / len(users) * 1e3,
                "index": seconds["index"] / len(users) * 1e3,
                "exact, one by one": seconds["exact alone"] / min(ALONE, len(users)) * 1e3,
                "index, one by one": seconds["index alone"] / min(ALONE, len(users)) * 1e3,
            },
        }
    return {
        "command": command(),
        "items": len(items),
        "width": items.shape[1],
        "users": len(users),
        "seen a user": len(seen[0]) / len(users),
        "MiB of vectors": items.nbytes / 2**20,
        "MiB at peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "graphs": graphs,
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of a run with vectors")
    parser.add_argument("--synthetic", type=int, help="number of items")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.run is not None:
        name, data = given.run.name, of_run(given.run)
    else:
        name, data = f"synthetic {given.synthetic}", synthetic(given.synthetic)
    # One file for all sets of vectors: the other ones keep their figures.
    sets = {}
    if given.out is not None and given.out.exists():
        sets = json.loads(given.out.read_text())["approximate"]
    sets[name] = measured(*data, given.rounds)
    write({"approximate": sets}, given.out)


if __name__ == "__main__":
    main()

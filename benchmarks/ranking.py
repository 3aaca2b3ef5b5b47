"""Full ranking and top-k beside what they cannot do without, all in one run.

    python benchmarks/ranking.py --data ml-1m.parquet --out results/bench/ranking.json

In turns (A B A B): the full ranking of every test user (vectors, scores, ranks of all figures, seen
items out) against the bare tower passes and matrix product; the same pairs scored through the model
(both towers for each pair), on a sample; the ten best of a million items against one product.
Medians and their ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

import comet_rec as cr
from comet_rec.data.histories import input_histories
from comet_rec.estimators.presets import preset
from comet_rec.evaluation.ranking import full_ranks
from comet_rec.evaluation.scoring import VectorScores, all_vectors
from comet_rec.models import base
from comet_rec.retrieval.exact import top_k
from machine import command, machine, write

PAIRS = 2048
"""Pairs scored through the model; their cost a pair does not depend on the number."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="Parquet: user_id, item_id, timestamp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--catalogue", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    split = cr.leave_one_out(cr.read(given.data))
    log = split.known
    config = preset("paper", "comet", log).model
    model = base.build("comet", config, log.n_users, log.n_items, 0)
    of_users, of_items = input_histories(log, model.histories)
    assert isinstance(of_users, torch.Tensor)
    assert of_items is not None
    pairs = torch.randint(log.n_users, (PAIRS,)), torch.randint(log.n_items, (PAIRS,))
    histories = of_users, of_items

    def vectors() -> tuple[torch.Tensor, torch.Tensor]:
        return all_vectors(model, of_users, of_items, log.n_users, log.n_items)

    def bare() -> None:
        users, items = vectors()
        _ = users @ items.T

    @torch.no_grad()
    def pair_by_pair() -> None:
        users = model.encode_users(pairs[0], histories[0][pairs[0]])
        items = model.encode_items(pairs[1], histories[1][pairs[1]])
        _ = (users * items) @ model.weight

    queries = torch.randn(given.queries, 128)
    items = torch.randn(given.catalogue, 128)
    part = items[:100_000].T.contiguous()
    scores = torch.empty(given.queries, 100_000)
    square = torch.randn(2048, 2048)
    ways: dict[str, Callable[[], Any]] = {
        "full ranking": lambda: full_ranks(VectorScores(*vectors()), split.test, log),
        "bare": bare,
        "pairs": pair_by_pair,
        "top 10": lambda: list(top_k(queries, items, 10)),
        "product": lambda: torch.mm(queries, part, out=scores),
        "sgemm": lambda: square @ square,
    }
    timed: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(given.rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if round_ > 0:  # the first warms up
                timed[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(values) for name, values in timed.items()}
    sgemm = 2 * 2048**3 / seconds["sgemm"] / 1e9
    flops = 2 * given.queries * given.catalogue * 128
    all_pairs = len(split.test) * log.n_items * seconds["pairs"] / PAIRS
    result = {
        "command": command(),
        "users": len(split.test),
        "items": log.n_items,
        "full_ranking_over_bare": seconds["full ranking"] / seconds["bare"],
        "pairs_over_full_ranking": all_pairs / seconds["full ranking"],
        "top_10_gflops": flops / seconds["top 10"] / 1e9,
        "sgemm_gflops": sgemm,
        "product_gflops": 2 * given.queries * 100_000 * 128 / seconds["product"] / 1e9,
        "top_10_share_of_sgemm": flops / seconds["top 10"] / 1e9 / sgemm,
        "seconds": {name: sorted(values) for name, values in timed.items()},
        "machine": machine(),
    }
    write(result, given.out)


if __name__ == "__main__":
    main()

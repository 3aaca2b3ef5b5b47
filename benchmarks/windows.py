"""Time of sliding windows against the same maps one by one, forward and backward, on one thread.

    python benchmarks/windows.py --out results/bench/windows.json

Each case has pieces of T consecutive steps with histories of N rows, and a next layer of width 256.
The ways are the maps one by one, transforms along time, and banded products, which take filters of
width 1 and K alone. bfloat16 stands for the precision "medium". The ways take turns; figures are
medians of the processor time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from comet_rec.data.histories import Ragged
from comet_rec.data.prefixes import Windows
from comet_rec.models.kernels.banded_windows import banded_features
from comet_rec.models.kernels.cross_features import Layout, cross_features
from comet_rec.models.kernels.sliding_windows import window_features
from comet_rec.precision import matmul_precision
from machine import command, machine, write

PAPER, BEST = ((1, 8, 32, 128), 8), ((1, 4096), 4)
"""Widths and number of filters of each width: of the paper, and of the preset `best`."""
CASES = (
    (PAPER, 50, 64, 79), (PAPER, 100, 64, 157), (PAPER, 100, 128, 157), (PAPER, 200, 64, 313),
    (PAPER, 200, 128, 313), (BEST, 50, 128, 8), (BEST, 50, 64, 79), (BEST, 100, 128, 20),
    (BEST, 100, 128, 157), (BEST, 200, 128, 157), (BEST, 100, 256, 157),
)  # fmt: skip
"""Filters, N, K and T."""
ROWS, STEPS, NEXT = 3_706, 2_500, 256


def case(
    filters_: tuple[tuple[int, ...], int], n: int, k: int, steps: int, rounds: int
) -> dict[str, float]:
    """Microseconds per step of each way, and its largest difference from the maps one by one."""
    rng = torch.Generator().manual_seed(0)
    widths, channels = tuple(sorted({min(width, k) for width in filters_[0]})), filters_[1]
    table = torch.randn(ROWS, k, generator=rng) * 0.05
    filters = [torch.randn(channels, n, width, generator=rng) * 0.05 for width in widths]
    biases = [torch.zeros(channels) for _ in widths]
    weight = torch.randn(NEXT, Layout(k, widths, channels).features, generator=rng) * 0.02
    pieces = STEPS // steps
    starts = torch.arange(pieces + 1) * (n + steps - 1)
    rows = torch.randint(ROWS, (int(starts[-1]),), generator=rng)
    windows = Windows(Ragged(rows, starts), n)
    padded = windows.padded()
    inputs = [each.requires_grad_() for each in (table, *filters, *biases, weight)]

    def one_by_one() -> torch.Tensor:
        return cross_features(table, padded, filters, biases, weight)

    def transforms() -> torch.Tensor:
        return window_features(table, windows, filters, biases, weight)

    def banded() -> torch.Tensor:
        return banded_features(table, windows, filters, biases, weight)

    ways = {"one by one": (one_by_one, "highest"), "transforms": (transforms, "highest")}
    if widths == (1, k):
        ways |= {"banded": (banded, "highest"), "banded, bfloat16": (banded, "medium")}
    times: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for round_ in range(rounds + 1):
        for name, (run, precision) in ways.items():
            begin = time.process_time()
            with matmul_precision(precision):
                results[name] = run()
                torch.autograd.grad(results[name].sum(), inputs)
            if round_ > 0:
                times[name].append(1e6 * (time.process_time() - begin) / len(windows))
    slow = results["one by one"].detach()
    return {
        "N": n, "K": k, "T": steps, "widths": list(widths), "filters of each width": channels,
        "microseconds a step": {name: statistics.median(each) for name, each in times.items()},
        "difference": {
            name: float((each.detach() - slow).abs().max() / slow.abs().max())
            for name, each in results.items() if name != "one by one"
        },
    }  # fmt: skip


def main() -> None:
    """Run all cases, print them, and write them to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case(*shape, arguments.rounds) for shape in CASES]
    result = {"command": command(), "machine": machine(), "cases": cases}
    write(result, arguments.out)


if __name__ == "__main__":
    main()

"""Time of sliding windows against the same maps one by one, forward and backward, on one thread.

    python benchmarks/windows.py --out results/bench/windows.json

Each case has pieces of T consecutive steps with histories of N rows, and a next layer of width 256.
The two ways take turns; figures are medians of the processor time.
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
from comet_rec.models.kernels.cross_features import Layout, cross_features
from comet_rec.models.kernels.sliding_windows import window_features
from machine import command, machine, write

CASES = ((50, 64, 79), (100, 64, 157), (100, 128, 157), (200, 64, 313), (200, 128, 313))
"""N, K and T; the longest transform is the same for each N that fits it."""
ROWS, STEPS, NEXT, WIDTHS, CHANNELS = 3_706, 2_500, 256, (1, 8, 32, 128), 8


def case(n: int, k: int, steps: int, rounds: int) -> dict[str, float]:
    """Microseconds per step of both ways, and the largest difference of their results."""
    rng = torch.Generator().manual_seed(0)
    widths = tuple(sorted({min(width, k) for width in WIDTHS}))
    table = torch.randn(ROWS, k, generator=rng) * 0.05
    filters = [torch.randn(CHANNELS, n, width, generator=rng) * 0.05 for width in widths]
    biases = [torch.zeros(CHANNELS) for _ in widths]
    weight = torch.randn(NEXT, Layout(k, widths, CHANNELS).features, generator=rng) * 0.02
    pieces = STEPS // steps
    starts = torch.arange(pieces + 1) * (n + steps - 1)
    rows = torch.randint(ROWS, (int(starts[-1]),), generator=rng)
    windows = Windows(Ragged(rows, starts), n)
    padded = windows.padded()
    inputs = [each.requires_grad_() for each in (table, *filters, *biases, weight)]
    ways = {
        "one by one": lambda: cross_features(table, padded, filters, biases, weight),
        "windows": lambda: window_features(table, windows, filters, biases, weight),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for round_ in range(rounds + 1):
        for name, run in ways.items():
            begin = time.process_time()
            results[name] = run()
            torch.autograd.grad(results[name].sum(), inputs)
            if round_ > 0:
                times[name].append(1e6 * (time.process_time() - begin) / len(windows))
    slow, fast = (results[name].detach() for name in ways)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "N": n, "K": k, "T": steps, **medians,
        "ratio": medians["one by one"] / medians["windows"],
        "difference": float((slow - fast).abs().max() / slow.abs().max()),
    }  # fmt: skip


def main() -> None:
    """Run all cases, print them, and write them to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case(*shape, arguments.rounds) for shape in CASES]
    result = {"command": command(), "machine": machine(), "microseconds a step": cases}
    write(result, arguments.out)


if __name__ == "__main__":
    main()

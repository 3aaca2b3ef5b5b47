"""Tower passes a second, forward and backward, of the ways to compute cross features.

    python benchmarks/kernel.py --maps 4096

In turns (A B A B): blocks in the frequency domain (what the library does), the same as whole-batch
products under autograd, `conv1d`, and one matrix product for the machine's limit. Medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor

from comet_rec.models.comet import CometConfig, Tower
from comet_rec.models.kernels.cross_features import cross_features, direct_cross_features
from machine import machine
from throughput import flops_of_a_pass


def whole_batch(tower: Tower, table: Tensor, histories: Tensor) -> Tensor:
    """Cross features from products over the whole batch, nothing recomputed in backward."""
    layer, k = tower.convolution, table.shape[1]
    spectrum = nnf.pad(torch.fft.rfft(table).t(), (0, 1))
    maps = spectrum.index_select(1, histories.flatten()).view(-1, *histories.shape)
    filters = torch.cat([torch.fft.rfft(weight, n=k) for weight in layer.weights])
    products = torch.bmm(maps, filters.conj().permute(2, 1, 0))
    signals = torch.fft.irfft(products.permute(1, 2, 0), n=k)
    parts = signals.split(layer.layout.channels, dim=1)
    rows = zip(parts, layer.layout.widths, layer.biases, strict=True)
    return torch.cat(
        [torch.relu(p[..., : k - w + 1] + b[:, None]).flatten(1) for p, w, b in rows], dim=1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--maps", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=3706, help="of the embedding table")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()

    rng = torch.Generator().manual_seed(0)
    config = CometConfig(dropout=0.0)
    tower = Tower(config, rng)
    table = (torch.rand(given.rows, config.embedding_dim, generator=rng) - 0.5).requires_grad_()
    shape = (given.maps, config.history_length)
    histories = torch.randint(0, given.rows + 1, shape, generator=rng, dtype=torch.int32)
    square = torch.randn(2048, 2048)

    def convolved(kernel: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        filters, biases = list(tower.convolution.weights), list(tower.convolution.biases)
        return lambda t, h: kernel(t, h, filters, biases)

    def passes(features: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            tower.mlp(features(table, histories), None).sum().backward()
            tower.zero_grad(set_to_none=True)
            table.grad = None

        return run

    ways: dict[str, Callable[[], object]] = {
        "blocks": passes(convolved(cross_features)),
        "whole batch": passes(lambda t, h: whole_batch(tower, t, h)),
        "conv1d": passes(convolved(direct_cross_features)),
        "sgemm": lambda: square @ square,
    }
    timed: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(given.rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if round_ > 0:  # the first warms up
                timed[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in timed.items()}
    gflops = 2 * 2048**3 / medians.pop("sgemm") / 1e9
    per_pass = flops_of_a_pass(config)
    speeds = {name: given.maps / seconds for name, seconds in medians.items()}
    result = {
        "maps": given.maps,
        "passes_per_second": speeds,
        "share_of_sgemm": {n: s * per_pass / 1e9 / gflops for n, s in speeds.items()},
        "sgemm_gflops": gflops,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

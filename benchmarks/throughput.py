"""Training speed beside the literal port and the machine's limit, all in one run.

    python benchmarks/throughput.py --data ml-1m.parquet --out results/bench/throughput.json

Rounds of A B A B: a few steps of the literal port (256 positives, both towers for each pair), a few
of the library at each batch size, its towers alone (forward and backward), one matrix product. What
is timed of the library's steps is the whole loop: batches drawn in the background thread, forward,
backward, Adam. Medians and their ratios.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

import comet_rec as cr
import literal
from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.estimators.presets import preset
from comet_rec.models import base
from comet_rec.models.comet import CometConfig
from comet_rec.random import torch_seed
from comet_rec.training.fit import batches_of
from comet_rec.training.trainer import Trainer, matmul_precision, prefetched
from machine import command, machine, write


def flops_of_a_pass(config: CometConfig) -> float:
    """Floating-point operations of one tower pass, forward and backward (three times forward).

    Counted: the complex products (8 operations a multiply-add) and the MLP; not the transforms,
    gathers and sums.
    """
    frequencies = config.embedding_dim // 2 + 1
    filters = config.channels * len(config.effective_widths)
    features = config.channels * sum(config.embedding_dim - w + 1 for w in config.effective_widths)
    sizes = [features, *config.hidden, config.embedding_dim]
    mlp = sum(2 * a * b for a, b in itertools.pairwise(sizes))
    return 3.0 * (8 * config.history_length * filters * frequencies + mlp)


@dataclass
class Library:
    """The library's own training loop, a step at a time."""

    trainer: Trainer
    source: Iterator[Any]
    batch: Any = None
    passes: int = 0
    positives: int = 0

    @staticmethod
    def of(log: Interactions, config: Config) -> Library:
        """A fresh model and its batches."""
        model = base.build(
            "comet", config.model, log.n_users, log.n_items, torch_seed(0, "parameters")
        )
        batches = batches_of(log, config, model)
        trainer = Trainer(model, batches, config.train, seed=0, device=torch.device("cpu"))

        def forever() -> Iterator[Any]:
            for epoch in range(1_000_000):
                yield from trainer.parts(epoch)

        return Library(trainer, prefetched(forever()))

    def step(self) -> None:
        """One batch, as `Trainer` takes it."""
        part = next(self.source)
        self.batch = batch = part.batch
        self.trainer._step(part)
        self.trainer.state.batch += 1
        self.passes = len(batch.users) + len(batch.items)
        self.positives = batch.positives

    def towers(self) -> None:
        """Both towers forward and backward on the last batch, and nothing else."""
        model, rng = self.trainer.model, torch.Generator().manual_seed(0)
        batch = self.batch
        with matmul_precision(self.trainer.config.matmul_precision):
            z_users = model.encode_users(batch.users, batch.user_histories, rng)
            z_items = model.encode_items(batch.items, batch.item_histories, rng)
            torch.autograd.backward([z_users, z_items], [z_users.detach(), z_items.detach()])
        model.zero_grad(set_to_none=True)


def seconds(run: Callable[[], Any], times: int) -> list[float]:
    """Wall-clock seconds of each call."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def peak_memory(data: str, settings: dict[str, Any]) -> float:
    """MiB that training steps add to a process that holds log, model and batches' tables."""
    words = [f"{key}={value}" for key, value in settings.items()]
    program = [sys.executable, __file__, "--data", data, "--only-memory", "--set", *words]
    found = subprocess.run(program, capture_output=True, text=True, check=True)
    return float(found.stdout)


def only_memory(log: Interactions, config: Config) -> float:
    """MiB added by three steps."""
    library = Library.of(log, config)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of reading the log is not meant
    before = peak_mib()
    for _ in range(3):
        library.step()
    return peak_mib() - before


def peak_mib() -> float:
    """Largest resident size of this process since the last reset, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="Parquet: user_id, item_id, timestamp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--together", type=int, default=4, help="positives of a user together")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()

    log = cr.leave_one_out(cr.read(given.data)).train
    settings = dict(pair.split("=", 1) for pair in given.set)
    paper = preset("paper", "comet", log).with_settings(settings)
    if given.only_memory:
        print(only_memory(log, paper))
        return
    settings_of = {str(size): {"train.batch_size": size} for size in given.batch_sizes}
    together = f"{given.batch_sizes[0]}, {given.together} a user together"
    settings_of[together] = {
        "train.batch_size": given.batch_sizes[0], "train.positives_per_user": given.together
    }  # fmt: skip
    for name, own in list(settings_of.items()):  # sgemm, what they are held against, is not
        settings_of[f"{name}, bfloat16 products"] = {**own, "train.matmul_precision": "medium"}
    libraries = {
        name: Library.of(log, paper.with_settings(own)) for name, own in settings_of.items()
    }
    port_log = literal.hold_out_last(literal.read_log(given.data))
    ports = {
        form: literal.build(port_log.n_users, port_log.n_items, convolution=form)
        for form in ("conv2d", "conv1d")
    }
    port_batches = literal.make_batches(port_log, 2)
    square = torch.randn(2048, 2048)
    block = torch.randn(1 << 24)

    timed: dict[str, list[float]] = {}
    for round_ in range(given.rounds + 1):
        found = {
            name: literal.time_steps(model, port_batches, optimizer)
            for name, (model, optimizer) in ports.items()
        }
        for name, lib in libraries.items():
            found[name] = seconds(lib.step, 3)
            found[f"towers: {name}"] = seconds(lib.towers, 3)
        found["sgemm"] = seconds(lambda: square @ square, 5)
        found["copy"] = seconds(lambda: block.clone(), 5)
        if round_ > 0:  # the first warms up
            for name, values in found.items():
                timed.setdefault(name, []).extend(values)

    medians = {name: statistics.median(values) for name, values in timed.items()}
    gflops = 2 * 2048**3 / medians["sgemm"] / 1e9
    per_pass = flops_of_a_pass(paper.model)
    port = {form: literal.POSITIVES / medians[form] for form in ports}
    result: dict[str, Any] = {
        "command": command(),
        "literal_positives_per_second": port,
        "sgemm_gflops": gflops,
        "copy_gb_per_second": 2 * block.numel() * 4 / medians["copy"] / 1e9,
        "flops_of_a_pass": per_pass,
        "batches": {},
        "machine": machine(),
    }
    for name, lib in libraries.items():
        speed = lib.positives / medians[name]
        passes = lib.passes / medians[name]
        alone = lib.passes / medians[f"towers: {name}"]
        result["batches"][name] = {
            "positives_per_second": speed,
            "epoch_seconds": len(log) / speed,
            "times_conv2d_port": speed / port["conv2d"],
            "times_conv1d_port": speed / port["conv1d"],
            "passes_per_positive": lib.passes / lib.positives,
            "passes_per_second": passes,
            "share_of_sgemm": passes * per_pass / 1e9 / gflops,
            "towers_passes_per_second": alone,
            "towers_share_of_sgemm": alone * per_pass / 1e9 / gflops,
            "step_seconds": sorted(timed[name]),
            "peak_step_mib": peak_memory(given.data, {**settings, **settings_of[name]}),
        }
    write(result, given.out)


if __name__ == "__main__":
    main()

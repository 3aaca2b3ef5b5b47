"""Seconds of a training step of SASRec with packed sequences, and with sequences padded to N.

    python benchmarks/sequences.py

The logs are synthetic: items are uniform, and users' counts are log-normal with the mean of a known
log. Both forms train on the same rows. The padded form fills every sequence up to N items, as most
implementations do, and leaves the pads out of the loss.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from comet_rec.config import TrainConfig
from comet_rec.data.batches import Batch
from comet_rec.data.histories import Ragged
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions, row_starts
from comet_rec.data.prefixes import Prefixes
from comet_rec.data.sequences import SequenceBatches
from comet_rec.models import base
from comet_rec.models.sasrec import SASRecConfig
from comet_rec.training.losses import objective

LOGS = {
    "like ML-1M": (2_000, 3_706, 165, 200, 8_192),
    "like Amazon Beauty": (20_000, 12_101, 9, 50, 2_048),
}
"""Users, items, mean rows of a user, N, and positives of a batch."""
STEPS = 6


def synthetic(n_users: int, n_items: int, mean: float) -> Interactions:
    """Log with log-normal numbers of uniform items."""
    rng = np.random.default_rng(0)
    counts = rng.lognormal(np.log(mean) - 0.5, 1.0, n_users).astype(int).clip(3, n_items // 4)
    items = [rng.choice(n_items, count, replace=False) for count in counts]
    users = np.repeat(np.arange(n_users), counts)
    return Interactions(
        users=users.astype(np.int32),
        items=np.concatenate(items).astype(np.int32),
        times=np.arange(len(users)),
        time_scope="global",
        user_ids=Ids("int", np.arange(n_users)),
        item_ids=Ids("int", np.arange(n_items)),
    )


def padded(batch: Batch, length: int) -> Batch:
    """The batch with every sequence filled up to `length` items; the histories stay as they are.

    Fillers stand at the end, where no history of a positive reads them.
    """
    histories = batch.user_histories
    assert isinstance(histories, Prefixes)
    sequences = histories.sequences
    counts = sequences.counts.numpy()
    starts = row_starts(np.full(len(counts), length))
    values = np.zeros(len(counts) * length, dtype=np.int64)
    shift = np.repeat(starts[:-1] - sequences.starts[:-1].numpy(), counts)
    values[np.arange(len(shift)) + shift] = sequences.values.numpy()
    last = histories.last.numpy()
    moved = np.where(last < 0, last, last + np.append(shift, 0)[last])
    filled = Prefixes(Ragged.of_arrays(values, starts), torch.from_numpy(moved))
    return replace(batch, user_histories=filled)


def seconds(model: torch.nn.Module, batch: Batch, config: TrainConfig) -> float:
    """Seconds of a forward and a backward pass, with dropout."""
    rng = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    loss, _ = objective(model, batch, config, rng)
    loss.backward()
    return time.perf_counter() - began


def main() -> None:
    """Print a line for each log and loss; the two forms take turns."""
    for name, (n_users, n_items, mean, length, size) in LOGS.items():
        log = synthetic(n_users, n_items, mean)
        settings = SASRecConfig(history_length=length, heads=2)
        model = base.build("sasrec", settings, n_users, n_items, 0)
        for loss in ("bce", "softmax"):
            config = TrainConfig(loss=loss, negatives=1)
            source = SequenceBatches(
                log, batch_size=size, negatives=1, histories=model.histories, seed=0,
                softmax_items=0 if loss == "softmax" else None,
            )  # fmt: skip
            times: list[tuple[float, float]] = []
            for _, batch in zip(range(STEPS + 1), source.epoch(0), strict=False):
                forms = batch, padded(batch, length)
                times.append(tuple(seconds(model, form, config) for form in forms))  # type: ignore[arg-type]
            packed, filled = np.median(times[1:], axis=0)
            ratio = np.median([b / a for a, b in times[1:]])
            print(
                f"{name}, N = {length}, {loss}: packed {packed:.3f} s, padded {filled:.3f} s a step"
                f" of about {size:,} positives: {ratio:.1f} times as fast"
            )


if __name__ == "__main__":
    main()

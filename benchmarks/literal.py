"""COMET written straight from the paper: the yardstick of every speed-up in this project.

One file, torch and numpy only (DuckDB to read a log). For each (user, item) pair both towers are
run in full, `torch.nn.Conv2d(1, 8, (N, H))` does the convolutions, and a batch is 256 positives
with four negatives each, 1,280 pairs. Nothing is slowed down on purpose: batches are index arrays
made before the clock starts, lookups and layers are torch's own. Since a filter covers all rows,
`Conv1d` with N input channels computes the same from the same numbers; `--convolution conv1d`
times that port, and a fair claim of speed names the figures of both.

Frozen: a ratio "times faster than a literal port" has a meaning only while this file stays as it
is. It shares no code with `comet_rec`.

    python benchmarks/literal.py --data ml-1m.parquet --steps 6 --json

A benchmark that compares A with B imports `read_log`, `hold_out_last`, `make_batches`, `build` and
`time_steps` and calls them in turns (A B A B), so that both meet the same machine.

Letters in shapes: P pairs, N history rows, K embedding size, H filter width.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Indices = npt.NDArray[np.int64]
POSITIVES = 256
NEGATIVES = 4
HISTORY = 50


# --- the model ---------------------------------------------------------------------------------


class Tower(nn.Module):
    """Embedding map → convolutions → MLP → interaction vector (Eqs. 4–7)."""

    def __init__(
        self,
        embedding_dim: int,
        history_length: int,
        widths: Sequence[int],
        channels: int,
        hidden: Sequence[int],
        dropout: float,
        convolution: Literal["conv2d", "conv1d"],
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1, channels, (history_length, width))
            if convolution == "conv2d"
            else nn.Conv1d(history_length, channels, width)
            for width in widths
        )
        self.image_axis = convolution == "conv2d"
        sizes = [sum(channels * (embedding_dim - width + 1) for width in widths), *hidden]
        layers: list[nn.Module] = []
        for size_in, size_out in itertools.pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), nn.ReLU(), nn.Dropout(dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(sizes[-1], embedding_dim))

    def forward(self, maps: Tensor) -> Tensor:
        """Interaction vectors [P, K] of embedding maps [P, N, K]."""
        if self.image_axis:
            maps = maps.unsqueeze(1)  # [P, 1, N, K]
        cross = [torch.relu(convolution(maps)).flatten(1) for convolution in self.convolutions]
        vectors: Tensor = self.mlp(torch.cat(cross, dim=1))
        return vectors


class LiteralCOMET(nn.Module):
    """COMET with both towers run for every pair (Eqs. 2–8).

    The last row of each table stands for padding and stays zero.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        embedding_dim: int = 128,
        history_length: int = HISTORY,
        widths: Sequence[int] = (1, 8, 32, 128),
        channels: int = 8,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.3,
        convolution: Literal["conv2d", "conv1d"] = "conv2d",
    ) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users + 1, embedding_dim, padding_idx=n_users)
        self.items = nn.Embedding(n_items + 1, embedding_dim, padding_idx=n_items)
        shape = (embedding_dim, history_length, widths, channels, hidden, dropout, convolution)
        self.user_tower = Tower(*shape)
        self.item_tower = Tower(*shape)
        self.h = nn.Parameter(torch.empty(embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for weight matrices and h, uniform for embeddings and (torch's way) filters."""
        bound = (6 / (self.h.numel() + 1)) ** 0.5
        nn.init.uniform_(self.h, -bound, bound)
        for table in (self.users, self.items):
            nn.init.uniform_(table.weight, -0.05, 0.05)
            with torch.no_grad():
                table.weight[table.padding_idx] = 0
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self, users: Tensor, items: Tensor, user_histories: Tensor, item_histories: Tensor
    ) -> Tensor:
        """Logits [P] of pairs; `user_histories` [P, N] are items, `item_histories` [P, N] users."""
        z_user = self.users(users) + self.user_tower(self.items(user_histories))
        z_item = self.items(items) + self.item_tower(self.users(item_histories))
        logits: Tensor = (z_user * z_item) @ self.h
        return logits


# --- the data ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """Distinct pairs as indices, sorted by user and time (`users`, `items` int64 [R])."""

    users: Indices
    items: Indices
    n_users: int
    n_items: int

    @staticmethod
    def of(users: npt.ArrayLike, items: npt.ArrayLike, times: npt.ArrayLike) -> Log:
        """A log from three columns; equal times keep the order of the rows."""
        user_ids, user_index = np.unique(np.asarray(users), return_inverse=True)
        item_ids, item_index = np.unique(np.asarray(items), return_inverse=True)
        order = np.lexsort((np.asarray(times), user_index))
        codes = user_index[order].astype(np.int64) * len(item_ids) + item_index[order]
        first = np.sort(np.unique(codes, return_index=True)[1])
        kept = codes[first]
        return Log(kept // len(item_ids), kept % len(item_ids), len(user_ids), len(item_ids))


def read_log(path: str | Path) -> Log:
    """The log of a Parquet file with the columns user_id, item_id and timestamp."""
    import duckdb

    columns = duckdb.execute(
        "SELECT user_id, item_id, timestamp FROM read_parquet(?, file_row_number = true)"
        " ORDER BY file_row_number",
        [str(path)],
    ).fetchnumpy()
    return Log.of(columns["user_id"], columns["item_id"], columns["timestamp"])


def hold_out_last(log: Log) -> Log:
    """The training part of leave-one-out: all rows but each user's last."""
    keep = np.append(log.users[1:] == log.users[:-1], False)
    return Log(log.users[keep], log.items[keep], log.n_users, log.n_items)


def history_table(
    rows: Indices, entries: Indices, n_rows: int, pad: int, length: int, rng: np.random.Generator
) -> Indices:
    """Up to `length` entries a row, drawn at random, padded in front with `pad`: [n_rows, N]."""
    order = np.lexsort((rng.random(len(rows)), rows))
    rows, entries = rows[order], entries[order]
    counts = np.bincount(rows, minlength=n_rows)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((n_rows, length), pad, dtype=np.int64)
    shown = place < length
    table[rows[shown], length - 1 - place[shown]] = entries[shown]
    return table


def draw_negatives(log: Log, users: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Items [len(users), count] that the users have no training row with."""
    taken = np.sort(log.users * log.n_items + log.items)
    users = np.repeat(users, count)
    items = rng.integers(log.n_items, size=len(users))
    again = np.arange(len(users))
    while len(again):
        codes = users[again] * log.n_items + items[again]
        at = np.minimum(np.searchsorted(taken, codes), len(taken) - 1)
        again = again[taken[at] == codes]
        items[again] = rng.integers(log.n_items, size=len(again))
    return items.reshape(-1, count)


@dataclass(frozen=True)
class Batch:
    """Pairs of one step: indices [P], histories [P, N], labels [P]; a fifth are positives."""

    users: Tensor
    items: Tensor
    user_histories: Tensor
    item_histories: Tensor
    labels: Tensor
    positives: int


def make_batches(log: Log, steps: int, seed: int = 0, positives: int = POSITIVES) -> list[Batch]:
    """The first `steps` batches of an epoch over a training log."""
    rng = np.random.default_rng(seed)
    of_users = history_table(log.users, log.items, log.n_users, log.n_items, HISTORY, rng)
    of_items = history_table(log.items, log.users, log.n_items, log.n_users, HISTORY, rng)
    order = rng.permutation(len(log.users))
    batches = []
    for step in range(steps):
        rows = order[step * positives : (step + 1) * positives]
        negatives = draw_negatives(log, log.users[rows], NEGATIVES, rng)
        items = np.column_stack([log.items[rows], negatives]).reshape(-1)
        users = np.repeat(log.users[rows], 1 + NEGATIVES)
        labels = np.tile(np.array([1.0] + [0.0] * NEGATIVES, dtype=np.float32), len(rows))
        batches.append(
            Batch(
                users=torch.from_numpy(users),
                items=torch.from_numpy(items),
                user_histories=torch.from_numpy(of_users[users]),
                item_histories=torch.from_numpy(of_items[items]),
                labels=torch.from_numpy(labels),
                positives=len(rows),
            )
        )
    return batches


# --- the clock ---------------------------------------------------------------------------------


def build(
    n_users: int, n_items: int, *, learning_rate: float = 1e-3, seed: int = 0, **settings: Any
) -> tuple[LiteralCOMET, torch.optim.Optimizer]:
    """A model at the paper's setting and its Adam; `settings` go to `LiteralCOMET`."""
    torch.manual_seed(seed)
    model = LiteralCOMET(n_users, n_items, **settings)
    return model, torch.optim.Adam(model.parameters(), lr=learning_rate)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """One step of Adam on the binary cross-entropy (Eq. 9); returns the loss before it."""
    optimizer.zero_grad()
    logits = model(batch.users, batch.items, batch.user_histories, batch.item_histories)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def time_steps(
    model: nn.Module, batches: Iterable[Batch], optimizer: torch.optim.Optimizer | None = None
) -> list[float]:
    """Seconds of each training step; pass the optimizer to go on where an earlier call stopped."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        train_step(model, optimizer, batch)
        seconds.append(time.perf_counter() - start)
    return seconds


def positives_per_second(seconds: Sequence[float], positives: int = POSITIVES) -> float:
    """Speed at the median step."""
    return positives / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="Parquet: user_id, item_id, timestamp")
    parser.add_argument("--steps", type=int, default=6, help="steps on the clock")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the clock")
    parser.add_argument("--hidden", type=int, nargs="+", default=[256], help="widths of the MLP")
    parser.add_argument("--convolution", choices=["conv2d", "conv1d"], default="conv2d")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()

    log = hold_out_last(read_log(given.data))
    batches = make_batches(log, given.warm_up + given.steps, seed=given.seed)
    settings = {"hidden": given.hidden, "convolution": given.convolution}
    model, optimizer = build(log.n_users, log.n_items, seed=given.seed, **settings)
    seconds = time_steps(model, batches, optimizer)[given.warm_up :]
    speed = positives_per_second(seconds)
    result = {
        "positives_per_second": round(speed, 1),
        "epoch_seconds": round(len(log.users) / speed, 1),
        "training_positives": len(log.users),
        "convolution": given.convolution,
        "step_seconds": [round(value, 4) for value in seconds],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    if given.json:
        print(json.dumps(result))
    else:
        print(f"{speed:,.0f} positives/s, {result['epoch_seconds']:,.0f} s an epoch (extrapolated)")


if __name__ == "__main__":
    main()

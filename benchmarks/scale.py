"""One process on a large log: seconds and memory of reading, training, evaluation and lists.

    python benchmarks/scale.py --log LOG --model comet --steps 100 --out results/scale/one.json

`benchmarks/power_law.py` makes the log. Each line of the result is one run in a process of its own:
the log is read and split, the model is trained for a number of steps, some users are ranked among
all items, and lists of 10 are made for others. The order of an epoch is made before the
first step, so its seconds are also given for each positive of the epoch. Peak memory is what the
system counts as resident; the anonymous part
is not backed by a file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

from machine import command, machine, write

WARM_UP = 10


class Memory(threading.Thread):
    """Watches the anonymous memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.start()

    def run(self) -> None:
        """Keep the largest size."""
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.peak = max(self.peak, 1024 * int(line.split()[1]))
            time.sleep(0.02)


class Chosen:
    """Scores of some users, whose vectors alone were computed."""

    def __init__(self, chosen: np.ndarray, users: Any, items: Any) -> None:
        from comet_rec.evaluation.scoring import VectorScores

        self.chosen, self.scores = chosen, VectorScores(users, items)
        self.n_items = len(items)

    def score_all(self, users: np.ndarray) -> np.ndarray:
        """Scores of all items."""
        return self.scores.score_all(np.searchsorted(self.chosen, users))

    def score_pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Scores of some items of each user."""
        return self.scores.score_pairs(np.searchsorted(self.chosen, users), items)


def vectors(model: Any, rows: Any, chosen: np.ndarray) -> tuple[Any, Any]:
    """Vectors of some users, and of all items."""
    import torch

    from comet_rec.data.histories import input_histories
    from comet_rec.evaluation import scoring

    histories, of_items = input_histories(rows, model.histories)
    parts = []
    for first in range(0, len(chosen), scoring.ENCODED):
        block = chosen[first : first + scoring.ENCODED]
        given = None if histories is None else histories[torch.from_numpy(block)]
        parts.append(scoring.vectors_from_histories(model, given, block))
    with torch.no_grad():
        items = scoring._encoded(model, model.encode_items, of_items, rows.n_items)
    return torch.cat(parts), items


def one(given: argparse.Namespace) -> dict[str, Any]:
    """The phases, in this process."""
    import torch

    import comet_rec as cr
    from comet_rec import memory
    from comet_rec.estimators.registry import ESTIMATORS
    from comet_rec.evaluation.ranking import full_ranks, sampled_ranks
    from comet_rec.models import base
    from comet_rec.retrieval.exact import top_k
    from comet_rec.training.fit import batches_of
    from comet_rec.training.trainer import Trainer

    watch, seconds, anonymous = Memory(), {}, {}
    began = [time.perf_counter()]

    def passed(phase: str) -> None:
        seconds[phase] = time.perf_counter() - began[0]
        anonymous[phase], watch.peak = watch.peak, 0
        began[0] = time.perf_counter()

    with memory.limited(memory.parsed(given.memory) if given.memory else None):
        log = cr.read(str(given.log))
        passed("read")
        split = cr.leave_one_out(log)
        passed("split")
        config = ESTIMATORS[given.model]().config_for(log).with_settings(dict(given.set))
        model = base.build(config.name, config.model, log.n_users, log.n_items, 0)
        batches = batches_of(split.train, config, model)
        trainer = Trainer(model, batches, config.train, seed=0, device=torch.device("cpu"))
        passed("prepare")
        times = []
        source = trainer.parts(0)
        for number in range(given.steps + WARM_UP):
            start = time.perf_counter()
            part = next(source)  # not in advance: the time of a batch counts
            trainer._step(part)
            trainer.state.batch += 1
            if number == 0:
                seconds["order"] = time.perf_counter() - start
            if number >= WARM_UP:
                times.append((time.perf_counter() - start, part.positives))
        passed("steps")
        trainer._put_best()
        source.close()
        del trainer, batches, source, part  # as at the end of a training
        rng = np.random.default_rng(0)
        rows = np.sort(
            rng.choice(len(split.test), min(given.evaluated, len(split.test)), replace=False)
        )
        held = split.test.take(rows)
        scores = Chosen(held.users, *vectors(model, split.known, held.users))
        figures = sampled_ranks(scores, held).means("expected")[0]
        full = full_ranks(scores, held, split.known).means("expected")[0]
        passed("evaluate")
        listed = np.sort(rng.choice(log.n_users, min(given.listed, log.n_users), replace=False))
        users, items = vectors(model, log, listed)
        count = 0
        masked = log.interacted_items(listed)
        for _, found, _ in top_k(users, items, 10, masked=masked):
            count += int((found >= 0).sum())
        passed("lists")
    cost = [step / max(positives, 1) for step, positives in times]
    return {
        "rows": len(log), "users": log.n_users, "items": log.n_items, "model": given.model,
        "settings": dict(given.set), "steps": given.steps,
        "evaluated": given.evaluated, "listed": given.listed, "memory": given.memory or None,
        "seconds": {phase: round(value, 3) for phase, value in seconds.items()},
        "step_ms": round(1e3 * statistics.median(step for step, _ in times), 3),
        "us_per_positive": round(1e6 * statistics.median(cost), 3),
        "order_us_per_positive": round(1e6 * seconds["order"] / len(split.train), 4),
        "HR@10": figures["HR@10"], "full HR@10": full["HR@10"], "listed_items": count,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "anonymous_gb": {phase: round(size / 1e9, 3) for phase, size in anonymous.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, required=True, nargs="+")
    parser.add_argument("--model", default="comet")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--evaluated", type=int, default=10_000, help="users to rank")
    parser.add_argument("--listed", type=int, default=100_000, help="users to list items for")
    parser.add_argument("--memory", default="", help="such as 4GB")
    parser.add_argument("--set", action="append", type=lambda x: tuple(x.split("=", 1)), default=[])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        (given.log,) = given.log
        print(json.dumps(one(given)))
        return
    runs = []
    for _ in range(given.repeat):
        for log in given.log:  # in turns
            words = [sys.executable, __file__, "--child", "--log", str(log)]
            words += ["--model", given.model, "--steps", str(given.steps)]
            words += ["--evaluated", str(given.evaluated), "--listed", str(given.listed)]
            words += ["--memory", given.memory] if given.memory else []
            for key, value in given.set:
                words += ["--set", f"{key}={value}"]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(runs[-1]), flush=True)
    if given.out:
        write({"command": command(), "machine": machine(), "runs": runs}, given.out)


if __name__ == "__main__":
    main()

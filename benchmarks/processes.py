"""One, two and four processes on one machine: equality, tables in parts, curves and communication.

    python benchmarks/processes.py --out results/scale/processes.json

Each process has one thread. `equal`: losses of 100 steps and the parameters after them, with whole
and with divided tables, beside one process. `memory`: a table of 10^7 rows of 64 numbers, trained
by one and by two processes; peak memory of each, and steps a second beside dense Adam in one
process. `curves`: milliseconds of a step and its parts for 1, 2 and 4 processes and tables of
10^5 … 10^7 rows, in turns. `communication` is the time in the calls that exchange rows and add
gradients, which includes waiting for the slowest process; `waiting` is measured by a barrier before
each step. `predicted` is what `benchmarks/simulate.py` computes from constants of one process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from machine import command, machine, write

ROWS, USERS, BATCH, NEGATIVES, WIDTH = 600_000, 20_000, 4096, 4, 64
TABLES = (10**5, 10**6, 10**7)
PROCESSES = (1, 2, 4)
LARGE = 10**7
WARM_UP = 5


def trainer_of(model: str, items: int, optimizer: str, *, double: bool = False) -> Any:
    """A training on a synthetic log, with as many items as the table shall have rows."""
    import torch

    from comet_rec.estimators.registry import ESTIMATORS
    from comet_rec.models import base
    from comet_rec.training.fit import batches_of
    from comet_rec.training.trainer import Trainer
    from growth import power_law

    log = power_law(ROWS, USERS, items)
    settings: dict[str, Any] = {"train.table_optimizer": optimizer, "model.embedding_dim": WIDTH}
    settings |= {"train.negatives": NEGATIVES, "train.batch_size": BATCH, "train.average": 0.0}
    if model == "comet":
        settings |= {"model.dropout": 0.0, "model.id_embedding_dropout": 0.0}
        settings |= {"model.hidden": (128,), "model.history_length": 20, "model.channels": 8}
        settings |= {"train.batch_size": 1024}
    preset = {"preset": "static"} if model == "comet" else {}
    config = ESTIMATORS[model](**preset).config_for(log).with_settings(settings)
    network = base.build(config.name, config.model, log.n_users, log.n_items, 0)
    if double:
        network = network.double()
    batches = batches_of(log, config, network)
    return Trainer(network, batches, config.train, seed=0, device=torch.device("cpu"))


def steps_of(trainer: Any, steps: int, *, ahead: bool, double: bool) -> dict[str, Any]:
    """Losses and times of some steps; `ahead` makes batches in a thread, as a training does."""
    from comet_rec import processes
    from comet_rec.training.trainer import prefetched

    clock = Communication()
    source = trainer.parts(0)
    source = prefetched(source) if ahead else source
    losses, times, waits, makes, rows = [], [], [], [], []
    for number in range(WARM_UP + steps):
        began = time.perf_counter()
        part = next(source)
        if double:  # the loss has the type of the labels
            labels = part.batch.labels.double()
            part = replace(part, batch=replace(part.batch, labels=labels))
        made = time.perf_counter()
        processes.wait()
        waited = time.perf_counter()
        clock.seconds = 0.0
        losses.append(trainer._step(part))
        trainer.state.batch += 1
        ended = time.perf_counter()
        if number >= WARM_UP:
            makes.append(made - began)
            waits.append(waited - made)
            times.append(ended - began)
            clock.taken.append(clock.seconds)
            rows.append(sum(len(r) for r in part.rows.values()) if part.rows else 0)
    clock.end()
    source.close()
    middle = {"step": times, "make": makes, "wait": waits, "communication": clock.taken}
    return {
        "losses": losses,
        "ms": {name: round(1e3 * statistics.median(x), 3) for name, x in middle.items()},
        "rows": statistics.median(rows),
    }


class Communication:
    """Seconds spent in collective calls."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.seconds, self.taken = 0.0, []
        self._dist, self._real = dist, {}
        for name in ("all_to_all_single", "all_reduce"):
            self._real[name] = getattr(dist, name)
            setattr(dist, name, self._timed(self._real[name]))

    def _timed(self, call: Any) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return timed

    def end(self) -> None:
        """Leave the calls as they were."""
        for name, call in self._real.items():
            setattr(self._dist, name, call)


def child(task: str, given: dict[str, Any]) -> dict[str, Any]:
    """One task, in all processes that torchrun has started."""
    import torch
    import torch.distributed as dist

    from comet_rec import processes

    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    torch.set_num_threads(1)
    double = given.get("double", False)
    trainer = trainer_of(given["model"], given["items"], given["optimizer"], double=double)
    found = steps_of(trainer, given["steps"], ahead=task == "curves", double=double)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["peak_gb"] = [round(memory / 1e9, 3)]
    if processes.size() > 1:
        peaks: list[Any] = [None] * processes.size()
        dist.all_gather_object(peaks, found["peak_gb"][0])
        found["peak_gb"] = peaks
    if task == "equal":
        trainer._put_best()
        state = {name: p.detach().numpy() for name, p in trainer.model.named_parameters()}
        np.savez(given["state"] + f"-{processes.rank()}.npz", **state)
    else:
        del found["losses"]
    if processes.size() > 1:
        dist.barrier()
        dist.destroy_process_group()
    return found


def constants(given: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of the parts of a step in one process, one after another."""
    from comet_rec.data.batch_parts import compacted, part_of_users
    from comet_rec.training.tables import Layout
    from comet_rec.training.trainer import Part, terms

    trainer = trainer_of(given["model"], given["items"], given["optimizer"])
    halves = Layout(trainer.owner.rows, 2)
    names = ("draw", "cut", "compact", "rows", "step")
    times: dict[str, list[float]] = {name: [] for name in names}
    tables, rows_ms, rows = trainer.tables, [0.0], []

    def timed(call: Any) -> Any:
        def timed_call(*arguments: Any) -> None:
            began = time.perf_counter()
            call(*arguments)
            rows_ms[0] += time.perf_counter() - began

        return timed_call

    tables.load_rows, tables.update = timed(tables.load_rows), timed(tables.update)
    source = trainer.batches.epoch(0)
    for number in range(WARM_UP + given["steps"]):
        clock = [time.perf_counter()]
        batch = next(source)
        clock.append(time.perf_counter())
        half = part_of_users(batch, halves.owners(batch.users).numpy() == 0)
        clock.append(time.perf_counter())
        small, of_batch = compacted(batch, trainer.owner.rows)
        clock.append(time.perf_counter())
        rows_ms[0] = 0.0
        whole = Part(small, batch.positives, terms(batch, trainer.config), of_batch)
        trainer._step(whole)
        trainer.state.batch += 1
        clock.append(time.perf_counter())
        del half
        if number >= WARM_UP:
            seconds = np.diff(clock)
            for name, value in zip(("draw", "cut", "compact", "step"), seconds, strict=True):
                times[name].append(value)
            times["rows"].append(rows_ms[0])
            rows.append(sum(map(len, of_batch.values())))
    found = {name: round(1e3 * statistics.median(x), 3) for name, x in times.items()}
    return {"ms": found, "rows": statistics.median(rows)}


def exchange(given: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of an all-to-all of small and of large messages, and of a small sum."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    count, found = dist.get_world_size(), {}
    for megabytes in (0.001, 1.0, 4.0, 16.0):
        sent = torch.zeros(int(megabytes * 2.5e5 / count) * count)
        got, times = torch.empty_like(sent), []
        for _ in range(given["steps"]):
            dist.barrier()
            began = time.perf_counter()
            dist.all_to_all_single(got, sent)
            times.append(time.perf_counter() - began)
        found[str(megabytes)] = round(1e3 * statistics.median(times), 4)
    dist.destroy_process_group()
    return {"ms": found}


def run(count: int, task: str, **given: Any) -> dict[str, Any]:
    """A task in a number of processes."""
    words = [sys.executable, __file__, "--child", task, "--given", json.dumps(given)]
    if count > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        words = [*torchrun, "--standalone", *words[1:]]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{task} in {count} processes: {done.stderr[-3000:]}")
    line = next(x for x in done.stdout.splitlines() if x.startswith('{"'))
    return {"processes": count, **{k: v for k, v in given.items() if k != "state"}} | json.loads(
        line
    )


def equal(steps: int) -> list[dict[str, Any]]:
    """Largest differences of losses and parameters from one process with whole tables.

    In float64 they show that the computation is the same. In float32 Adam turns rounding errors of
    gradients near zero into steps, as two threads in one process do too.
    """
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for model, optimizer, double in itertools.product(
            ("comet", "mf"), ("adam", "sparse_adam"), (True, False)
        ):
            losses, states = {}, {}
            for count in PROCESSES:
                place = f"{folder}/{model}-{optimizer}-{double}-{count}"
                found = run(
                    count, "equal", model=model, items=20_000, optimizer=optimizer,
                    double=double, steps=steps, state=place,
                )  # fmt: skip
                losses[count], states[count] = (
                    np.array(found["losses"]),
                    dict(np.load(place + "-0.npz")),
                )
            for count in PROCESSES[1:]:
                apart = [np.abs(states[count][k] - states[1][k]).max() for k in states[1]]
                lines.append(
                    {
                        "model": model, "processes": count, "steps": len(losses[1]),
                        "tables": "whole" if optimizer == "adam" else "divided",
                        "dtype": "float64" if double else "float32",
                        "loss": float(np.abs(losses[count] / losses[1] - 1).max()),
                        "parameters": float(max(apart)),
                    }
                )  # fmt: skip
                print(json.dumps(lines[-1]), flush=True)
    return lines


def memory(steps: int) -> dict[str, Any]:
    """A large table in one and in two processes, and dense Adam."""
    common = {"model": "mf", "items": LARGE}
    sparse, dense = ({**common, "optimizer": name} for name in ("sparse_adam", "adam"))
    lines = {
        "sparse, 1": run(1, "memory", steps=steps, **sparse),
        "sparse, 2": run(2, "memory", steps=steps, **sparse),
        "dense, 1": run(1, "memory", steps=max(3, steps // 10), **dense),
    }
    for name, line in lines.items():
        print(name, json.dumps(line), flush=True)
    whole = lines["sparse, 1"]["peak_gb"][0]
    return {
        "runs": lines,
        "share_of_memory": [round(p / whole, 3) for p in lines["sparse, 2"]["peak_gb"]],
        "times_dense": round(lines["dense, 1"]["ms"]["step"] / lines["sparse, 1"]["ms"]["step"], 1),
    }


def curves(steps: int, repeat: int) -> list[dict[str, Any]]:
    """Steps of 1, 2 and 4 processes, in turns."""
    lines = []
    for _ in range(repeat):
        for items in TABLES:
            for count in PROCESSES:
                common = {"model": "mf", "items": items, "optimizer": "sparse_adam"}
                lines.append(run(count, "curves", steps=steps, **common))
                print(json.dumps(lines[-1]), flush=True)
    return lines


def tower(steps: int, repeat: int) -> list[dict[str, Any]]:
    """Steps of 1, 2 and 4 processes whose work is COMET's towers, in turns."""
    common = {"model": "comet", "items": 20_000, "optimizer": "adam"}
    lines = []
    for _ in range(repeat):
        for count in PROCESSES:
            lines.append(run(count, "curves", steps=steps, **common))
            print(json.dumps(lines[-1]), flush=True)
    return lines


def by_size(steps: int, repeat: int) -> list[dict[str, Any]]:
    """Steps of one process with tables of several sizes, by rows and with dense Adam, in turns."""
    lines = []
    for _ in range(repeat):
        for items in (10_000, 30_000, 100_000, 300_000, 1_000_000):
            for optimizer in ("adam", "sparse_adam"):
                common = {"model": "mf", "items": items, "optimizer": optimizer}
                lines.append(run(1, "curves", steps=steps, **common))
                lines[-1]["numbers"] = (USERS + items) * (WIDTH + 1)
                print(json.dumps(lines[-1]), flush=True)
    return lines


def beside(steps: int) -> list[dict[str, Any]]:
    """How much longer a step takes in each of several processes that know nothing of each other.

    They share cores, the units of a core, and the memory.
    """
    given = {"model": "mf", "items": 1_000_000, "optimizer": "sparse_adam", "steps": steps}
    words = [sys.executable, __file__, "--child", "constants", "--given", json.dumps(given)]
    seconds = {}
    for count in PROCESSES:
        copies = [
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(count)
        ]
        found = [json.loads(copy.communicate()[0])["ms"] for copy in copies]
        sums = [ms["draw"] + ms["cut"] + ms["compact"] + ms["step"] for ms in found]
        seconds[count] = statistics.mean(sums)
    return [
        {"processes": count, "times": round(seconds[count] / seconds[1], 3)}
        for count in PROCESSES[1:]
    ]


def measured(steps: int) -> dict[str, Any]:
    """Constants for `benchmarks/simulate.py`."""
    common = {"model": "mf", "optimizer": "sparse_adam", "steps": steps}
    lines = {
        "beside": beside(steps),
        "one process": [run(1, "constants", items=items, **common) for items in TABLES],
        "exchange": [run(count, "exchange", steps=steps) for count in PROCESSES[1:]],
    }
    print(json.dumps(lines), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", choices=["equal", "memory", "curves", "constants", "tables", "tower"]
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--given", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        tasks = {"constants": constants, "exchange": exchange}
        task = tasks.get(given.child, partial(child, given.child))
        found = task(given.given)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(found), flush=True)
        os._exit(0)  # threads of gloo may abort a process that ends in the usual way
    result: dict[str, Any] = {"command": command(), "machine": machine()}
    if given.only in (None, "equal"):
        result["equal"] = equal(given.steps)
    if given.only in (None, "memory"):
        result["memory"] = memory(given.steps)
    if given.only in (None, "tower"):
        result["tower"] = tower(given.steps, given.repeat)
    if given.only in (None, "tables"):
        result["tables"] = by_size(given.steps, given.repeat)
    if given.only in (None, "constants"):
        result["constants"] = measured(given.steps)
    if given.only in (None, "curves"):
        result["curves"] = curves(given.steps, given.repeat)
    write(result, given.out)


if __name__ == "__main__":
    main()

"""Time, memory and network of a training step for any number of machines, from measured constants.

    python benchmarks/simulate.py --out results/scale/model.json --plot docs/_static/processes.svg

The constants are those of `results/scale/constants.json` (`processes.py`): milliseconds of
the parts of a step in one process, and of messages between processes. The first table compares the
model with the measured steps of 1, 2 and 4 processes. The second one computes 8 and 64 machines for
10⁸ users, 10⁷ items and 10¹⁰ rows.

With B positives in the batches of all P processes, R rows that one process needs, and W numbers a
row, a step of a process takes

    draw(B) + cut(B) + compact(B / P) + compute(B / P) + rows(R)            processor
    2 · 4 · W · R · (P − 1) / P + 8 · R bytes, and 7 messages                network

On one machine the first line is multiplied by what processes lose that run side by side, which
`results/scale/beside.json` has. Processes also wait for each other where they meet, the longer the
more they have to do in between. For each P the ratio of both is measured with the table of 10⁶
rows, and taken to be the same with other tables.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machine import command, machine, write

ROOT = Path(__file__).resolve().parents[1]
SCALE = ROOT / "results" / "scale"
MESSAGES = 7
"""Messages of a step: for users and for items the numbers, indices and values of rows and the
gradients, without those that one process sends to itself alone; and the sum of all gradients. A
training has one more, small one, which agrees on stops and checkpoints."""
ROW_BYTES = 16 + 16 + 4 + 8
"""Bytes of a row of the log in every process: log, training rows, negatives, order of an epoch."""
BATCH, PAIRS, WIDTH = 4096, 5, 64
"""Positives of a measured batch, pairs of a positive, and numbers of a row without its bias."""


@dataclass(frozen=True)
class Constants:
    """Milliseconds of the parts of a step of one process with `BATCH` positives.

    Parameters
    ----------
    draw, cut, compact, compute, rows : float
    row_count : float
        Rows that the step reads and changes.
    """

    draw: float
    cut: float
    compact: float
    compute: float
    rows: float
    row_count: float

    @staticmethod
    def of(line: dict[str, Any]) -> Constants:
        """The constants in a line of `benchmarks/processes.py`."""
        ms = line["ms"]
        parts = ms["draw"], ms["cut"], ms["compact"], ms["step"] - ms["rows"], ms["rows"]
        return Constants(*parts, line["rows"])


@dataclass(frozen=True)
class Network:
    """Time of messages: some milliseconds for each, and some for each megabyte of a process."""

    message_ms: float
    megabyte_ms: float

    @staticmethod
    def of(line: dict[str, Any]) -> Network:
        """A line through the measured sizes of messages."""
        sizes = np.array([float(size) for size in line["ms"]])
        ms = np.array(list(line["ms"].values()))
        slope = float((ms[-1] - ms[1]) / (sizes[-1] - sizes[1]))
        return Network(float(ms[0]), slope)

    def ms(self, megabytes: float) -> float:
        """Milliseconds of a step's messages of so many megabytes."""
        return MESSAGES * self.message_ms + megabytes * self.megabyte_ms


def distinct(draws: float, rows: float) -> float:
    """Expected number of distinct rows among uniform draws."""
    return rows * -math.expm1(-draws / rows)


def _megabytes(rows: float, processes: int) -> float:
    """Megabytes that a process sends in a step: indices, values and gradients of rows."""
    return rows * (processes - 1) / processes * (2 * 4 * (WIDTH + 1) + 8) / 1e6


def step(
    constants: Constants, network: Network | None, processes: int, beside: float, rows: float,
    *, scale: float = 1.0,
) -> dict[str, float]:  # fmt: skip
    """Milliseconds of a step, and of its parts.

    Parameters
    ----------
    constants, network
    processes : int
        P, on all machines.
    beside : float
        How much longer the work of a process takes beside the others of its machine.
    rows : float
        Distinct rows that a process needs.
    scale : float
        Positives of the batches of all processes, over `BATCH`.
    """
    c, p = constants, processes
    making = scale * (c.draw + (c.cut if p > 1 else 0.0) + c.compact / p)
    computing = scale * c.compute / p + c.rows * rows / c.row_count
    if p == 1:  # batches are made in advance, by a thread on a core of its own
        return {"processor": max(making, computing), "network": 0.0, "making": making}
    megabytes = _megabytes(rows, p)
    exchange = network.ms(megabytes) if network else 0.0
    work = (making + computing) * beside
    return {"processor": work, "network": exchange, "making": making * beside, "mb": megabytes}


CALIBRATED = 1_000_000
"""Rows of the table with which waiting is measured."""


def compared(
    constants: dict[str, Any], beside: dict[int, float], curves: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measured and predicted steps."""
    network = {line["processes"]: Network.of(line) for line in constants["exchange"]}
    middle = next(x for x in constants["one process"] if x["items"] == CALIBRATED)
    waiting = {1: 0.0}  # over the work of the processor
    for processes, messages in network.items():
        runs = [x for x in curves if (x["processes"], x["items"]) == (processes, CALIBRATED)]
        met = statistics.median(x["ms"]["communication"] + x["ms"]["wait"] for x in runs)
        rows = statistics.median(x["rows"] for x in runs)
        found = step(Constants.of(middle), messages, processes, beside[processes], rows)
        waiting[processes] = max(0.0, met - found["network"]) / found["processor"]
    lines = []
    for one in constants["one process"]:
        for processes in sorted({line["processes"] for line in curves}):
            runs = [x for x in curves if (x["processes"], x["items"]) == (processes, one["items"])]
            measured = statistics.median(x["ms"]["step"] for x in runs)
            within = statistics.median(
                x["ms"]["communication"] + (x["ms"]["wait"] if processes > 1 else 0) for x in runs
            )
            rows = statistics.median(x["rows"] for x in runs)
            found = step(
                Constants.of(one), network.get(processes), processes, beside[processes], rows
            )
            meeting = found["network"] + waiting[processes] * found["processor"]
            predicted = found["processor"] + meeting
            lines.append(
                {
                    "items": one["items"], "processes": processes, "rows": rows,
                    "measured_ms": round(measured, 1), "predicted_ms": round(predicted, 1),
                    "off": round(predicted / measured - 1, 3),
                    "positives_per_second": round(BATCH / measured * 1e3),
                    "communication": round(within / measured, 3),
                    "predicted_communication": round(meeting / predicted, 3),
                }
            )  # fmt: skip
    return lines


MACHINE = {"cores": 16, "memory_gb": 256, "gbit": 25, "message_ms": 0.1}
"""Machines of the second table; not measured."""
USERS, ITEMS, ROWS = 10**8, 10**7, 10**10


def on_paper(constants: dict[str, Any], machines: int) -> dict[str, Any]:
    """A step, an epoch and the memory on a number of machines, a process for each core."""
    one = Constants.of(constants["one process"][-1])
    p = machines * MACHINE["cores"]
    scale = p  # as many positives a process as were measured
    megabyte_ms = MACHINE["cores"] * 8 / MACHINE["gbit"]  # the processes share the card
    rows = BATCH + distinct(BATCH * PAIRS, ITEMS)
    network = Network(MACHINE["message_ms"], megabyte_ms)
    found = step(one, network, p, 1.0, rows, scale=scale)
    tables = 4 * (WIDTH + 1) * (USERS + ITEMS) * 3
    total = found["processor"] + found["network"]
    log = ROW_BYTES * ROWS * MACHINE["cores"]  # in every process
    divided = one.compact + one.compute + one.rows
    return {
        # Processes with which making a batch takes as long as computing with it.
        "even": math.ceil(divided / (one.draw + one.cut)),
        "machines": machines, "processes": p, "batch": BATCH * p,
        "log_gb": round(log / 1e9), "tables_gb": round(tables / machines / 1e9, 1),
        "fits": log + tables / machines < MACHINE["memory_gb"] * 1e9,
        "making_s": round(found["making"] / 1e3, 2), "step_s": round(total / 1e3, 2),
        "network_s": round(found["network"] / 1e3, 3),
        "epoch_hours": round(ROWS / (BATCH * p) * total / 3.6e6, 1),
        "without_making_hours": round(
            ROWS / (BATCH * p)
            * (one.draw + one.compact + one.compute + one.rows + found["network"]) / 3.6e6, 1
        ),
    }  # fmt: skip


def plotted(lines: list[dict[str, Any]], path: Path) -> None:
    """Curves of positives a second and of communication, measured and predicted."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "processes"  # the same names inside the file each time
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, items in enumerate(sorted({x["items"] for x in lines})):
        rows = [x for x in lines if x["items"] == items]
        counts = [x["processes"] for x in rows]
        colour = f"C{number}"
        predicted = [BATCH / x["predicted_ms"] * 1e3 for x in rows]
        left.plot(
            counts, [x["positives_per_second"] for x in rows], "o-", color=colour,
            label=f"{items:,} rows",
        )  # fmt: skip
        left.plot(counts, predicted, "--", color=colour)
        right.plot(counts, [100 * x["communication"] for x in rows], "o-", color=colour)
        right.plot(counts, [100 * x["predicted_communication"] for x in rows], "--", color=colour)
    left.set_ylabel("positives a second")
    right.set_ylabel("% of a step in communication")
    for axes in (left, right):
        axes.set_xlabel("processes on two cores")
        axes.set_xticks(counts)
        axes.set_ylim(bottom=0)
    left.plot([], [], "--", color="grey", label="predicted")
    left.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    constants = json.loads((SCALE / "constants.json").read_text())["constants"]
    curves = json.loads((SCALE / "curves.json").read_text())["curves"]
    side_by_side = json.loads((SCALE / "beside.json").read_text())["constants"]["beside"]
    beside = {1: 1.0} | {line["processes"]: line["times"] for line in side_by_side}
    result = {
        "command": command(), "machine": machine(), "assumed": MACHINE,
        "compared": compared(constants, beside, curves),
        "on_paper": [on_paper(constants, machines) for machines in (8, 64)],
    }  # fmt: skip
    if given.plot:
        plotted(result["compared"], given.plot)
    write(result, given.out)


if __name__ == "__main__":
    main()

"""Trainings in several processes, of which one is killed, and that torchrun starts again.

    python -m tests.reliability.restarts --out results/reliability/restarts.json

Two processes train, and write a checkpoint every half second. One of them is killed at a random
moment; `torchrun` ends the other one and starts both again. The finished run must hold the bits of
a training that nobody disturbed. Then trainings in two processes are stopped at random moments, and
resumed in one and in four.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from comet_rec.artefact.checkpoint import has_checkpoint
from tests.reliability.kills import content, log_file
from tests.reliability.recorded import Tried, program

WORKER = "tests.reliability.restarts"
SECONDS = 0.5
SETTINGS = [
    "model.embedding_dim=8", "model.history_length=8", "train.epochs=60", "blend.model=none",
    "train.table_optimizer=sparse_adam", "train.loss=bce", "model.dropout=0.0",
    "train.patience=0", "train.matmul_precision=highest",
]  # fmt: skip


def words(log: Path, out: Path, processes: int, *more: str) -> list[str]:
    """Command of a training."""
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "3",
        "--nproc-per-node", str(processes), "-m", WORKER, "--worker",
    ]  # fmt: skip
    alone = [sys.executable, "-m", WORKER, "--worker"]
    return [
        *(torchrun if processes > 1 else alone), "train", str(log), "--out", str(out),
        "--no-yardsticks", "--quiet", *more, *(w for text in SETTINGS for w in ("--set", text)),
    ]  # fmt: skip


def begun(command: list[str], said: Path) -> subprocess.Popen[bytes]:
    """A training that has been started; what it prints goes to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with said.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment)


def workers(parent: int) -> list[int]:
    """Processes that torchrun has started and that have begun to train."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [
        int(child)
        for child in text.split()
        if WORKER in Path(f"/proc/{child}/cmdline").read_bytes().decode()
    ]


def killed(command: list[str], said: Path, after: float, rng: random.Random) -> tuple[int, int]:
    """Kill one worker some time after the training has begun; kills, and exit status."""
    child = begun(command, said)
    while child.poll() is None and not workers(child.pid):
        time.sleep(0.05)
    time.sleep(after)
    kills = 0
    if child.poll() is None:
        alive = workers(child.pid)
        if alive:
            os.kill(rng.choice(alive), signal.SIGKILL)
            kills = 1
    return kills, child.wait(timeout=300)


def stopped(command: list[str], said: Path, after: float) -> int:
    """Stop a training as Ctrl-C and Slurm do, and return its exit status."""
    child = begun(command, said)
    time.sleep(after)
    child.send_signal(signal.SIGTERM)
    return child.wait(timeout=300)


def run_restarts(tries: int, seed: int) -> list[Tried]:
    """Kill, and resume with other numbers of processes."""
    rng = random.Random(seed)
    restarts = Tried(
        "A training of two processes, of which one is killed, ends with the bits of an undisturbed "
        "one."
    )
    others = {
        count: Tried(
            f"A training that is stopped in two processes resumes in {count}, to the same figures "
            "within rounding."
        )
        for count in (1, 4)
    }
    resumed = dict.fromkeys(others, 0)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        log, said, whole = log_file(home), home / "said", home / "whole"
        began = time.perf_counter()
        assert begun(words(log, whole, 2), said).wait() == 0, said.read_text()[-2000:]
        seconds = time.perf_counter() - began
        wanted, kills = content(whole), 0
        for number in range(tries):
            out = home / f"killed-{number}"
            more, status = killed(words(log, out, 2), said, rng.uniform(0, seconds), rng)
            kills += more
            failure = None if status == 0 else f"status {status}: {said.read_text()[:300]}"
            if failure is None:
                found = content(out)
                differing = [
                    k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)
                ]
                failure = f"other bits in {sorted(differing)}" if differing else None
            restarts.add(failure)
        restarts.note = f"{kills} kills"
        for number in range(max(1, tries // 5)):
            for count, tried in others.items():
                out = home / f"stopped-{count}-{number}"
                stopped(words(log, out, 2), said, rng.uniform(0.4, 0.8) * seconds)
                more = ["--resume"] * has_checkpoint(out / "checkpoints")
                resumed[count] += len(more)
                status = begun(words(log, out, count, *more), said).wait(timeout=300)
                text = f"status {status}: {said.read_text()[:300]}"
                tried.add(_apart(whole, out) if status == 0 else text)
                tried.note = f"{resumed[count]} from a checkpoint"
    return [restarts, *others.values()]


def _apart(whole: Path, out: Path) -> str | None:
    """The first difference of two runs beyond rounding; None without one."""
    for name in ("model.safetensors", "vectors.safetensors"):
        a, b = load_file(whole / name), load_file(out / name)
        for key, value in a.items():
            apart = float(np.abs(value.astype(np.float64) - b[key]).max(initial=0))
            if value.dtype == np.float32 and apart > 5e-3:
                return f"{name}, {key}: {apart:.1e} apart"
    figures = [json.loads((run / "metrics.json").read_text())["sampled"] for run in (whole, out)]
    apart = max(abs(figures[0][key] - figures[1][key]) for key in figures[0])
    return f"figures {apart:.3f} apart" if apart > 0.05 else None


def worker(arguments: list[str]) -> None:
    """The command line, with a checkpoint every half second."""
    from comet_rec.cli import app
    from comet_rec.training import checkpoints

    checkpoints.CHECKPOINT_SECONDS = SECONDS
    app.main(arguments)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker(sys.argv[2:])
    program("tests.reliability.restarts", run_restarts, tries=10)

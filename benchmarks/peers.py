"""Seconds from a cold start to a sampled HR@10 of 0.70, for this library and for others.

    make bench-peers ARGS="--data ml-1m.parquet --out results/bench/peers.json"

Everyone gets one split and one set of candidates, this library's: leave-one-out by position in the
user's sequence, 1 positive and 99 negatives. Weights see the training rows alone. Each contestant
is a process of its own. Its clock runs from its start; after every epoch the validation items are
ranked by the code below (that time is counted, and reported apart); at the first epoch whose HR@10
passes the target it writes its artefact, and the clock stops. The test items are ranked after
that. Others read the exported rows (RecBole its own text format, the rest an .npz); comet-rec reads
the log itself and splits it, and that is counted too.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line of comet-rec does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

from contestants import OTHERS, OWN, Held, Score, entered, export

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("comet-rec", "cornac", "implicit", "numpy", "recbole", "scipy", "torch")


class Reached(BaseException):
    """The target is passed; not an Exception, so that no library swallows it."""


class Late(BaseException):
    """The cap is over."""


def figures(score: Score, held: Held, part: str) -> dict[str, float]:
    """HR@10 and NDCG@10 of a part's positives; a tie counts for its expectation."""
    users, positives = held[f"{part}.users"], held[f"{part}.positives"]
    candidates = held[f"{part}.candidates"].astype(np.int64)
    found = score(users, np.column_stack([positives, candidates]))
    if not np.isfinite(found).all():
        raise ValueError("a score is not finite")
    better = (found[:, 1:] > found[:, :1]).sum(axis=1)
    tied = (found[:, 1:] == found[:, :1]).sum(axis=1)
    places = np.arange(10)
    shares = (places >= better[:, None]) & (places <= (better + tied)[:, None])
    shares = shares / (tied + 1)[:, None]
    gains = 1 / np.log2(places + 2)
    return {"HR@10": float(shares.sum(axis=1).mean()), "NDCG@10": float((shares @ gains).mean())}


@dataclass
class Race:
    """One contestant's run: the clock, and what each epoch gave."""

    began: float
    target: float
    cap: float
    epochs: list[dict[str, float]] = field(default_factory=list)
    evaluating: float = 0.0

    def seconds(self) -> float:
        """Since the process began."""
        return time.time() - self.began

    def run(self, name: str, data: str, folder: Path) -> dict[str, Any]:
        """Train until the target is passed, save, and only then measure the test items."""
        held, contestant = entered(name, data, folder.parent)
        prepared = self.seconds()
        reached = False
        signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, self.cap - prepared))
        try:
            contestant.train(lambda: self.after_epoch(contestant.score, held))
        except Reached:
            reached = True
        except Late:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        if reached:
            contestant.save(folder)
        seconds = self.seconds()
        result: dict[str, Any] = {
            "reached": reached,
            "seconds": seconds,
            "preparing_seconds": prepared,
            "evaluating_seconds": self.evaluating,
            "epochs": len(self.epochs),
            "best": max(self.epochs, key=lambda epoch: epoch["HR@10"], default=None),
            "artefact_bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
        }
        if reached:
            result["test"] = figures(contestant.score, held, "test")
        if reached and contestant.served is not None:  # with the histories of the artefact
            result["test_validation_shown"] = figures(contestant.served, held, "test")
        return result

    def after_epoch(self, score: Score, held: Held) -> None:
        """Rank the validation items; raise `Reached` when that is enough."""
        began = time.time()
        found = figures(score, held, "validation")
        self.evaluating += time.time() - began
        self.epochs.append({**found, "epoch": len(self.epochs) + 1, "seconds": self.seconds()})
        print(self.epochs[-1], file=sys.stderr, flush=True)
        if found["HR@10"] >= self.target:
            raise Reached


def _late(*_: Any) -> None:
    raise Late


def versions() -> dict[str, str]:
    """Versions of the packages that are installed here."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def one(name: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run a contestant as a process of its own."""
    python = sys.executable if name in OWN else str(given.python.absolute())
    place = folder / f"run-{len(list(folder.iterdir()))}"
    place.mkdir()
    program = [python, __file__, "--one", name, "--data", given.data, "--folder", str(place)]
    program += ["--target", str(given.target), "--cap", str(given.cap)]
    done = subprocess.run(
        [*program, "--began", str(time.time())], stdout=subprocess.PIPE, cwd=folder, text=True,
        stderr=None if given.verbose else subprocess.PIPE,
    )  # fmt: skip
    package = "comet-rec" if name in OWN else name.split()[0].lower()
    entry = OWN.get(name) or OTHERS[name]
    about = {"name": name, "package": package, "settings": entry[-1]}
    if done.returncode:
        why = (done.stderr or "see above").strip().splitlines()[-1]
        return {**about, "not_run": why}
    return {**about, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="a catalog name or a file")
    parser.add_argument("--target", type=float, default=0.70, help="validation HR@10")
    parser.add_argument("--cap", type=float, default=900, help="seconds for each contestant")
    parser.add_argument("--only", nargs="+", choices=[*OWN, *OTHERS], metavar="NAME")
    parser.add_argument(
        "--python", type=Path, default=ROOT / ".venv-peers/bin/python", help="of the others"
    )
    parser.add_argument("--verbose", action="store_true", help="pass on what contestants print")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--note", default="", help="kept with each, e.g. what else was running")
    parser.add_argument("--add", action="store_true", help="keep the others of an --out before")
    for hidden in ("--one", "--folder", "--began"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        race = Race(float(given.began), given.target, given.cap)
        result = race.run(given.one, given.data, Path(given.folder))
        print("\n" + json.dumps({**result, "versions": versions()}))
        return
    from machine import command, machine, write

    if given.add and given.out is None:
        parser.error("--add: needs --out")
    before = json.loads(given.out.read_text()) if given.add and given.out.is_file() else {}
    if before and (before["target"], before["data"]) != (given.target, Path(given.data).name):
        parser.error(f"--add: {given.out} is of another target or log; give another --out")
    if Path(given.data).is_file():
        given.data = str(Path(given.data).absolute())
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        export(given.data, folder)
        rows = {row["name"]: row for row in before.get("contestants", ())}
        for name in given.only or [*OWN, *OTHERS]:
            about = {"cap": given.cap, "command": command(), "machine": machine()}
            about |= {"note": given.note} if given.note else {}
            rows[name] = {**one(name, given, folder), **about}
    result = {
        "data": Path(given.data).name,
        "target": given.target,
        "contestants": list(rows.values()),
        "machine": machine(),
    }
    write(result, given.out)


if __name__ == "__main__":
    main()

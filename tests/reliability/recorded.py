"""Records of the long tests: what was promised, how often it was tried, and how often it failed.

A long test is a program:

    python -m tests.reliability.kills --out results/reliability/kills.json

`docs/figures.py` makes the table of `docs/reliability.md` from the records.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comet_rec.artefact.provenance import machine, versions


@dataclass
class Tried:
    """Outcome of one promise.

    Parameters
    ----------
    promise : str
        What should hold, in one sentence.
    tries : int
    failures : list of str
        One line for each try in which it did not hold. Mutation testing has a dict for each.
    note : str
        What a reader of the table must know, such as the sizes that were tried.
    """

    promise: str
    tries: int = 0
    failures: list[Any] = field(default_factory=list)
    note: str = ""

    def add(self, failure: str | None) -> None:
        """Count a try, which failed if there is a text."""
        self.tries += 1
        if failure is not None:
            self.failures.append(failure)


def program(name: str, run: Callable[[int, int], list[Tried]], tries: int) -> None:
    """Run a long test from the command line, print its outcomes, and write its record.

    Parameters
    ----------
    name : str
        Module of the test, for the command in the record.
    run : callable
        Takes the number of tries and the seed.
    tries : int
        Number of tries unless --tries says otherwise.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("--tries", type=int, default=tries)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    began = time.perf_counter()
    found = run(given.tries, given.seed)
    for each in found:
        print(
            f"{each.promise} {each.tries} tries, {len(each.failures)} failures, seed {given.seed}"
        )
        for failure in each.failures[:20]:
            print("  ", failure)
    if given.out is not None:
        command = shlex.join(["python", "-m", name, *sys.argv[1:]]).partition(" --out")[0]
        write_record(given.out, command, found, given.seed, round(time.perf_counter() - began))
    sys.exit(any(each.failures for each in found))


def write_record(
    path: Path, command: str, found: list[Tried], seed: int = 0, seconds: int | None = None
) -> None:
    """Write the record of a long test."""
    record = {
        "command": command, "seed": seed, "seconds": seconds,
        "versions": versions(), "machine": machine(), "tried": [asdict(x) for x in found],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

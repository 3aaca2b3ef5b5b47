"""Promises that parts of the test suite keep: each test is a try.

python -m tests.reliability.suites --out results/reliability/suites.json
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from tests.processes import HOME
from tests.reliability.recorded import Tried, write_record


@dataclass(frozen=True)
class Suite:
    """Some tests, with what they promise together.

    Parameters
    ----------
    promise, note : str
    tests : tuple of str
        Words for pytest; none for all fast tests.
    variable : str
        Environment variable that is set to 1.
    """

    promise: str
    tests: tuple[str, ...] = ()
    variable: str = ""
    note: str = ""


SUITES = (
    Suite(
        "Losses, gradients, ranks and lists equal those of slow forms, in all fast tests.",
        variable="COMET_VERIFY",
    ),
    Suite(
        "Slow forms alone pass the tests of the arithmetic.",
        ("tests/models", "tests/training", "tests/evaluation", "tests/retrieval"), "COMET_SLOW",
    ),
    Suite(
        "Every model passes the battery of checks, but for declared failures.",
        ("tests/testing", "-m", "slow or not slow"), note="94 checks for each of 13 models",
    ),
    Suite(
        "A save that is killed before any of its calls leaves the old run or the new one.",
        ("tests/artefact/test_replacing.py",), note="each test kills a save before every call",
    ),
    Suite(
        "A download that stalls, breaks off or is changed leaves nothing, and a line says so.",
        ("tests/datasets/test_cache.py",),
    ),
    Suite("A file that somebody reported gives the lines of its case.", ("tests/cases",)),
)  # fmt: skip


def tried(suite: Suite) -> Tried:
    """Run the tests of a suite; skipped ones do not count."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if suite.variable:
            environment[suite.variable] = "1"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal",
             f"--junitxml={report}", *suite.tests],
            cwd=HOME, env=environment,
        )  # fmt: skip
        cases = list(ElementTree.parse(report).iter("testcase"))
    outcome = Tried(suite.promise, note=suite.note)
    for case in cases:
        if case.find("skipped") is None:
            fault = case.find("failure") if case.find("error") is None else case.find("error")
            name = f"{case.get('classname')}.{case.get('name')}"
            outcome.add(None if fault is None else f"{name}: {fault.get('message')}"[:300])
    return outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.suites")
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    found: list[Tried] = []
    for suite in SUITES:
        found.append(tried(suite))
        print(suite.promise, found[-1].tries, "tries, failures:", *found[-1].failures, flush=True)
        if out is not None:  # also of those before, if a later one is stopped
            write_record(out, "python -m tests.reliability.suites", found)
    sys.exit(any(each.failures for each in found))

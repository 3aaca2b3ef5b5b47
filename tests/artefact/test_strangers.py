"""Runs from strangers are refused in one line or used; nothing crashes, hangs or eats memory."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.artefact.strangers import MOST_MB, MOST_SECONDS, make_bases

HOME = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("bases")
    make_bases(home)
    return home


def start(kind: str, seed: int, first: int, count: int, bases: Path, limit: float) -> dict:
    """Cases in a process of their own; a crash or a hang names its case."""
    command = [sys.executable, "-m", "tests.artefact.strangers", kind]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HOME), str(HOME / "src")]),
    }  # fmt: skip
    try:
        done = subprocess.run(
            [*command, *map(str, (seed, first, count)), str(bases)],
            capture_output=True, text=True, env=environment, cwd=HOME, timeout=limit,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{kind}, seed {seed}: hangs at case {(error.stderr or b'')[-20:]!r}")
    said = done.stderr[-2000:]
    assert done.returncode == 0, f"{kind}, seed {seed}: ended with {done.returncode}: {said}"
    return json.loads(done.stdout)


def check(found: list[dict]) -> dict[str, int]:
    assert [fault for one in found for fault in one["faults"]] == []
    assert max(one["peak_mb"] for one in found) <= MOST_MB
    assert max(one["slowest_seconds"] for one in found) <= MOST_SECONDS
    ends: dict[str, int] = {}
    for one in found:
        for end, count in one["ends"].items():
            ends[end] = ends.get(end, 0) + count
    return ends


@pytest.mark.parametrize("kind", ["hostile", "damaged"])
def test_a_hundred_runs_and_checkpoints_of_strangers_are_refused_or_used(kind, bases):
    ends = check([start(kind, 0, 0, 100, bases, limit=300)])
    assert sum(ends.values()) == 100
    assert ends["run refused"] > 0
    assert ends["checkpoint refused"] > 0


@pytest.mark.slow
def test_ten_thousand_runs_and_checkpoints_of_each_kind_are_refused_or_used(bases, capsys):
    seed = int(os.environ.get("STRANGERS_SEED") or secrets.randbelow(2**31))
    with capsys.disabled():
        print(f"\nSTRANGERS_SEED={seed}")  # noqa: T201
    tasks = [(kind, first) for kind in ("hostile", "damaged") for first in range(0, 10_000, 1_000)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda t: start(t[0], seed, t[1], 1_000, bases, 1_200), tasks))
    for kind, some in (("hostile", found[:10]), ("damaged", found[10:])):
        ends = check(some)
        assert sum(ends.values()) == 10_000
        peak, slowest = (max(one[key] for one in some) for key in ("peak_mb", "slowest_seconds"))
        with capsys.disabled():
            print(f"{kind}: {ends}, peak {peak} MB, slowest {slowest:.2f} s")  # noqa: T201

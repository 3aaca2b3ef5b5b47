"""Random bytes and damaged files of every kind that comet-rec reads, for as long as one likes.

    make fuzz N=100000                                    # or:
    python -m tests.reliability.fuzz --tries 10000 --out results/reliability/fuzz.json

Kinds: logs, candidates, config files, bodies of requests, runs, checkpoints. A file is used, or
refused in one line; a body gets a status below 500. Runs hold protocol files, too.

An input that fails is kept in the folder `fuzz-found`. A copy in `tests/reliability/corpus`, named
KIND-ANYTHING, is tried again in every run of the tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import comet_rec as cr
from comet_rec.config import Config
from comet_rec.data.split import leave_one_out
from comet_rec.errors import CometError
from comet_rec.estimators.presets import preset
from comet_rec.models import base
from tests.artefact.test_strangers import make_bases, run_cases
from tests.conftest import make_log
from tests.reading.test_readers_fuzz import mutate
from tests.reliability.recorded import Tried, program
from tests.serving.conftest import Client, small_log

FOUND = Path("fuzz-found")
CORPUS = Path(__file__).parent / "corpus"

LOGS = (
    b"user_id,item_id,timestamp\n1,a,10\n1,b,20\n2,a,30\n2,c,40\n3,b,5\n3,a,6\n",
    b"user;item;rating\r\nada;tea;5\r\nada;jam;1\r\nbob;tea;4\r\n",
    b'{"user_id": 1, "item_id": "a", "timestamp": 3}\n{"user_id": 2, "item_id": "b"}\n',
    b"1::10::5::978300760\n1::20::3::978302109\n2::10::4::978301968\n",
)
CANDIDATES = (
    b"user_id,item_id\n0,7\n0,8\n1,9\n1,2\n2,3\n",
    b"(0,7)\t8\t9\n(1,5)\t2\t3\n",
)
BODIES = (
    b'{"users": ["1", "2"], "k": 3}', b'{"history": ["1", "2"], "k": 2, "unknown": "skip"}',
    b'{"items": ["3"], "k": 2}', b'{"user": "1", "item": "5"}',
    b'{"users": ["1"], "k": 3, "block": ["4"], "groups": {"1": "x"}, "per_group": 1}',
    b'{"events": [{"user": "1", "item": "2", "time": 5}]}',
)  # fmt: skip


NAMES = {
    "log": "log", "candidates": "file of candidates", "config": "config file",
    "body": "body of a request",
}  # fmt: skip


class Kinds:
    """One function for each kind: takes bytes, and raises an error if they are not handled well."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = small_log()
        run = home / "run"
        cr.EASE().fit(self.log).save(run)
        self.client = Client({"main": run})
        self.routes = sorted(self.client.app.openapi()["paths"])
        self.train = leave_one_out(self.log, negatives=5).train
        # The config of every model, as its run holds it.
        log = make_log(np.stack([self.log.users, self.log.items], axis=1))
        self.configs = [preset("static", name, log).to_toml().encode() for name in base.names()]
        self.seeds: dict[str, tuple[bytes, ...]] = {
            "log": LOGS, "candidates": CANDIDATES, "config": tuple(self.configs), "body": BODIES,
        }  # fmt: skip

        self.uses: dict[str, Callable[[bytes], None]] = {
            "log": self._use_log, "candidates": self._use_candidates,
            "config": self._use_config, "body": self._use_body,
        }  # fmt: skip

    def use(self, kind: str, data: bytes) -> str | None:
        """What is wrong after using `data`; None for nothing."""
        try:
            self.uses[kind](data)
        except CometError as error:
            return f"several lines: {error}" if "\n" in str(error) else None
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _use_log(self, data: bytes) -> None:
        path = self.home / "log"
        path.write_bytes(data)
        log = cr.read(path, threads=1)
        assert len(log) > 0
        assert int(log.users.max()) < log.n_users
        assert int(log.items.max()) < log.n_items

    def _use_candidates(self, data: bytes) -> None:
        path = self.home / "candidates"
        path.write_bytes(data)
        test = {"user_id": [0, 1, 2], "item_id": [29, 28, 27]}
        split = cr.given_test(self.train, test, path)
        assert (split.test.positives < self.train.n_items + 3).all()

    def _use_config(self, data: bytes) -> None:
        text = data.decode("utf-8", errors="replace")
        name = text.partition('name = "')[2].partition('"')[0]
        name = name if name in base.names() else "comet"
        config = Config.from_toml(text, base.config_class(name))
        again = Config.from_toml(config.to_toml(), base.config_class(name))
        assert again == config, "the text of a config restores another one"

    def _use_body(self, data: bytes) -> None:
        for route in self.routes:
            answer = self.client.post(route, data)
            assert answer.status < 500, f"{route}: status {answer.status}"
            if answer.headers.get("content-type", "").startswith("application/json"):
                json.loads(answer.body)


def damaged(seeds: tuple[bytes, ...], rng: random.Random) -> bytes:
    """A good input with damage, two good ones joined, or random bytes."""
    way = rng.random()
    if way < 0.05:
        return rng.randbytes(rng.randrange(200))
    data = rng.choice(seeds)
    if way < 0.15:
        other = rng.choice(seeds)
        data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
    if way < 0.3:  # numbers are where limits are
        place = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
        if place:
            at = rng.choice(place)
            huge = (b"-1", b"0", b"1e308", b"99999999999999999999", b"NaN", b"1.5", b"null", b"")
            data = data[:at] + rng.choice(huge) + data[at + 1 :]
    return bytes(mutate(data, rng.randrange(2**32))) if data else data


def run_fuzz(tries: int, seed: int) -> list[Tried]:
    """Try `tries` inputs of each kind, and the corpus."""
    rng = random.Random(seed)
    found = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        kinds = Kinds(home)
        for kind, seeds in kinds.seeds.items():
            outcome = Tried(f"A damaged {NAMES[kind]} is used, or refused in one line.")
            kept = sorted(CORPUS.glob(f"{kind}-*"))
            outcome.note = f"and {len(kept)} of the corpus" if kept else ""
            for data in (path.read_bytes() for path in kept):
                outcome.add(kinds.use(kind, data))
            for number in range(tries):
                data = damaged(seeds, rng)
                fault = kinds.use(kind, data)
                outcome.add(fault and f"{kind} {number}: {fault}")
                if fault:
                    FOUND.mkdir(exist_ok=True)
                    digest = hashlib.sha256(data).hexdigest()[:12]
                    (FOUND / f"{kind}-{digest}").write_bytes(data)
            found.append(outcome)
        make_bases(home / "bases")
        for kind in ("hostile", "damaged"):
            outcome = Tried(f"A {kind} run or checkpoint is used, or refused in one line.")
            # Every fourth case is a checkpoint.
            with contextlib.redirect_stderr(io.StringIO()):  # the number of each case
                result = run_cases(kind, seed, 0, tries, home / "bases")
            outcome.tries, outcome.failures = tries, result["faults"]
            outcome.note = f"at most {result['slowest_seconds']:.1f} s, {result['peak_mb']} MB"
            found.append(outcome)
    return found


if __name__ == "__main__":
    program("tests.reliability.fuzz", run_fuzz, tries=10_000)

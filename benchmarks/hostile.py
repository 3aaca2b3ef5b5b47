"""Attacks on the service, and the longest time of /livez during each.

A thread asks /livez all the time, each time over a new connection, while another thread attacks.
The service runs over a log of 4,000 items; the searches also over 1,000,000 titles.

    python benchmarks/hostile.py --out results/bench/hostile.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import comet_rec as cr
from comet_rec.artefact.provenance import versions
from machine import command, machine, write

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.serving.hostile import Watch, raw, request, statuses

LISTS = b"/v1/recommend"
KEYS = "wrong keys"
SWAPS = "100 signals to swap"


def make_run(folder: Path, items: int, users: int) -> Path:
    """A run over random interactions, with titles."""
    rng = np.random.default_rng(0)
    taken = np.concatenate([np.arange(items), rng.integers(0, items, 20 * users)])
    log = {
        "user_id": rng.integers(0, users, len(taken)), "item_id": taken,
        "time": np.arange(len(taken)),
    }  # fmt: skip
    # FISM also explains; MF trains in seconds on a million items.
    kind = cr.FISM if items < 10_000 else cr.MF
    model = kind(embedding_dim=16, full_epochs=1).fit(cr.read(log))
    words = "night day love war star king lost city blue red house river dark light"
    chosen = rng.choice(words.split(), (items, 4))
    model.describe("hostile", {str(i): " ".join(row) for i, row in enumerate(chosen)}, {})
    model.save(folder)
    return folder


def post(path: bytes, body: object, headers: bytes = b"", *, close: bool = True) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(b"POST", path, content, headers, close=close)


@contextmanager
def service(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The service in a process; at the end, its log must have no error of ours."""
    with tempfile.TemporaryFile() as log:
        words = [sys.executable, "-m", "comet_rec", "serve", str(run), "--port", "0", *options]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log)
        try:
            yield process, int(process.stdout.readline().split(b":")[-1].split()[0])
        finally:
            process.terminate()
            process.wait(60)
        log.seek(0)
        lines = [json.loads(line) for line in log.read().splitlines()]
        assert not any("type" in line for line in lines)


def repeated(content: bytes, times: int) -> Callable[[int], list[int]]:
    """Attack: the same bytes several times, one after the other."""
    return lambda port: [status for _ in range(times) for status in statuses(raw(port, content))]


def sockets(contents: list[bytes], count: int, seconds: float) -> Callable[[int], list[int]]:
    """Attack: many connections at once, whose answers nobody reads for a while."""

    def attack(port: int) -> list[int]:
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        for number, connection in enumerate(connections):
            connection.sendall(contents[number % len(contents)])
        time.sleep(seconds)
        for connection in connections:
            connection.close()
        return []

    return attack


def attacks() -> dict[str, Callable[[int], list[int]]]:
    """All attacks by name; each takes the port and gives the statuses of its answers."""
    row = list(range(800))
    large = post(LISTS, {"user_ids": [1] * 900, "k": 20, "titles": True}, close=False)
    half_body = b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    chunked = (
        b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    odd = b"GET /v1/items?search=" + b"%EF%B7%BA" * 200
    search = request(b"GET", b"/v1/items?limit=100&search=" + b"a+b+c+d+e+f+g+h+i+j+k+l+" * 8)
    events = [{"user_id": 10**9 + n, "item_id": n} for n in range(1_000)]
    return {
        "oversized bodies": repeated(post(LISTS, b" " * (4 << 20)), 20),
        "oversized bodies in chunks": repeated(chunked + chunk * 64 + b"0\r\n\r\n", 20),
        "headers of 2 MiB": repeated(request(b"GET", b"/", None, b"x:" + b"a" * (2 << 20)), 20),
        "lists in a list": repeated(post(LISTS, b'{"user_ids":[' + b"[]," * 340_000 + b"1]}"), 10),
        "24,000 wrong users": repeated(post(LISTS, {"user_ids": [[1]] * 24_000}), 10),
        "340,000 users": repeated(post(LISTS, {"user_ids": [1] * 340_000}), 10),
        "deep JSON": repeated(post(LISTS, b"[" * 49_000), 10),
        "10,000 items": repeated(
            post(LISTS, {"user_ids": [1] * 1_000, "k": 20, "allow": [7] * 10_000}), 10
        ),
        "largest lists": repeated(post(LISTS, {"user_ids": [1] * 20, "k": 1_000}), 10),
        "diverse lists": repeated(
            post(LISTS, {"user_ids": [1] * 20, "k": 1_000, "diversify": 0.5}), 10
        ),
        "similar items": repeated(post(b"/v1/similar", {"item_ids": row[:100], "k": 200}), 10),
        "long histories": repeated(
            post(LISTS + b"/history", {"histories": [row] * 200, "k": 100}), 5
        ),
        "long explanations": repeated(
            post(b"/v1/explain", {"history": row, "item_ids": row[:20]}), 3
        ),
        "floods of events": repeated(post(b"/v1/events", {"events": events}), 20),
        "long searches": repeated(search, 5),
        "odd letters": repeated(request(b"GET", odd.removeprefix(b"GET ")), 5),
        "pipelined requests": repeated(b"GET / HTTP/1.1\r\n\r\n" * 100_000, 10),
        KEYS: repeated(
            request(b"GET", b"/v1/runs", None, b"authorization: Bearer " + b"x" * 9_000 + b"\r\n"),
            200,
        ),
        "unknown users": repeated(post(LISTS, {"user_ids": ["9" * 19] * 1_000}), 20),
        "200 slow sockets": sockets([b"POST /v1/rec", half_body, large, b""], 200, 10),
        "1,000 connections": sockets([b""], 1_000, 2),
        "1,000 requests at once": sockets([post(LISTS, {"user_ids": [1]}, close=False)], 1_000, 2),
    }


def attacked(name: str, port: int) -> Counter[int]:
    """Statuses of the answers to one attack; called in a process of its own."""
    return Counter(attacks()[name](port))


def measured(run: Path, names: list[str], *options: str) -> list[dict[str, object]]:
    """Attack a service over a run."""
    rows = []
    with (
        service(run, "--quiet", *options) as (process, port),
        Watch(port) as watch,
        # The attacks must not slow down the thread that measures.
        ProcessPoolExecutor(1, get_context("spawn"), raise_limit) as attacker,
    ):
        attacker.submit(os.getpid).result()
        time.sleep(1)
        for name in names:
            watch.attack = name
            answers: Counter[int] = Counter()
            if name == SWAPS:
                for _ in range(100):
                    os.kill(process.pid, signal.SIGHUP)
                    time.sleep(0.02)
                time.sleep(2)
            else:
                answers = attacker.submit(attacked, name, port).result()
            time.sleep(0.1)  # the last question may have begun during the attack
            watch.attack = "quiet"
            row = {
                "attack": name, "statuses": dict(answers),
                "livez_ms": round(1000 * watch.longest.get(name, 0.0), 1),
                "load": round(os.getloadavg()[0], 2),
            }  # fmt: skip
            print(row, flush=True)
            rows.append(row)
            time.sleep(1)
        assert watch.failures == [], watch.failures
        quiet = round(1000 * watch.longest["quiet"], 1)
        rows.append({"attack": "quiet", "livez_ms": quiet, "load": round(os.getloadavg()[0], 2)})
    return rows


def raise_limit() -> None:
    """Allow this process and its children more than 1,000 connections."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8_192, most), most))


def main() -> None:
    """Run all attacks, print the figures, and write them to --out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--large", type=int, default=1_000_000, help="items of the large log")
    arguments = parser.parse_args()
    raise_limit()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, keys = make_run(folder / "small", 4_000, 2_000), folder / "keys"
        keys.write_text("the-only-key-of-this-service\n")
        open_ = [attack for attack in (*attacks(), SWAPS) if attack != KEYS]
        result = {
            "command": command(), "machine": machine(), "versions": versions(),
            "items_4000": measured(small, open_) + measured(small, [KEYS], "--keys", str(keys)),
        }  # fmt: skip
        if arguments.large:
            names = [
                "long searches", "odd letters", "unknown users", "largest lists", "diverse lists",
                "similar items", "10,000 items", SWAPS,
            ]  # fmt: skip
            run = make_run(folder / "large", arguments.large, 2_000)
            result[f"items_{arguments.large}"] = measured(run, names)
    write(result, arguments.out)


if __name__ == "__main__":
    main()

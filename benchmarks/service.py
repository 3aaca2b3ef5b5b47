"""Load on the service: requests per second, latencies, swaps under load, memory.

64 clients in a process of their own ask for lists of random users over kept connections. Every
answer is compared with the lists of `recommend` for the run whose version the answer names. The
same server with a constant in place of the ranking shows what HTTP alone costs.

    python benchmarks/service.py --out results/bench/service.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np

import comet_rec as cr
from comet_rec.artefact.run import load_with_version
from machine import command, machine, write

USERS, ITEMS, PER_USER = 2_000, 4_000, 50
K = 10


def make_runs(folder: Path) -> dict[str, dict]:
    """Train two small runs; for each version, the expected lists of all users."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), PER_USER)
    # A few items are popular, as in real logs.
    items = np.minimum(rng.pareto(1.0, len(users)) * 40, ITEMS - 1).astype(int)
    items[:ITEMS] = np.arange(ITEMS)  # every item occurs
    log = cr.read({"user_id": users, "item_id": items, "time": np.arange(len(users))})
    expected = {}
    for seed in (0, 1):
        model = cr.COMET(seed=seed, full_epochs=1).fit(log)
        model.save(folder / f"run-{seed}")
        lists = {}
        for row in cr.load_model(folder / f"run-{seed}").recommend(k=K).rows():
            lists.setdefault(row["user_id"], []).append([row["item_id"], float(row["score"])])
        expected[load_with_version(folder / f"run-{seed}")[1]] = lists
    return expected


async def client(port, end, rng, seen, expected):
    """Ask for one user after the other until `end`, over one connection where that lasts."""
    reader = writer = None
    while time.monotonic() < end:
        user = rng.randrange(USERS)
        body = b'{"user_ids":[%d],"k":%d}' % (user, K)
        begin = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            seen["failed"] += 1
            writer = None
            continue
        seen["seconds"].append(time.perf_counter() - begin)
        status = int(head[9:12])
        seen["statuses"][status] = seen["statuses"].get(status, 0) + 1
        if status == 200 and expected is not None:
            check(json.loads(answer), user, seen, expected)
    if writer is not None:
        writer.close()


def check(answer, user, seen, expected):
    """Count an answer that differs from the lists of the version that it names."""
    version = answer["version"]
    seen["versions"][version] = seen["versions"].get(version, 0) + 1
    (entry,) = answer["lists"]
    got = [[item["item_id"], item["score"]] for item in entry["items"]]
    if entry["user_id"] != user or got != expected[version][user]:
        seen["wrong"] += 1


def load(port, seconds, clients, expected, pipe):
    """Process of the clients; sends what they saw."""
    seen = {"seconds": [], "statuses": {}, "versions": {}, "wrong": 0, "failed": 0}

    async def main():
        end = time.monotonic() + seconds
        rngs = [random.Random(number) for number in range(clients)]
        await asyncio.gather(*(client(port, end, rng, seen, expected) for rng in rngs))

    begin = time.monotonic()
    asyncio.run(main())
    seen["wall"] = time.monotonic() - begin
    pipe.send(seen)


def memory(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """The service over a folder, in a process of its own; with a constant if asked."""

    def __init__(self, run: Path, *, constant: bool) -> None:
        words = [sys.executable, __file__, "--serve", str(run), *["--constant"] * constant]
        # Lines of the log go to nowhere, but they are written.
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.port = int(self.process.stdout.readline().decode().split(":")[-1])

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def under_load(self, seconds, clients, expected=None, during=lambda: None):
        """What the clients saw."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=load, args=(self.port, seconds, clients, expected, theirs))
        before = processor_seconds(self.process.pid)
        process.start()
        while not ours.poll(0.1):
            during()
        seen = ours.recv()
        process.join()
        times = sorted(seen.pop("seconds"))
        spent = processor_seconds(self.process.pid) - before
        seen["requests"] = len(times)
        seen["cpu_ms_per_request"] = 1000 * spent / len(times)
        seen["requests_per_second"] = len(times) / seen["wall"]
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)):
            seen[name] = 1000 * times[int(share * (len(times) - 1))]
        return seen


def serve_process(run: str, constant: bool) -> None:
    """The server's process: the service as `comet-rec serve` starts it."""
    from comet_rec.serving import service
    from comet_rec.serving.keys import Keys
    from comet_rec.serving.served import Counts
    from comet_rec.serving.server import Settings, serve

    if constant:
        served = service.Served.load(Path(run))
        from comet_rec.serving.forms import UsersRequest
        from comet_rec.serving.sessions import Sessions

        ((text, _),) = served.answers([UsersRequest(user_ids=[0], k=K)], Sessions())
        service.Service._answer_lists = lambda _, requests: [(text, Counts(1))] * len(requests)
    settings = Settings(run=Path(run), port=0, keys=Keys([]))
    serve(settings, started=lambda address: print(address, flush=True))


def main() -> None:
    """Run the benchmark, print it, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=2, help="rounds of lists against constant")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--constant", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve_process(arguments.serve, arguments.constant)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = make_runs(folder)
        result = {
            "command": command(), "machine": machine(), "users": USERS, "items": ITEMS, "k": K,
            "clients": arguments.clients, "load": os.getloadavg()[0],
        }  # fmt: skip
        pairs = []
        for _ in range(arguments.rounds):
            pair = {}
            for kind in ("lists", "constant"):
                with ServerProcess(folder / "run-0", constant=kind == "constant") as server:
                    server.under_load(2, arguments.clients)  # warm
                    pair[kind] = server.under_load(arguments.seconds / 4, arguments.clients)
            pairs.append(pair)
        for kind in ("lists", "constant"):
            figures = [pair[kind] for pair in pairs]
            keys = ("requests_per_second", "cpu_ms_per_request", "p50_ms", "p99_ms")
            result[kind] = {key: median(figure[key] for figure in figures) for key in keys}
        ratios = [
            p["lists"]["requests_per_second"] / p["constant"]["requests_per_second"] for p in pairs
        ]
        result["share_of_constant"] = ratios
        result["swaps"] = swaps(folder, expected, arguments.seconds, arguments.clients)
    write(result, arguments.out)


def swaps(folder: Path, expected, seconds: float, clients: int) -> dict:
    """Load while a link changes between two runs every 5 s, and SIGHUP swaps them."""
    link = folder / "current"
    link.symlink_to("run-0")
    with ServerProcess(link, constant=False) as server:
        state = {"next": time.monotonic() + 5, "count": 0, "first": None}

        def swap():
            if time.monotonic() < state["next"]:
                return
            state["next"] += 5
            state["count"] += 1
            fresh = folder / "fresh"
            fresh.symlink_to(f"run-{state['count'] % 2}")
            fresh.replace(link)
            os.kill(server.process.pid, signal.SIGHUP)
            if state["count"] == 3:  # both runs have been loaded, and the first ones freed
                state["first"] = memory(server.process.pid)

        seen = server.under_load(seconds, clients, expected, swap)
        end = memory(server.process.pid)
    seen["swaps"] = state["count"]
    seen["memory_mib"] = [round(state["first"], 1), round(end, 1)]
    seen["memory_growth"] = round(end / state["first"] - 1, 4)
    return seen


if __name__ == "__main__":
    main()

"""The process of the service: signals, drain, swaps of good and bad runs, fork and spawn."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import comet_rec as cr
from comet_rec.artefact.folder import digest, digest_of
from comet_rec.serving import server
from comet_rec.serving.keys import Keys


class Served:
    """`comet-rec serve` in a process of its own."""

    def __init__(self, run: Path, *options: str) -> None:
        words = [sys.executable, "-m", "comet_rec", "serve", str(run), "--port", "0", *options]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        self.port = int(re.search(r":(\d+) ", line)[1])

    def ask(self, path, body=None):
        return asked(self.port, path, body)

    def lines(self) -> list[dict]:
        """The log, once the process has ended."""
        return [json.loads(line) for line in self.process.stderr.read().splitlines()]

    def end(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        return self.process.wait(20)


def asked(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json"}
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.fixture
def served():
    """Start services; they are ended after the test."""
    started: list[Served] = []

    def start(*words) -> Served:
        started.append(Served(*words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()
        each.process.stdout.close()
        each.process.stderr.close()


def items_of(answer):
    status, content = answer
    assert status == 200, content
    return [item["item_id"] for item in content["lists"][0]["items"]]


def test_sigterm_answers_everything_that_has_come(served, runs):
    """150 requests are on the way in connections that the process may not have accepted yet."""
    service = served(runs["comet"], "--quiet")
    body = json.dumps({"user_ids": [3]}).encode()
    request = (
        b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    sockets = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(150)]
    for each in sockets:
        each.sendall(request)
    service.process.send_signal(signal.SIGTERM)
    answered = 0
    for each in sockets:
        each.settimeout(20)
        with each, each.makefile("rb") as stream:
            answered += stream.read().startswith(b"HTTP/1.1 200 OK")
    assert answered == 150
    assert service.process.wait(20) == 0
    events = [line["event"] for line in service.lines()]
    assert events == ["serving", "draining", "ended"]


def test_a_request_during_the_drain_is_answered(served, runs):
    service = served(runs["comet"])
    service.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    while service.ask("/readyz")[0] != 503:
        assert time.monotonic() < deadline
    assert items_of(service.ask("/v1/recommend", {"user_ids": [3]}))
    assert service.process.wait(20) == 0


def test_ctrl_c_ends_with_status_0_and_a_second_one_at_once(served, runs):
    service = served(runs["comet"], "--drain", "60")
    with socket.create_connection(("127.0.0.1", service.port)) as half:
        half.sendall(b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n")
        service.process.send_signal(signal.SIGINT)
        while service.ask("/readyz")[0] == 200:
            time.sleep(0.02)
        assert service.process.poll() is None  # it waits for the rest of the request
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(20) == 0


def test_sighup_swaps_the_run_behind_a_link(served, runs, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(runs["comet"])
    service = served(link)
    before = service.ask("/v1/runs")[1]["version"]
    fresh = tmp_path / "fresh"
    fresh.symlink_to(runs["newer"])
    fresh.replace(link)
    service.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while service.ask("/v1/runs")[1]["version"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    expected = cr.load_model(runs["newer"]).recommend([3])["item_id"].tolist()
    assert items_of(service.ask("/v1/recommend", {"user_ids": [3]})) == expected


def damaged(run: Path, folder: Path, how: str) -> Path:
    """Copy of a run with one fault; for the last two, all digests are right."""
    shutil.copytree(run, folder)
    file = folder / "vectors.safetensors"
    if how == "missing":
        file.unlink()
        return folder
    if how == "corrupt":
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        return folder
    arrays = load_file(file)
    if how == "nan":
        arrays["items"][3, 2] = np.nan
    if how == "shape":
        arrays["items"] = np.ascontiguousarray(arrays["items"][:, :-1])
    save_file(arrays, file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file.name] = digest(file)
    del manifest["sha256"]
    manifest["sha256"] = digest_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "how",
    [
        "corrupt",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("missing", "nan", "shape")),
    ],
)
def test_a_bad_run_is_refused_at_a_swap_and_the_old_one_goes_on(served, runs, tmp_path, how):
    link = tmp_path / "current"
    link.symlink_to(runs["comet"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin = free.getsockname()[1]
    service = served(link, "--admin-port", str(admin), "--quiet")
    expected = items_of(service.ask("/v1/recommend", {"user_ids": [3]}))
    bad = damaged(runs["newer"], tmp_path / "bad", how)
    fresh = tmp_path / "fresh"
    fresh.symlink_to(bad)
    fresh.replace(link)
    with ThreadPoolExecutor(4) as pool:
        body = {"user_ids": [3]}
        answers = [pool.submit(service.ask, "/v1/recommend", body) for _ in range(50)]
        status, content = asked(admin, "/admin/swap", {})
        answers += [pool.submit(service.ask, "/v1/recommend", body) for _ in range(50)]
        assert [items_of(each.result()) for each in answers] == [expected] * 100
    assert (status, list(content)) == (422, ["error"])
    assert service.ask("/readyz")[0] == 200
    assert service.end() == 0
    refused = [line for line in service.lines() if line["event"] == "swap refused"]
    assert len(refused) == 1


def _serve(run: str, pipe) -> None:
    settings = server.Settings(run=Path(run), port=0, keys=Keys([]), quiet=True)
    server.serve(settings, started=pipe.send)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_and_a_spawned_process_serve_after_the_parent_used_the_model(runs, method):
    model = cr.load_model(runs["comet"])
    expected = model.recommend_for_history([[4, 9]])["item_id"].tolist()  # the parent used torch
    context = get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(str(runs["comet"]), theirs))
    process.start()
    try:
        assert ours.poll(60)
        port = int(ours.recv().split(":")[-1])
        answer = asked(port, "/v1/recommend/history", {"histories": [[4, 9]]})
        assert items_of(answer) == expected
        os.kill(process.pid, signal.SIGTERM)
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()


def _serve_impatiently(run: str, pipe) -> None:
    server.IDLE_SECONDS = 0.5
    _serve(run, pipe)


def test_half_a_request_is_cut_off(runs):
    """Connections that never send a whole header are closed, so that they cannot pile up."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_impatiently, args=(str(runs["comet"]), theirs))
    process.start()
    try:
        assert ours.poll(60)
        port = int(ours.recv().split(":")[-1])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /v1/recommend HT")
            slow.settimeout(30)
            assert slow.recv(100) == b""
    finally:
        process.kill()
        process.join()

"""Attacks on the service: only declared statuses, no traceback, nothing personal in the log."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from pydantic import ValidationError

from comet_rec.errors import ArtefactError, InputError
from comet_rec.serving import forms, server
from comet_rec.serving.keys import Keys
from comet_rec.serving.lane import Lane
from tests.processes import start_program
from tests.serving.conftest import Client
from tests.serving.hostile import Watch, raw, request, statuses

DECLARED = {200, 400, 401, 404, 405, 408, 413, 422, 503}
SECRET = "a-key-that-must-not-be-logged"
LISTS = b"/v1/recommend"


class Attacked:
    """The service in a process, with its log in a file."""

    def __init__(self, folder, run, *options):
        self.log = folder / "log"
        shown = folder / "shown"
        words = map(str, ("serve", run, "--port", 0, *options))
        self.process = start_program("comet_rec", *words, stdout=shown, stderr=self.log)
        while not (shown.exists() and "\n" in shown.read_text()):
            assert self.process.is_alive()
            time.sleep(0.01)
        self.port = int(shown.read_text().split(":")[-1].split()[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def end(self):
        """End the process; the lines of its log, each of which must be JSON."""
        self.process.terminate()
        self.process.join(30)
        assert self.process.exitcode == 0
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def attacked(runs, tmp_path_factory):
    """A service that all attacks hit; at the end, its log is read."""
    folder = tmp_path_factory.mktemp("log")
    with Attacked(folder, runs["comet"], "--compare", runs["ease"]) as service:
        with Watch(service.port) as watch:
            service.watch = watch
            yield service
        assert watch.failures == []
        longest = max(watch.longest, key=watch.longest.get)
        # No test asserts a time; `pytest -rP` or `-s` shows it.
        print(f"longest /livez: {1000 * watch.longest[longest]:.0f} ms, during {longest}")
        lines = service.end()
    assert {line["event"] for line in lines} <= {
        "serving",
        "request",
        "server",
        "draining",
        "ended",
    }
    assert all("type" not in line for line in lines)  # no error of ours
    assert all(text not in service.log.read_text() for text in (SECRET, "8675309", "evil"))


def post(path, body, headers=b"", **values):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(b"POST", path, content, headers, **values)


CHUNK = b"10000\r\n" + b" " * 65_536 + b"\r\n"
CHUNKED = request(b"POST", LISTS, None, b"transfer-encoding: chunked\r\n")
SIZED = b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
ROW = list(range(30)) * 33
TWO_LENGTHS = CHUNKED.replace(b"host", b"content-length: 4\r\nhost") + b"0\r\n\r\n"
WEB_SOCKET = b"upgrade: websocket\r\nconnection: upgrade\r\n"
MOST = [7] * 10_000
ATTACKS = {
    "oversized": (post(LISTS, b" " * (4 << 20)), 413),
    "oversized, in chunks": (CHUNKED + CHUNK * 64 + b"0\r\n\r\n", 413),
    "announced as oversized": (SIZED + b"content-length: 9999999999\r\n\r\n", 413),
    "announced as negative": (SIZED + b"content-length: -1\r\n\r\n", 400),
    "announced with 30 digits": (SIZED + b"content-length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "announced twice": (SIZED + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}", 400),
    "announced as too short": (SIZED + b'content-length: 1\r\n\r\n{"user_ids":[1]}', 400),
    "length and chunks": (TWO_LENGTHS, 400),
    "endless size of a chunk": (CHUNKED + b"1;" + b"a" * (17 << 20), 400),
    "gzip": (post(LISTS, b"\x1f\x8b\x08\0\0", b"content-encoding: gzip\r\n"), 400),
    "a large header": (request(b"GET", b"/livez", None, b"x: " + b"a" * (2 << 20) + b"\r\n"), 400),
    "many headers": (request(b"GET", b"/livez", None, b"a:\r\n" * 200_000), 400),
    "a large url": (request(b"GET", b"/v1/items?search=" + b"a" * (2 << 20)), 400),
    "a long search": (request(b"GET", b"/v1/items?search=" + b"a" * 60_000), 422),
    "odd letters": (request(b"GET", b"/v1/items?search=" + b"%EF%B7%BA" * 200), 200),
    "NUL and no UTF-8": (request(b"GET", b"/v1/items?search=%00%ff%fe"), 200),
    "a header in a search": (request(b"GET", b"/v1/items?search=a%0d%0aevil:%20x"), 200),
    "NUL in a header": (request(b"GET", b"/livez", None, b"x: a\0b\r\n"), 400),
    "a path of no ASCII": (request(b"GET", b"/v1/\xff"), 400),
    "HTTP/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03", 400),
    "absolute form": (request(b"GET", b"http://evil/v1/runs"), 200),
    "absolute form without a path": (request(b"GET", b"http://evil"), 400),
    "a slash at the end": (request(b"GET", b"/v1/runs/"), 404),
    "two slashes": (request(b"GET", b"/v1//runs"), 404),
    "capital letters": (request(b"GET", b"/V1/runs"), 404),
    "dots": (request(b"GET", b"/%2e%2e/%2e%2e/etc/passwd"), 404),
    "swap in public": (post(b"/admin/swap", b"", b"x-forwarded-host: 127.0.0.1\r\n"), 404),
    "upgrade": (post(LISTS, {"user_ids": [1]}, b"upgrade: h2c\r\nconnection: upgrade\r\n"), 400),
    "web socket": (request(b"GET", b"/v1/runs", None, WEB_SOCKET), 200),
    "deep JSON": (post(LISTS, b"[" * 40_000), 400),
    "deeper JSON": (post(LISTS, b'{"a":' * 200_000), 413),
    "lists in a list": (post(LISTS, b'{"user_ids":[' + b"[]," * 340_000 + b"1]}"), 413),
    "500,000 users": (post(LISTS, {"user_ids": [1] * 340_000}), 422),
    "90,000 fields": (post(LISTS, dict.fromkeys(map(str, range(90_000)))), 422),
    "a key twice": (post(LISTS, b'{"user_ids":[8675309],"user_ids":[1]}'), 200),
    "1e400": (post(LISTS, b'{"user_ids":[1],"diversify":1e400}'), 422),
    "-0": (post(LISTS, b'{"user_ids":[-0],"diversify":-0.0}'), 200),
    "NaN": (post(LISTS, b'{"user_ids":[1],"k":NaN}'), 422),
    "4,000 digits": (post(LISTS, b'{"user_ids":[1],"k":' + b"9" * 4_000 + b"}"), 422),
    "a surrogate": (post(LISTS, b'{"user_ids":["\\ud800"]}'), 422),
    "control characters": (post(LISTS, {"user_ids": ["8675309\r\nevil: 1\0\x1b[31m\u202e"]}), 404),
    "unknown users": (post(LISTS, {"user_ids": [8675309] * 1_000, "k": 1}), 404),
    "largest lists": (post(LISTS, {"user_ids": [1] * 20, "k": 1_000, "titles": True}), 200),
    "most users": (post(LISTS, {"user_ids": [1] * 1_000, "k": 20, "diversify": 0.5}), 200),
    "10,000 items": (post(LISTS, {"user_ids": [1], "allow": MOST, "block": MOST}), 200),
    "10,000 unknown items": (post(LISTS, {"user_ids": [1], "allow": ["8675309"] * 10_000}), 200),
    "longest histories": (post(LISTS + b"/history", {"histories": [ROW] * 250, "k": 30}), 200),
    "10,000 items of a history": (post(LISTS + b"/history", {"histories": [[1] * 10_000]}), 422),
    "similar": (post(b"/v1/similar", {"item_ids": [1] * 100, "k": 200}), 200),
    "explain": (post(b"/v1/explain", {"history": ROW, "item_ids": [1] * 20}), 200),
    "unknown items": (post(b"/v1/explain", {"history": [8675309], "item_ids": [1]}), 404),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_gets_a_declared_status(attacked, attack):
    content, status = ATTACKS[attack]
    attacked.watch.attack = attack
    received = raw(attacked.port, content)
    # A client that still sends may see the end of the connection before it sees the answer.
    assert statuses(received)[:1] in ([status], []) if status in (400, 413) else [[status]]
    if received:
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"evil" not in head
        assert json.loads(body) if status == 200 else list(json.loads(body)) == ["error"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/recommend", "/livez", "/", "/metrics"])
def test_other_methods_are_refused(attacked, method, path):
    assert statuses(raw(attacked.port, request(method.encode(), path.encode()))) == [405]


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(attacked):
    attacked.watch.attack = "pipelined"
    some = b"".join(post(LISTS, {"user_ids": [user]}, close=user == 29) for user in range(30))
    received = raw(attacked.port, some)
    assert statuses(received) == [200] * 30
    bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert [json.loads(body)["lists"][0]["user_id"] for body in bodies] == list(range(30))
    many = raw(attacked.port, b"GET /v1/runs HTTP/1.1\r\n\r\n" * 100_000)
    assert len(statuses(many)) < 10_000


def test_a_client_reads_why_its_body_is_refused(attacked):
    """Also one that sends everything before it reads, and that asks again on the connection."""
    for body in (b" " * (4 << 20), b"[" * 60_000):
        assert statuses(raw(attacked.port, post(LISTS, body))) == [413]
        many = post(LISTS, body, close=False) * 2 + post(LISTS, {"user_ids": [1]})
        assert statuses(raw(attacked.port, many)) == [413, 413, 200]


def test_half_a_body_is_never_used(attacked):
    event = b'{"events":[{"user_id":5,"item_id":3}]}'
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    before = raw(attacked.port, post(LISTS, {"user_ids": [5], "include_seen": True}))
    raw(attacked.port, head + b"content-length: 100\r\n\r\n" + event, half_close=True)
    after = raw(attacked.port, post(LISTS, {"user_ids": [5], "include_seen": True}))
    assert before.split(b"\r\n\r\n")[1] == after.split(b"\r\n\r\n")[1]


def test_many_connections_and_slow_ones_do_not_stop_the_others(attacked):
    """Half a head, half a body, and large answers that nobody reads."""
    attacked.watch.attack = "slow sockets"
    large = post(LISTS, {"user_ids": [1] * 900, "k": 20, "titles": True}, close=False)
    contents = [b"POST /v1/recommend HT", SIZED + b"content-length: 9\r\n\r\n{", large, b""]
    connections = []
    for number in range(240):
        connection = socket.create_connection(("127.0.0.1", attacked.port))
        connection.sendall(contents[number % 4])
        connections.append(connection)
    try:
        for _ in range(20):
            assert statuses(raw(attacked.port, post(LISTS, {"user_ids": [1]}))) == [200]
    finally:
        for connection in connections:
            connection.close()
    assert statuses(raw(attacked.port, request(b"GET", b"/readyz"))) == [200]


def test_keys_hold_under_odd_headers(runs, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(SECRET + "\n")
    good = f"authorization: Bearer {SECRET}\r\n".encode()
    wrong = b"authorization: Bearer not-the-key-of-this-one\r\n"
    with Attacked(tmp_path, runs["comet"], "--keys", keys) as service:
        for headers, status in (
            (good, 200), (b"", 401), (wrong, 401), (good + wrong, 401), (wrong + good, 401),
            (good.replace(b"Bearer", b"Basic"), 401), (b"authorization:\r\n", 401),
            (b"authorization: Bearer " + b"a" * 50_000 + b"\r\n", 401),
            (b"authorization: Bearer \xff\xfe\r\n", 401), (good.replace(b": ", b":\t"), 200),
            (b"x-api-key: " + SECRET.encode() + b"\r\n", 401),
        ):  # fmt: skip
            assert statuses(raw(service.port, request(b"GET", b"/v1/runs", None, headers))) == [
                status
            ]
        for path in (b"/livez/../v1/runs", b"/livez%2f..%2fv1/runs", b"//", b"/v1/runs?/livez"):
            assert statuses(raw(service.port, request(b"GET", path))) == [401]
        lines = service.end()
    assert SECRET not in service.log.read_text()
    assert {line["event"] for line in lines} == {"serving", "request", "draining", "ended"}


def test_a_log_that_nobody_reads_stops_nothing(runs):
    """A pipe holds 64 KiB; then a write would wait for its reader."""
    words = [sys.executable, "-m", "comet_rec", "serve", str(runs["comet"]), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        port = int(process.stdout.readline().split(b":")[-1].split()[0])
        many = request(b"GET", b"/nothing", close=False) * 49 + request(b"GET", b"/nothing")
        for _ in range(20):
            assert statuses(raw(port, many)) == [404] * 50
        process.stderr.read1(1 << 20)  # somebody reads again
        raw(port, request(b"GET", b"/nothing"))
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(20) == 0
    lost = [json.loads(line).get("lines_lost", 0) for line in rest.splitlines()]
    assert max(lost) > 100


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
def test_a_full_disk_behind_the_log_stops_nothing(runs):
    words = [sys.executable, "-m", "comet_rec", "serve", str(runs["comet"]), "--port"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        open("/dev/full", "wb") as full,
        subprocess.Popen([*words, str(port)], stdout=full, stderr=full) as process,
    ):
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = raw(port, request(b"GET", b"/readyz"))
            except ConnectionRefusedError:
                answer = b""
            if statuses(answer) == [200]:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert statuses(raw(port, post(LISTS, {"user_ids": [1]}))) == [200]
        process.terminate()
        process.wait(20)


def test_sigterm_during_the_first_load_ends_the_process(runs):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "comet_rec", "serve", str(runs["comet"]), "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while True:
            try:
                answer = raw(port, request(b"GET", b"/livez"))
            except ConnectionRefusedError:
                assert process.poll() is None
                continue
            break
        process.terminate()
        assert statuses(answer) == [200]
        assert process.wait(30) == 0
        lines = [json.loads(line)["event"] for line in process.stderr.read().splitlines()]
    assert lines[-1] == "ended" or "draining" in lines


def _serve_impatiently(run, pipe):
    server.IDLE_SECONDS = 1.0
    settings = server.Settings(run=Path(run), port=0, keys=Keys([]), quiet=True)
    server.serve(settings, started=pipe.send)


def test_a_client_that_reads_nothing_is_cut_off_and_a_busy_one_is_not(runs):
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_impatiently, args=(str(runs["comet"]), theirs))
    process.start()
    try:
        assert ours.poll(60)
        address = "127.0.0.1", int(ours.recv().split(":")[-1])
        large = post(LISTS, {"user_ids": [1] * 900, "k": 20, "titles": True}, close=False)
        busy = http.client.HTTPConnection(*address, timeout=20)
        busy.connect()
        busy.auto_open = 0  # a closed connection must not be replaced
        with socket.socket() as lazy, contextlib.closing(busy):
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            lazy.connect(address)
            lazy.sendall(large * 4)
            for _ in range(25):  # for longer than the lazy one may wait
                busy.request("GET", "/livez")
                assert busy.getresponse().read() == b'{"status":"ok"}'
                time.sleep(0.2)
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while part := lazy.recv(1 << 16):
                    received += len(part)
        whole = raw(address[1], post(LISTS, {"user_ids": [1] * 900, "k": 20, "titles": True}))
        assert received < 4 * len(whole)
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("text", ["sha256:abc", "SHA256:" + "g" * 64, "sha256:" + "a" * 63])
def test_a_damaged_digest_is_no_key(text):
    with pytest.raises(InputError, match="64 hex digits"):
        Keys([text])


def test_an_empty_variable_of_keys_does_not_open_the_service(monkeypatch):
    monkeypatch.setenv("COMET_REC_API_KEYS", " , ")
    with pytest.raises(InputError, match="holds no key"):
        Keys.read(None)


def test_a_page_of_a_browser_cannot_swap(runs):
    client = Client({"main": runs["comet"]}, admin_port=9999)
    server = ("127.0.0.1", 9999)
    forged = client.asked("POST", "/admin/swap", None, server=server, origin="http://evil")
    assert client.run(forged).status == 404


def test_many_signals_are_one_more_swap(runs, tmp_path):
    with Attacked(tmp_path, runs["comet"], "--quiet") as service:
        with Watch(service.port) as watch:
            for _ in range(100):
                os.kill(service.process.pid, signal.SIGHUP)
                time.sleep(0.001)
            time.sleep(0.5)
        assert watch.failures == []
        lines = service.end()
    assert 2 <= sum(line["event"] == "serving" for line in lines) < 90
    assert all("type" not in line for line in lines)


def test_calls_during_a_swap_share_the_next_one(runs):
    client = Client({"main": runs["comet"]}, ready=False)

    async def storm():
        return await asyncio.gather(*(client.service.swap() for _ in range(50)))

    versions = client.run(storm())
    assert len(set(versions)) == 1
    assert len(client.log) == 1


def test_an_unexpected_error_of_a_load_is_a_refused_swap(runs, monkeypatch):
    client = Client({"main": runs["comet"]})

    def broken(folder, titles):
        raise MemoryError("secret")

    monkeypatch.setattr("comet_rec.serving.served.Served.load", broken)
    with pytest.raises(ArtefactError, match="MemoryError"):
        client.run(client.service.swap())
    assert client.log[-1]["event"] == "swap refused"
    assert client.post("/v1/recommend", {"user_ids": [1]}).status == 200


def test_a_run_whose_facts_hold_nan_is_refused(runs, monkeypatch):
    """JSON lacks NaN: /v1/runs would fail until the next swap."""
    client = Client({"main": runs["comet"]})
    facts = {"curves": [{"loss": float("nan")}]}
    monkeypatch.setattr("comet_rec.serving.served.Served.about", lambda run, name: facts)
    with pytest.raises(ArtefactError):
        client.run(client.service.swap())
    assert client.get("/v1/runs").status == 200


def test_a_request_that_meets_a_bug_does_not_take_others_of_its_batch_along(client, monkeypatch):
    from comet_rec.estimators import lists

    whole = lists.for_users

    def broken(run, users, *arguments, **values):
        if 7 in users:
            raise ZeroDivisionError
        return whole(run, users, *arguments, **values)

    monkeypatch.setattr("comet_rec.serving.served.lists.for_users", broken)
    requests = [forms.UsersRequest(user_ids=[user]) for user in (1, 7, 2)]
    answers = client.service._answer_lists(requests)
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]


def test_requests_of_clients_that_have_gone_disturb_no_others():
    computed = []

    def answer(requests):
        computed.extend(requests)
        return [request * 10 for request in requests]

    async def work():
        lane = Lane(answer, limit=100, most=4)
        tasks = [asyncio.create_task(lane.ask(number)) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return answers, await lane.ask(100)

    answers, later = asyncio.run(work())
    assert answers[1::2] == [number * 10 for number in range(1, 20, 2)]
    assert all(isinstance(each, asyncio.CancelledError) for each in answers[::2])
    assert later == 1_000


def test_recent_items_outlive_a_swap_to_another_type_of_ids(runs, tmp_path):
    link = tmp_path / "run"
    link.symlink_to(runs["comet"])
    client = Client({"main": link})
    events = {"events": [{"user_id": 1, "item_id": 3}, {"user_id": 1, "item_id": 4}]}
    assert client.post("/v1/events", events).status == 200
    link.unlink()
    link.symlink_to(runs["text"])
    client.run(client.service.swap())
    for body in ({"user_ids": ["user-3"]}, {"user_ids": [1], "unknown": "popular"}):
        assert client.post("/v1/recommend", body).status == 200
    link.unlink()
    link.symlink_to(runs["newer"])
    client.run(client.service.swap())
    assert client.post("/v1/recommend", {"user_ids": [1]}).status == 200


def test_floods_of_events_keep_the_memory_bounded(client):
    from comet_rec.serving import sessions

    users = range(10**9, 10**9 + 12_000)
    for begin in range(0, 12_000, 1_000):
        events = [{"user_id": user, "item_id": 3} for user in users[begin : begin + 1_000]]
        assert client.post("/v1/events", {"events": events}).status == 200
    assert len(client.service.sessions) == sessions.MOST_USERS


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (forms.UsersRequest, {"user_ids": [[]] * 1_000}),
        (forms.UsersRequest, {"user_ids": [1], "allow": [[]] * 10_000}),
        (forms.UsersRequest, {"user_ids": [1]} | dict.fromkeys(map(str, range(50_000)))),
        (forms.HistoriesRequest, {"histories": [[[]] * 1_000] * 300}),
        (forms.SimilarRequest, {"item_ids": [None] * 100}),
        (forms.ExplainRequest, {"item_ids": [None] * 20, "history": [None] * 1_000}),
        (forms.EventsRequest, {"events": [dict.fromkeys(map(str, range(19)))] * 1_000}),
    ],
)
def test_a_body_of_many_wrong_values_makes_few_errors(form, body):
    """Each error costs memory and time of the event loop, on which everything waits."""
    with pytest.raises(ValidationError) as caught:
        form.model_validate(body)
    assert caught.value.error_count() < 25

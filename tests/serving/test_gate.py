"""What is refused, and how: keys, bodies, queues, states; and what is counted and logged."""

from __future__ import annotations

import asyncio
import json

import pytest

from comet_rec.errors import InputError
from comet_rec.serving import gate
from comet_rec.serving.keys import Keys
from comet_rec.serving.sessions import MOST_ITEMS, Sessions
from tests.serving.conftest import Client

KEY = "a-key-of-more-than-sixteen-letters"
ASKED = {"user_ids": [1]}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 40_000, 400, "no JSON"),
        (b'{"user_ids": [' + b"9" * 5000 + b"]}", 400, "no JSON"),
        (b"[]", 422, "must be a JSON object"),
        (b"", 422, "required"),
        ({}, 422, "user_ids: Field required"),
        ({"user_ids": []}, 422, "user_ids"),
        ({"user_ids": [True]}, 422, "user_ids.0"),
        ({"user_ids": [1.5]}, 422, "user_ids.0"),
        ({"user_ids": [None]}, 422, "user_ids.0"),
        ({"user_ids": [2**70]}, 422, "user_ids.0"),
        ({"user_ids": ["x" * 501]}, 422, "user_ids.0"),
        ({"user_ids": [1], "k": 0}, 422, "k: "),
        ({"user_ids": [1], "k": "10"}, 422, "k: "),
        ({"user_ids": [1], "hops": 1}, 422, "hops: Extra"),
        ({"user_ids": list(range(1001))}, 422, "user_ids"),
        ({"user_ids": [1] * 1000, "k": 100}, 422, "1000 lists of 100: at most 20000 places"),
        ({"user_ids": [1], "allow": list(range(10_001))}, 422, "allow"),
        (b'{"user_ids": [1], "diversify": NaN}', 422, "diversify"),
        ({"user_ids": ["x\ud800"]}, 422, "user_ids.0"),
        ({"user_ids": ["user"]}, 404, "no plain integer"),
        ({"user_ids": [2**62]}, 404, "unknown user"),
    ],
)
def test_a_bad_body_is_refused_in_one_line(client, body, status, words):
    answer = client.post("/v1/recommend", body)
    assert (answer.status, list(answer.json)) == (status, ["error"])
    assert words in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert len(answer.body) < 1_200


def test_lists_of_ten_thousand_items_are_used_or_refused(client):
    allowed = client.post("/v1/recommend", {"user_ids": [1], "allow": list(range(10_000))})
    assert allowed.status == 200
    history = client.post("/v1/recommend/history", {"histories": [list(range(10_000))]})
    assert history.status == 422
    assert "histories.0" in history.json["error"]


def test_a_body_above_the_limit_is_refused(client):
    large = b" " * (gate.MOST_BODY + 1)
    assert client.post("/v1/recommend", large).status == 413
    # Without a length, the parts are counted as they come.
    chunks = [b" " * 300_000] * 4
    answer = client.run(
        client.asked("POST", "/v1/recommend", None, chunks=chunks, content_length="")
    )
    assert answer.status == 413


def test_a_body_that_does_not_come_is_given_up(client, monkeypatch):
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.05)

    async def stalled():
        sent = []

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": []}
        await client.gate(scope, receive, send)
        return sent

    start, body = client.run(stalled())
    assert start["status"] == 408
    assert "did not come" in json.loads(body["body"])["error"]


def test_without_a_key_only_the_page_and_the_probes_answer(runs):
    client = Client({"main": runs["comet"]}, keys=[KEY])
    for path in ("/v1/runs", "/v1/items", "/metrics", "/openapi.json", "/elsewhere"):
        answer = client.get(path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
    for wrong in ("Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer "):
        assert client.get("/v1/runs", authorization=wrong).status == 401, wrong
    assert client.get("/v1/runs", authorization=f"Bearer {KEY}").status == 200
    assert client.get("/v1/runs", authorization=f"bearer {KEY}").status == 200
    for path in ("/", "/livez", "/readyz"):
        assert client.get(path).status == 200
    schema = client.app.openapi()
    assert schema["paths"]["/v1/runs"]["get"]["security"] == [{"key": []}]
    assert schema["paths"]["/livez"]["get"]["security"] == []


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    digest = "sha256:f27a1393c6d2aa7f8bb9a2cd2d4e9c7fb44da3a8a2f9a4c0d2a6c2f0f5e7a111"
    file.write_text(f"# production\n{KEY}\n\n{digest}\n")
    monkeypatch.setenv("COMET_REC_API_KEYS", "another-key-of-the-environment, and-a-third-key-too")
    keys = Keys.read(file)
    assert len(keys) == 4
    for key in (KEY, "another-key-of-the-environment", "and-a-third-key-too"):
        assert keys.admit(f"Bearer {key}".encode())
    assert not keys.admit(f"Bearer {digest}".encode())
    assert KEY not in str(vars(keys))


@pytest.mark.parametrize(
    ("text", "words"),
    [("# none\n", "holds no key"), ("short\n", "API key 1"), ("a key with blanks in it\n", "API")],
)
def test_unusable_keys_are_refused_without_showing_them(tmp_path, text, words):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        Keys.read(file)
    assert text.strip() not in str(caught.value)


def test_a_digest_of_a_key_admits_the_key():
    import hashlib

    keys = Keys([f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"])
    assert keys.admit(f"Bearer {KEY}".encode())
    assert not keys.admit(None)


def test_a_full_queue_is_answered_with_503_and_a_time_to_wait(runs):
    client = Client({"main": runs["comet"]}, queue=4)

    async def many():
        return await asyncio.gather(
            *(client.asked("POST", "/v1/recommend", {"user_ids": [u]}) for u in range(40))
        )

    answers = client.run(many())
    statuses = [each.status for each in answers]
    assert set(statuses) == {200, 503}
    refused = answers[statuses.index(503)]
    assert refused.headers["retry-after"] == "1"
    assert "too many requests wait" in refused.json["error"]
    assert client.post("/v1/recommend", ASKED).status == 200


def test_before_a_run_is_loaded_nothing_is_ready_but_the_process_lives(runs):
    client = Client({"main": runs["comet"]}, ready=False)
    assert client.get("/livez").status == 200
    for answer in (client.get("/readyz"), client.post("/v1/recommend", ASKED)):
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    client.run(client.service.swap())
    assert client.get("/readyz").json == {"status": "ok"}
    client.service.draining = True
    assert client.get("/readyz").status == 503
    assert client.get("/livez").status == 200
    last = client.post("/v1/recommend", ASKED)  # still answered, but not on this connection again
    assert (last.status, last.headers["connection"]) == (200, "close")


def test_unknown_routes_and_methods_are_refused_in_json(client):
    assert client.get("/nothing").json == {"error": "Not Found"}
    wrong = client.get("/v1/recommend")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert client.get("/docs").status == 404  # FastAPI's page loads scripts from elsewhere


def test_the_run_is_swapped_on_the_admin_port_alone(runs):
    client = Client({"main": runs["comet"]}, admin_port=9999)
    before = client.get("/v1/runs").json["version"]
    for server in (("127.0.0.1", 80), ("10.0.0.1", 9999)):
        answer = client.run(client.asked("POST", "/admin/swap", None, server=server))
        assert answer.status == 404
    answer = client.run(client.asked("POST", "/admin/swap", None, server=("127.0.0.1", 9999)))
    assert answer.json == {"version": before}
    assert "/admin/swap" not in client.app.openapi()["paths"]


def test_counters_tell_requests_unknown_users_fallbacks_and_the_version(runs):
    client = Client({"main": runs["comet"]})
    client.post("/v1/recommend", {"user_ids": [1, 2, 999], "unknown": "popular"})
    client.post("/v1/recommend", {"user_ids": [999]})
    client.get("/somewhere/else")
    version = client.get("/v1/runs").json["version"]
    text = client.get("/metrics").body.decode()
    for line in (
        'comet_rec_requests_total{route="/v1/recommend",status="200"} 1.0',
        'comet_rec_requests_total{route="/v1/recommend",status="404"} 1.0',
        'comet_rec_requests_total{route="other",status="404"} 1.0',
        "comet_rec_users_total 3.0",
        "comet_rec_unknown_users_total 1.0",
        "comet_rec_fallback_lists_total 1.0",
        f'comet_rec_run_info{{model="comet",run="main",version="{version}"}} 1.0',
        'comet_rec_request_seconds_count{route="/v1/recommend"} 2.0',
    ):
        assert line in text.splitlines()


def test_the_log_has_no_ids_and_no_searches(runs):
    client = Client({"main": runs["text"]})
    client.post("/v1/recommend", {"user_ids": ["user-3"]})
    client.post("/v1/recommend", {"user_ids": ["secret-person"]})
    client.get("/v1/items?search=secret-film")
    client.get("/secret/path")
    lines = [line for line in client.log if line["event"] == "request"]
    assert [line["route"] for line in lines] == [
        "/v1/recommend", "/v1/recommend", "/v1/items", "other",
    ]  # fmt: skip
    assert [line["status"] for line in lines] == [200, 404, 200, 404]
    assert "secret" not in json.dumps(client.log)
    assert "user-3" not in json.dumps(client.log)


def test_an_error_of_the_service_is_a_plain_500(client, monkeypatch):
    async def broken(request):
        raise RuntimeError("secret")

    monkeypatch.setattr(client.service, "lists", broken)
    with pytest.raises(RuntimeError):  # Starlette raises it again after the answer, for the log
        client.post("/v1/recommend", ASKED)


def test_sessions_forget_the_oldest_items_and_users(monkeypatch):
    monkeypatch.setattr("comet_rec.serving.sessions.MOST_USERS", 2)
    sessions = Sessions()
    for item in range(MOST_ITEMS + 5):
        sessions.add(1, item)
    assert sessions.of(1) == list(range(5, MOST_ITEMS + 5))
    sessions.add(2, 0)
    sessions.add(1, 99)
    sessions.add(3, 0)
    assert (sessions.of(2), sessions.of(1)[-1], sessions.of(3)) == ([], 99, [0])

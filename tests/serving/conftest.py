"""Small runs, and a client that asks the service without a network."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.serving.app import create_app
from comet_rec.serving.gate import Gate
from comet_rec.serving.keys import Keys
from comet_rec.serving.service import Service
from tests.conftest import make_log, random_pairs

SMALL = {"embedding_dim": 16, "history_length": 6, "hidden": (16,), "widths": (1, 4)}
USERS, ITEMS = 40, 30
TITLES = {str(item): f"Film {item:02d}" for item in range(ITEMS)} | {"7": "Amélie (2001)"}


def small_log():
    return make_log(random_pairs(np.random.default_rng(0), USERS, ITEMS, 8), n_items=ITEMS)


def text_log():
    pairs = random_pairs(np.random.default_rng(1), 20, 15, 5)
    return cr.read(
        {
            "user_id": [f"user-{u}" for u, _ in pairs],
            "item_id": [f"item {i} é" for _, i in pairs],
            "time": list(range(len(pairs))),
        }
    )


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Folders of trained runs, by name."""
    folder = tmp_path_factory.mktemp("runs")
    log = small_log()
    models = {
        "comet": cr.COMET(
            preset="best", **SMALL, full_epochs=2, blend_model="fism", blend_epochs=2
        ).fit(log),
        "newer": cr.COMET(
            preset="best", **SMALL, full_epochs=3, blend_model="fism", blend_epochs=2, seed=1
        ).fit(log),
        "ease": cr.EASE().fit(log),
        "mf": cr.MF(embedding_dim=8, full_epochs=2).fit(log),
        "text": cr.FISM(embedding_dim=8, full_epochs=2).fit(text_log()),
    }
    for name, model in models.items():
        model.describe("planted", TITLES if name != "text" else {}, {})
        model.save(folder / name)
    return {name: folder / name for name in models}


@dataclass
class Answer:
    """Answer of the service."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks an ASGI application, in an event loop of its own.

    Parameters
    ----------
    folders : dict
        Folders of the runs "main" and "compare".
    """

    def __init__(self, folders, *, keys=(), queue=1024, admin_port=None, ready=True):
        self.loop = asyncio.new_event_loop()
        self.log: list[dict[str, Any]] = []
        self.service = Service(
            folders,
            queue=queue,
            log=lambda event, **values: self.log.append({"event": event, **values}),
        )
        self.app = create_app(self.service, has_keys=bool(keys), admin_port=admin_port)
        routes = set(self.app.openapi()["paths"]) | {"/"}
        self.gate = Gate(self.app, self.service, Keys(keys), routes)
        if ready:
            self.run(self.service.swap())

    def _write(self, event, **values):
        self.log.append({"event": event, **values})

    def run(self, work):
        return self.loop.run_until_complete(work)

    def post(self, path, body, **headers) -> Answer:
        return self.run(self.asked("POST", path, body, **headers))

    def get(self, path, **headers) -> Answer:
        return self.run(self.asked("GET", path, None, **headers))

    async def asked(self, method, path, body, *, server=("127.0.0.1", 80), chunks=None, **headers):
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        path, _, query = path.partition("?")
        named = {"content-type": "application/json", "content-length": str(len(raw)), **headers}
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "query_string": query.encode(), "server": server,
            "scheme": "http", "client": ("127.0.0.1", 1), "root_path": "",
            "headers": [
                (name.replace("_", "-").encode(), value.encode()) for name, value in named.items()
            ],
        }  # fmt: skip
        parts = iter(chunks if chunks is not None else [raw])
        sent = []

        async def receive():
            for part in parts:
                return {"type": "http.request", "body": part, "more_body": chunks is not None}
            if chunks is not None:
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await self.gate(scope, receive, send)
        names = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], names, content)


@pytest.fixture(scope="session")
def client(runs):
    """Client of a service over a COMET, with an EASE to compare it with."""
    return Client({"main": runs["comet"], "compare": runs["ease"]})

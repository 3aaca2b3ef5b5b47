"""A service with planted answers, for tests of the page: ``/v1`` without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from comet_rec.serving.page import page

TITLES = {item: f"Film {item} ({1950 + item})" for item in range(1, 41)}
VERSIONS = {"main": "0123456789ab", "compare": "ba9876543210"}


@dataclass
class Planted:
    """What the service answers; a test changes it while the service runs."""

    runs: list[dict[str, Any]] = field(default_factory=lambda: [run("main"), run("compare")])
    versions: dict[str, str] = field(default_factory=lambda: dict(VERSIONS))
    key: str = ""
    busy: int = 0  # so many requests for lists are refused
    requests: list[str] = field(default_factory=list)


def run(name: str, **changes: Any) -> dict[str, Any]:
    """Entry of ``/v1/runs``: COMET with curves and filters, EASE without."""
    main = name == "main"
    curves = [
        {"stage": "validation", "epoch": epoch, "loss": 1 / epoch, "NDCG@10": 0.5 - 0.3 / epoch}
        for epoch in range(1, 6)
    ]
    weights = [[(-1) ** (row + column) * row / 8 for column in range(3)] for row in range(8)]
    figures = {"HR@10": 0.7 if main else 0.6, "NDCG@10": 0.4}
    entry = {
        "run": name,
        "version": VERSIONS[name],
        "model": "comet" if main else "ease",
        "preset": "best" if main else None,
        "users": 60,
        "items": len(TITLES),
        "rows": 900,
        "epochs": 5 if main else 1,
        "metrics": {"sampled": figures, "full": figures},
        "curves": curves if main else [],
        "filters": [{"tower": "user", "width": 3, "weights": weights}] if main else [],
        "explains": True,
        "folds_in": True,
        "similar": main,
    }
    return entry | changes


@contextmanager
def serve(planted: Planted) -> Iterator[str]:
    """Address of a service that answers as `planted` says."""
    handler = type("Handler", (_Handler,), {"planted": planted})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    planted: Planted

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            body, headers = page()
            self._send(200, body, headers)
        else:
            self._answer(url.path, {key: values[0] for key, values in parse_qs(url.query).items()})

    def do_POST(self) -> None:
        self._answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, path: str, request: dict[str, Any]) -> None:
        planted = self.planted
        planted.requests.append(path)
        version = planted.versions[request.get("run", "main")]
        if planted.key and self.headers["Authorization"] != f"Bearer {planted.key}":
            self._json(401, {"error": "the API key is missing or wrong"})
        elif planted.busy and path.startswith("/v1/recommend"):
            planted.busy -= 1
            self._json(503, {"error": "the queue is full"}, {"Retry-After": "1"})
        elif path == "/v1/recommend" and request["user_ids"] == [999]:
            self._json(404, {"error": "user 999 is not in the log"})
        else:
            self._json(200, {"version": version} | _content(planted, path, request))

    def _json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json"}
        self._send(status, json.dumps(content).encode(), kind | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _content(planted: Planted, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Answer to a request, without its version."""
    if path == "/v1/runs":
        return {"runs": planted.runs}
    if path == "/v1/items":
        search = request.get("search", "").lower()
        found = [item for item, title in TITLES.items() if search in str(title).lower()]
        items = [{"item_id": i, "title": TITLES[i], "users": 50 - i} for i in found]
        return {"items": items[: int(request["limit"])]}
    if path == "/v1/explain":
        history = request.get("history", [38, 39, 40])
        return {"explanations": [_explanation(item, history) for item in request["item_ids"]]}
    history = request["histories"][0] if "histories" in request else []
    return {"lists": [{"user_id": 0, "source": "model", "items": _list(request, history)}]}


def _list(request: dict[str, Any], history: list[int]) -> list[dict[str, Any]]:
    """Items after the last one of the history. The second model leaves out every fifth."""
    start = history[-1] if history else 0
    order = [(start + step) % len(TITLES) + 1 for step in range(len(TITLES))]
    if request.get("run") == "compare":
        order = [item for item in order if item % 5]
    seen = [] if request.get("include_seen") else history
    allowed = request.get("allow") or order
    chosen = [item for item in order if item in allowed and item not in seen][: request["k"]]
    return [
        {"item_id": item, "score": 9.0 - rank, "rank": rank, "title": TITLES[item]}
        for rank, item in enumerate(chosen, start=1)
    ]


def _explanation(item: int, history: list[int]) -> dict[str, Any]:
    """Contributions 1, 1/2, 1/3 … and, from the fourth item on, negative ones."""
    parts = [1 / place if place < 4 else -0.1 * place for place in range(1, len(history) + 1)]
    rows = [
        {"item_id": each, "contribution": part, "rank": rank, "title": TITLES[each]}
        for rank, (each, part) in enumerate(zip(history, parts, strict=True), start=1)
    ]
    return {"item_id": item, "score": 0.5 + sum(parts), "without_history": 0.5, "history": rows}

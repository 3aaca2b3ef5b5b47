"""What every request passes: API keys, the limit of its body, counting, the log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from comet_rec.serving.keys import Keys
from comet_rec.serving.service import Service

MOST_BODY = 1 << 20
"""Largest body of a request, in bytes (1 MiB)."""
MOST_DISCARDED = 8 << 20
"""Bytes of a too large body that are read and discarded, so that its client reads the answer."""
MOST_BRACKETS = 50_000
"""Lists and objects in a body. Python collects garbage while it makes them: 300,000 take 0.4 s."""
BODY_SECONDS = 10.0
"""Seconds in which a body must have come."""
PROBES = ("/livez", "/readyz")
"""Routes that a machine asks all the time: no key, no line in the log."""
OPEN = ("/", *PROBES)
"""Routes without a key."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Gate:
    """ASGI application before another one: it refuses, counts and logs requests.

    Parameters
    ----------
    app : ASGI application
    service : Service
    keys : Keys
    routes : set of str
        Known routes. Others are counted as "other", so that clients cannot make new counters.
    """

    def __init__(self, app: App, service: Service, keys: Keys, routes: set[str]) -> None:
        self._app, self._service, self._keys, self._routes = app, service, keys, routes
        self.in_flight = 0
        self.last_end = time.monotonic()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request, or pass the start and the end of the process on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        path = scope["path"]
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.draining:  # so that clients connect elsewhere
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        is_probe = path in PROBES
        self.in_flight += not is_probe
        try:
            await self._pass(scope, receive, watched)
        finally:
            self.in_flight -= not is_probe
            self.last_end = time.monotonic() if not is_probe else self.last_end
            seconds = time.monotonic() - begin
            route = path if path in self._routes else "other"
            self._service.metrics.requests.labels(route, str(status)).inc()
            self._service.metrics.seconds.labels(route).observe(seconds)
            if not is_probe:
                self._service.log(
                    "request", method=scope["method"], route=route, status=status,
                    ms=round(1000 * seconds, 2),
                )  # fmt: skip

    async def _pass(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])  # names are in lower case
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        # Two keys are refused: a proxy may have looked at the other one.
        key = given[0] if len(given) == 1 else None
        if scope["path"] not in OPEN and not self._keys.admit(key):
            await refuse(send, 401, "an API key is needed: Authorization: Bearer KEY")
            return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > MOST_DISCARDED:
            await refuse(send, 413, f"the body is larger than {MOST_BODY:,} bytes; ask twice")
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
        except ConnectionError:
            await refuse(send, 400, "the connection ended before the body did")
            return
        except TimeoutError:
            await refuse(send, 408, f"the body did not come within {BODY_SECONDS:.0f} seconds")
            return
        if body is None:
            await refuse(send, 413, f"the body is larger than {MOST_BODY:,} bytes; ask twice")
            return
        if body.count(b"[") + body.count(b"{") > MOST_BRACKETS:
            await refuse(send, 413, f"the body holds more than {MOST_BRACKETS:,} lists and objects")
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replayed, send)


async def _body(receive: Receive) -> bytes | None:
    """The whole body of a request; None if it is too large.

    A client that still sends when the connection is closed sees a reset, and no answer.

    Raises
    ------
    ConnectionError
        When the client has gone. Half a body must not be used.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part = message.get("body", b"")
        size += len(part)
        if size <= MOST_BODY:
            parts.append(part)
        if size > MOST_DISCARDED or not message.get("more_body", False):
            return b"".join(parts) if size <= MOST_BODY else None


async def refuse(send: Send, status: int, error: str) -> None:
    """Answer with a fault.

    uvicorn discards the rest of a body. If the connection were closed at once, a client that still
    sends would never see the answer; only after 408 there is nothing to wait for.
    """
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
    ]  # fmt: skip
    if status == 408:
        headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

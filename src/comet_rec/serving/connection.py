"""A connection of a client: uvicorn's HTTP protocol, with limits that it lacks."""

from __future__ import annotations

import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MOST_HEAD = 1 << 16
"""Bytes of a request line and headers that may come without an end (64 KiB)."""
MOST_BYTES = 16 << 20
"""Bytes of one request as they come, with the sizes and the headers of its chunks (16 MiB)."""
MOST_PIPELINED = 100
"""Requests that may wait on one connection for the answer to an earlier one."""


class Connection(HttpToolsProtocol):
    """Reads requests of one connection.

    uvicorn keeps any number of header bytes, and any number of requests that a client sends without
    waiting for an answer: one client could fill the memory.
    """

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self._requests = 0  # that have begun
        self._in_head = False
        self._bytes = 0  # of the present request

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and refuse a request that does not end."""
        before = self._requests, self._in_head
        super().data_received(data)
        # Bytes that end one part of a request and begin the next are not counted for the next.
        is_one_part = before == (self._requests, self._in_head)
        self._bytes = self._bytes + len(data) if is_one_part else 0
        limit = MOST_HEAD if self._in_head else MOST_BYTES
        if self._bytes > limit and not self.transport.is_closing():
            if not self._in_head and self.cycle.response_complete:
                self.transport.close()  # it was refused already
                return
            self.send_400_response("the headers, or the parts of the body, are too large")

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._requests += 1
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request, or let it wait for an earlier one."""
        self._in_head = False
        # An error here is answered as a bad request.
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many pipelined requests")
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and self.parser.get_method() != b"GET":
            raise ValueError("the parser leaves out the body of a request for another protocol")
        super().on_headers_complete()
        if is_upgrade:
            self.cycle.keep_alive = False  # the parser reads no other request

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request, in JSON like every answer."""
        body = json.dumps({"error": msg}).encode()
        self.transport.write(
            STATUS_LINE[400] + b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: the request is answered as HTTP/1.1, as the standard says."""

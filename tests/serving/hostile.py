"""A client that keeps no rules: raw bytes over sockets, and a watch on /livez."""

from __future__ import annotations

import re
import socket
import threading
import time


def request(method, path, body=None, headers=b"", *, close=True) -> bytes:
    """Bytes of a request."""
    parts = [b"%s %s HTTP/1.1\r\nhost: x\r\n" % (method, path), headers]
    if close:
        parts.append(b"connection: close\r\n")
    if body is not None:
        parts.append(b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body))
    return b"".join([*parts, b"\r\n", body or b""])


def raw(port, content, *, half_close=False, seconds=20) -> bytes:
    """All that the service sends for these bytes, until it closes the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(seconds)
        try:
            connection.sendall(content)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            pass  # it need not read the rest of a request that it refuses
    return received


def statuses(received: bytes) -> list[int]:
    """Statuses of the answers."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


class Watch(threading.Thread):
    """Asks /livez all the time, each time over a new connection.

    Its result is the longest time in seconds for each attack, by the name in `attack`.
    """

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.attack = "quiet"
        self.longest: dict[str, float] = {}
        self.failures: list[str] = []
        self._end = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        while not self._end.wait(0.005):
            attack, begin = self.attack, time.perf_counter()
            try:
                answer = raw(self.port, request(b"GET", b"/livez"))
            except OSError as error:
                self.failures.append(f"{attack}: {error}")
                continue
            if statuses(answer) != [200]:
                self.failures.append(f"{attack}: {answer[:100]!r}")
            seconds = time.perf_counter() - begin
            self.longest[attack] = max(self.longest.get(attack, 0.0), seconds)

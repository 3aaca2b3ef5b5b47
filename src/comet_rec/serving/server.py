"""The process of the service: sockets, signals, the drain before its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import uvicorn

from comet_rec.errors import CometError, InputError, messages_for
from comet_rec.serving.app import create_app
from comet_rec.serving.connection import Connection
from comet_rec.serving.gate import Gate
from comet_rec.serving.keys import Keys
from comet_rec.serving.service import Log, Service

QUIET_SECONDS = 0.5
"""Seconds without any request after which a process that should end does end."""
IDLE_SECONDS = 15.0
"""Seconds after which a connection without a running request is closed."""
BACKLOG = 2048
"""Connections that the system accepts before the process does."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a service.

    Parameters
    ----------
    run : Path
        Folder of the run to serve.
    compare : Path or None
        Folder of a second run, for comparison on the page.
    titles : dict or None
        Titles of items by id as text.
    host : str
    port : int
        0 for any free port.
    keys : Keys
    admin_port : int or None
        Port on the loopback address on which the run can be swapped.
    queue : int
        Requests that may wait.
    drain : float
        Longest time, in seconds, that a process goes on answering after SIGTERM.
    quiet : bool
        Whether the log leaves single requests out.
    """

    run: Path
    compare: Path | None = None
    titles: Mapping[str, str] | None = None
    host: str = LOOPBACK
    port: int = 8000
    keys: Keys
    admin_port: int | None = None
    queue: int = 1024
    drain: float = 10.0
    quiet: bool = False


def serve(settings: Settings, *, started: Any = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP swaps the run.

    Parameters
    ----------
    settings : Settings
    started : callable, optional
        Called with the address once the first run answers.

    Raises
    ------
    InputError
        When an address cannot be used.
    ArtefactError
        When the first run cannot be served.
    """
    if settings.admin_port and settings.admin_port == settings.port:
        raise InputError(f"--admin-port {settings.port}: is the public port; give another one")
    log = JsonLog(quiet=settings.quiet)
    folders = {"main": settings.run}
    if settings.compare is not None:
        folders["compare"] = settings.compare
    service = Service(folders, queue=settings.queue, log=log, titles=settings.titles)
    sockets = [bound(settings.host, settings.port)]
    if settings.admin_port is not None:
        sockets.append(bound(LOOPBACK, settings.admin_port))
    logger = logging.getLogger("uvicorn")
    logger.propagate = False
    logger.addHandler(ServerLog(log))
    try:
        admin_port = sockets[1].getsockname()[1] if len(sockets) > 1 else None
        app = create_app(service, has_keys=len(settings.keys) > 0, admin_port=admin_port)
        routes = set(app.openapi()["paths"]) | {"/", "/openapi.json", "/admin/swap"}
        gate = Gate(app, service, settings.keys, routes)
        server = Server(gate, service, settings.drain)
        address = _address(sockets[0])
        gc.collect()
        gc.freeze()  # collections need not look at the imported modules: they halt all threads
        with messages_for("http"):
            server.run_until_end(sockets, lambda: started and started(address))
    finally:
        gc.unfreeze()
        for each in sockets:
            each.close()
    if server.failure is not None:
        raise server.failure


class Server(uvicorn.Server):
    """uvicorn's server with another end: it goes on answering until nothing comes any more.

    uvicorn closes its sockets at SIGTERM at once. Requests that the system had accepted, but the
    process had not read, are lost then.

    Parameters
    ----------
    gate : Gate
    service : Service
    drain : float
        Longest time of the end, in seconds.
    """

    def __init__(self, gate: Gate, service: Service, drain: float) -> None:
        config = uvicorn.Config(
            gate, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, backlog=BACKLOG,
            timeout_keep_alive=int(IDLE_SECONDS), timeout_graceful_shutdown=int(drain) + 1,
        )  # fmt: skip
        super().__init__(config)
        self.failure: CometError | None = None
        self._gate, self._service, self._drain = gate, service, drain
        self._idle_since: dict[tuple[Any, Any], float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def run_until_end(self, sockets: list[socket.socket], started: Any) -> None:
        """Answer on these sockets until a signal ends the process."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._swapped()))
            self._begin(self._first_load(started))
            self._begin(self._close_idle())
            await self.serve(sockets)

        # The factory chooses uvloop, which is faster, where it is installed.
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(main())

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop holds only weak references to its tasks
        task.add_done_callback(self._tasks.discard)

    async def _first_load(self, started: Any) -> None:
        try:
            await self._service.swap()
        except CometError as error:
            self.failure, self.should_exit = error, True
        else:
            with contextlib.suppress(OSError):  # e.g. a full disk behind stdout
                started()

    async def _swapped(self) -> None:
        with contextlib.suppress(CometError):  # the log has the reason; the old run goes on
            await self._service.swap()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Handle SIGTERM and SIGINT by `handle_exit`, inside the block."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end the process; a second signal ends it at once."""
        if self._service.draining:
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        self._service.log("draining", waiting=self._gate.in_flight, seconds=self._drain)
        self._begin(self._drained())

    async def _drained(self) -> None:
        """Go on answering until nothing has come for a while, at most the time of the drain."""
        begin = time.monotonic()
        while time.monotonic() - begin < self._drain:
            quiet_since = max(begin, self._gate.last_end)
            if self._gate.in_flight == 0 and time.monotonic() - quiet_since > QUIET_SECONDS:
                break
            await asyncio.sleep(0.02)
        self._service.log("ended", unanswered=self._gate.in_flight)
        self.should_exit = True

    async def _close_idle(self) -> None:
        """Close connections that have had no running request for a while, e.g. half a header."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            connections: set[Any] = set(self.server_state.connections)
            # A new request is a new cycle, so a busy connection begins anew with each of them.
            idle = {
                (each, each.cycle)
                for each in connections
                if each.cycle is None or each.cycle.response_complete
            }
            self._idle_since = {key: self._idle_since.get(key, now) for key in idle}
            for (each, _), since in self._idle_since.items():
                if now - since > 2 * IDLE_SECONDS:
                    each.transport.abort()  # a closed one waits for a client that reads nothing
                elif now - since > IDLE_SECONDS:
                    each.transport.close()


def bound(host: str, port: int) -> socket.socket:
    """Socket that listens on an address.

    Raises
    ------
    InputError
        When the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            listening = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            stack.pop_all()  # it stays open
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no host name"
        raise InputError(
            f"{host}:{port}: cannot listen there: {why}; give another --host or --port"
        ) from None
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ServerLog(logging.Handler):
    """Writes what uvicorn logs as lines of our log; of an error only its type and its place."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        values: dict[str, Any] = {"message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            # The text of the error could hold an id of a user.
            values["type"] = record.exc_info[0].__name__
            values["place"] = [
                f"{frame.filename}:{frame.lineno}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        self._log("server", **values)


class JsonLog:
    """Writes lines of the log to stderr, as JSON; they never hold ids, texts or addresses.

    Nothing waits for a reader of the log: lines that would block are left out and counted.

    Parameters
    ----------
    quiet : bool
        Whether single requests are left out.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lost = 0

    def __call__(self, event: str, **values: Any) -> None:
        """Write one line."""
        if sys.stderr is None or (self._quiet and event == "request"):
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "event": event, "process": os.getpid(), **values}
        if self._lost:
            line["lines_lost"] = self._lost
        with contextlib.suppress(OSError, ValueError):
            if not _is_writable(sys.stderr):
                self._lost += 1
                return
            sys.stderr.write(json.dumps(line) + "\n")
            sys.stderr.flush()
            self._lost = 0


def _is_writable(stream: TextIO) -> bool:
    """Whether a line can be written without waiting; a pipe has room for 4 KiB then."""
    try:
        file = stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return True
    return bool(select.select([], [file], [], 0)[1])

"""State of the service: the runs that answer, queues, sessions, swaps."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from comet_rec.errors import ArtefactError, CometError, InputError
from comet_rec.serving.lane import Lane
from comet_rec.serving.metrics import Metrics
from comet_rec.serving.served import Counts, ListsRequest, Served, check_events
from comet_rec.serving.sessions import Sessions

BATCH = 128
"""Requests that are ranked together."""
Loaded = dict[str, Served]
Log = Callable[..., None]


class NotReady(Exception):
    """No run is loaded yet."""


class Service:
    """Loads runs, answers requests with them, and swaps them for newer ones.

    Parameters
    ----------
    folders : dict of str to Path
        The folder of the run "main", and of "compare" if there is one.
    queue : int
        Requests for lists that may wait.
    titles : mapping of str to str, optional
        Titles of items by id as text, in place of those of the runs.
    log : callable
        Function that writes a line of the log; it takes the event and named values.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        queue: int,
        log: Log,
        titles: Mapping[str, str] | None = None,
    ) -> None:
        self.folders, self.titles, self.log = dict(folders), titles, log
        self.metrics, self.sessions = Metrics(), Sessions()
        self.draining = False
        self._runs: Loaded = {}
        self._about = ""  # answer of /v1/runs
        self._lists = Lane(self._answer_lists, limit=queue, most=BATCH, is_light=self._is_light)
        # Slow requests have a thread of their own, so that lists need not wait for them.
        self._others = Lane(_call_all, limit=max(queue // 4, 1), most=1)
        self._loader = ThreadPoolExecutor(1)
        self._swapping = asyncio.Lock()
        self._next_swap: asyncio.Task[str] | None = None

    @property
    def ready(self) -> bool:
        """Whether requests are answered, and new ones should come."""
        return bool(self._runs) and not self.draining

    @property
    def waiting(self) -> int:
        """Requests in the queues."""
        return len(self._lists) + len(self._others)

    def served(self, name: str) -> Served:
        """The run with this name.

        Raises
        ------
        NotReady
            When no run is loaded yet.
        InputError
            When there is no run to compare with.
        """
        runs = self._runs  # one read: a swap replaces the whole dict
        if not runs:
            raise NotReady
        if name not in runs:
            raise InputError("run: this service has no run to compare with; leave `run` out")
        return runs[name]

    async def swap(self) -> str:
        """Read the runs anew from their folders, and answer with them once they are verified.

        If a run cannot be read or gives no lists, the old ones go on answering. A call during a
        swap begins the next swap, which answers all calls that have come until then.

        Returns
        -------
        str
            Version of the run "main".

        Raises
        ------
        ArtefactError
            When a run is missing, damaged, or gives no usable lists.
        """
        if self._next_swap is None:
            self._next_swap = asyncio.ensure_future(self._swap_when_free())
        # A caller that gives up must not cancel the swap of the others.
        return await asyncio.shield(self._next_swap)

    async def _swap_when_free(self) -> str:
        async with self._swapping:
            self._next_swap = None  # a later call needs files that are read later
            before = {name: run.version for name, run in self._runs.items()}
            loop = asyncio.get_running_loop()
            try:
                runs, about = await loop.run_in_executor(self._loader, self._load)
            except CometError as error:
                self.metrics.swaps.labels("refused").inc()
                self.log("swap refused", reason=str(error), version=before.get("main"))
                raise
            self._runs, self._about = runs, about
            versions = {name: (run.run.config.name, run.version) for name, run in runs.items()}
            self.metrics.serving(versions)
            self.metrics.swaps.labels("done").inc()
            self.log("serving", version=runs["main"].version, before=before.get("main"))
        gc.collect()  # cycles keep the old run's arrays in memory until a collection
        return runs["main"].version

    def _load(self) -> tuple[Loaded, str]:
        """The runs, and the answer of /v1/runs: it is large, and the same until the next swap."""
        try:
            runs = {name: Served.load(folder, self.titles) for name, folder in self.folders.items()}
            facts = [run.about(name) for name, run in runs.items()]
            return runs, runs["main"].answer("runs", facts)
        except CometError:
            raise
        except Exception as error:  # e.g. no memory, or no free file descriptor
            raise ArtefactError(f"the run cannot be loaded: {type(error).__name__}") from error

    async def lists(self, request: ListsRequest) -> str:
        """Answer of a request for lists."""
        text, counts = await self._lists.ask(request)
        self.metrics.users.inc(counts.users)
        self.metrics.unknown.inc(counts.unknown)
        self.metrics.fallbacks.inc(counts.popular)
        return str(text)

    def _is_light(self, requests: Sequence[ListsRequest]) -> bool:
        """Whether each run that answers takes only milliseconds for its requests."""
        runs = self._runs
        return all(request.run in runs for request in requests) and all(
            served.is_light([request for request in requests if request.run == name])
            for name, served in runs.items()
        )

    def _answer_lists(self, requests: Sequence[ListsRequest]) -> list[Any]:
        """Answers of a batch; the requests of one run are all answered by the same version."""
        answers: list[tuple[str, Counts] | Exception | None] = [None] * len(requests)
        for name in {request.run for request in requests}:
            places = [place for place, request in enumerate(requests) if request.run == name]
            try:
                served = self.served(name)
                found = served.answers([requests[place] for place in places], self.sessions)
            except (NotReady, InputError) as error:
                found = [error] * len(places)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    async def other(self, name: str, answer: Callable[[Served], str]) -> str:
        """Answer that a function computes from the run `name`, in the thread of slow requests."""
        return str(await self._others.ask(lambda: answer(self.served(name))))

    def add_events(self, events: Sequence[Any]) -> str:
        """Keep events in memory: all of them, or none if one is refused."""
        served = self.served("main")
        for user, item in check_events(served, events):
            self.sessions.add(user, item)
        self.metrics.events.inc(len(events))
        return served.answer("accepted", len(events))

    def about(self) -> str:
        """Facts about all runs."""
        self.served("main")  # raises before the first load
        return self._about


def _call_all(calls: Sequence[Callable[[], str]]) -> list[Any]:
    answers: list[Any] = []
    for call in calls:
        try:
            answers.append(call())
        except Exception as error:
            answers.append(error)
    return answers

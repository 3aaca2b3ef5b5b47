"""A queue whose requests are answered together: each batch is all that waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Busy(Exception):
    """So many requests wait already that this one is refused."""


class Lane:
    """Answers requests one batch after the other; those that come meanwhile are the next batch.

    A batch is computed in a thread of the lane, unless it is light. No request waits for others to
    come. So a lone request is answered at once, and under load one ranking serves many requests.

    Parameters
    ----------
    answer : callable
        Function that takes a list of requests and returns an answer or an error for each.
    limit : int
        Requests that may wait.
    most : int
        Requests in one batch.
    is_light : callable, optional
        Whether a batch takes so little time that it is computed between other events. Two threads
        would wait for each other longer than that. By default, no batch is light.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        limit: int,
        most: int,
        is_light: Callable[[Sequence[Any]], bool] = lambda _: False,
    ) -> None:
        self._answer, self._is_light = answer, is_light
        self._limit, self._most = limit, most
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1)  # starts its thread at the first request
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def ask(self, request: Any) -> Any:
        """Answer of one request.

        Raises
        ------
        Busy
            When too many requests wait.
        Exception
            The error that `answer` returned for the request.
        """
        if len(self._waiting) >= self._limit:
            raise Busy
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(len(self._waiting), self._most)
            batch = [self._waiting.popleft() for _ in range(count)]
            batch = [(request, future) for request, future in batch if not future.cancelled()]
            requests = [request for request, _ in batch]
            try:
                if self._is_light(requests):
                    answers = self._answer(requests)
                    await asyncio.sleep(0)  # other events are due
                else:
                    answers = await loop.run_in_executor(self._thread, self._answer, requests)
            except Exception as error:  # a fault of ours: every request of the batch gets it
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # its client has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

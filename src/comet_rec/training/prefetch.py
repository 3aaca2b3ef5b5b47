"""Batches made by a thread in the background."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

from comet_rec.data.batches import Batch


def prefetched(source: Iterator[Batch], depth: int = 2) -> Generator[Batch, None, None]:
    """Same batches in the same order, made by a background thread."""
    made: queue.Queue[Any] = queue.Queue(depth)
    closed = threading.Event()
    end = object()

    def put(value: Any) -> bool:
        while not closed.is_set():
            try:
                made.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for batch in source:
                if not put(batch):
                    return
            put(end)
        except BaseException as error:  # handed to the consumer, who raises it
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (batch := made.get()) is not end:
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        closed.set()
        thread.join()

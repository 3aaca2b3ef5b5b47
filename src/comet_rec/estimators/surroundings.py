"""The caller's settings of PyTorch and numpy, put aside while the library computes; devices.

A default dtype of float64, `no_grad`, a default device or an `errstate` are the caller's own. None
of them may change a bit of a result.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np
import torch

from comet_rec.config import unknown
from comet_rec.errors import ConfigError


class _Process:
    """Settings that all threads share: the first call puts them aside, the last one puts them back.

    A fork copies the numbers of PyTorch's threads, but not the threads: an operation that is
    divided among them would wait for ever. A forked process therefore computes with one.
    """

    def __init__(self, *, forked: bool = False) -> None:
        self.forked = forked
        self._lock = threading.Lock()
        self._running = 0
        self._dtype, self._threads = torch.float32, 1

    def enter(self) -> None:
        """Put the caller's settings aside."""
        with self._lock:
            if self._running == 0:
                self._dtype, self._threads = torch.get_default_dtype(), torch.get_num_threads()
                torch.set_default_dtype(torch.float32)
            if self.forked:  # by every thread, for PyTorch keeps the number by thread
                torch.set_num_threads(1)
            self._running += 1

    def leave(self) -> None:
        """Put them back."""
        with self._lock:
            self._running -= 1
            if self._running == 0:
                torch.set_default_dtype(self._dtype)
                if self.forked:
                    torch.set_num_threads(self._threads)


_process = _Process()


def _after_fork() -> None:
    """Begin anew: another thread of the parent may have held the lock."""
    global _process
    _process = _Process(forked=True)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """PyTorch's and numpy's settings as they are by default, inside the block."""
    process = _process
    process.enter()
    try:
        with contextlib.ExitStack() as stack:
            # Outside of inference mode, gradients are on again too.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":  # where it is, every operation is slower
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(
                np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
            )
            yield
    finally:
        process.leave()


undisturbed = own_settings()
"""Decorator of a function that computes under `own_settings`."""


def torch_device(name: str | torch.device) -> torch.device:
    """Device of this name; ``cuda:1`` is the second GPU.

    Raises
    ------
    ConfigError
        When the name is unknown or the machine has none.
    """
    kind, colon, number = str(name).partition(":")
    if kind not in ("cpu", "cuda", "mps") or bool(colon) != number.isdecimal():
        raise ConfigError(unknown("device", str(name), ["cpu", "cuda", "mps"]))
    has_mps = torch.backends.mps.is_available()
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}
    if int(number or 0) >= available[kind]:
        raise ConfigError(f"device {str(name)!r} is not available on this machine; use 'cpu'")
    return torch.device(str(name))

"""Default settings of PyTorch and numpy while the library computes; choice of the device.

A caller may have set a default dtype, `no_grad`, a default device or an `errstate`. None of these
may change a result, so they are replaced during a call and restored after it.
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
    """PyTorch settings of the whole process, which calls in several threads share.

    The call that starts while no other runs replaces the caller's settings. The call that ends as
    the last one restores them.

    A forked process inherits PyTorch's number of threads, but not the threads themselves. A
    parallel operation would wait for them for ever, so a forked process uses one thread.
    """

    def __init__(self, *, forked: bool = False) -> None:
        self.forked = forked
        self._lock = threading.Lock()
        self._running = 0
        self._dtype, self._threads = torch.float32, 1

    def enter(self) -> None:
        """Count one more call; if it is the only one, replace the caller's settings by defaults."""
        with self._lock:
            if self._running == 0:
                self._dtype, self._threads = torch.get_default_dtype(), torch.get_num_threads()
                torch.set_default_dtype(torch.float32)
            if self.forked:  # in every call, because PyTorch stores this number per thread
                torch.set_num_threads(1)
            self._running += 1

    def leave(self) -> None:
        """Count one call less; if none is left, restore the caller's settings."""
        with self._lock:
            self._running -= 1
            if self._running == 0:
                torch.set_default_dtype(self._dtype)
                if self.forked:
                    torch.set_num_threads(self._threads)


_process = _Process()


def _after_fork() -> None:
    """Replace the shared state in a forked child: its copy of the lock may be held for ever."""
    global _process
    _process = _Process(forked=True)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Use the default settings of PyTorch and numpy inside the block."""
    process = _process
    process.enter()
    try:
        with contextlib.ExitStack() as stack:
            # `inference_mode(False)` enables gradients only as a side effect, so enable them here.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":  # a needless context slows every operation
                stack.enter_context(torch.device("cpu"))
            stack.enter_context(
                np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
            )
            yield
    finally:
        process.leave()


undisturbed = own_settings()
"""Decorator: run a function with the default settings of PyTorch and numpy."""


def torch_device(name: str | torch.device) -> torch.device:
    """PyTorch device of a name such as "cpu", "cuda", "cuda:1" (the second GPU) or "mps".

    Raises
    ------
    ConfigError
        When the name is unknown, or this machine has no such device.
    """
    kind, colon, number = str(name).partition(":")
    if kind not in ("cpu", "cuda", "mps") or bool(colon) != number.isdecimal():
        raise ConfigError(unknown("device", str(name), ["cpu", "cuda", "mps"]))
    has_mps = torch.backends.mps.is_available()
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}
    if int(number or 0) >= available[kind]:
        raise ConfigError(f"device {str(name)!r} is not available on this machine; use 'cpu'")
    return torch.device(str(name))

"""Devices by name."""

from __future__ import annotations

import torch

from comet_rec.config import unknown
from comet_rec.errors import ConfigError


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
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(_has_mps())}
    if int(number or 0) >= there[kind]:
        raise ConfigError(f"device {str(name)!r} is not available on this machine; use 'cpu'")
    return torch.device(str(name))


def _has_mps() -> bool:
    return torch.backends.mps.is_available()

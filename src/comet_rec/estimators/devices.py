"""Devices by name."""

from __future__ import annotations

import torch

from comet_rec.config import unknown
from comet_rec.errors import ConfigError


def torch_device(name: str) -> torch.device:
    """Device of this name.

    Raises
    ------
    ConfigError
        When the name is unknown or the machine has none.
    """
    if name not in ("cpu", "cuda", "mps"):
        raise ConfigError(unknown("device", name, ["cpu", "cuda", "mps"]))
    missing = (name == "cuda" and not torch.cuda.is_available()) or (
        name == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ConfigError(f"device {name!r} is not available on this machine; use 'cpu'")
    return torch.device(name)

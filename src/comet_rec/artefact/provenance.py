"""What figures depend on beside the code and the data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Python, the libraries that compute, and the threads."""
    names = ("comet-rec", "duckdb", "numpy", "scipy", "torch")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found, "threads": str(torch.get_num_threads())}


def machine() -> dict[str, Any]:
    """Processor, cores, threads and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }

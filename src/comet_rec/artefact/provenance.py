"""Software versions and hardware, stored with a run because its metrics depend on them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Versions of Python and libraries, a hash of this package's code, and number of threads."""
    libraries = ("duckdb", "numpy", "scipy", "torch")
    return {
        "python": platform.python_version(),
        "comet-rec": _own_version(),
        **{name: _version(name) for name in libraries},
        "code": _code(),
        "threads": str(torch.get_num_threads()),
    }


@cache
def _version(library: str) -> str:
    return importlib.metadata.version(library)


def _own_version() -> str:
    try:
        return _version("comet-rec")
    except importlib.metadata.PackageNotFoundError:  # imported from a source folder
        return "not installed"


@cache
def _code() -> str:
    """First twelve digits of the SHA-256 of the package's source code.

    A git clone and an installed wheel give the same digits.
    """
    home = Path(__file__).parents[1]
    state = hashlib.sha256()
    for path in sorted(home.rglob("*.py"), key=lambda path: path.relative_to(home).as_posix()):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        state.update(f"{path.relative_to(home).as_posix()} {len(text)}\n".encode() + text)
    return state.hexdigest()[:12]


def machine() -> dict[str, Any]:
    """Processor, cores, threads, operating system, and versions of Python and PyTorch."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }

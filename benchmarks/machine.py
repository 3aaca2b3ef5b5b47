"""Machine and versions that figures were measured with."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from comet_rec.artefact.provenance import machine

__all__ = ["command", "machine", "write"]


def command() -> str:
    """The present command line, files by their names alone."""
    script, *rest = sys.argv
    words = [word if word.startswith("results/") else Path(word).name for word in rest]
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *words])


def write(result: dict[str, Any], out: Path | None) -> None:
    """Print a result, and write it to a file if there is one."""
    text = json.dumps(result, indent=1)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")

"""``comet-rec evaluate RUN``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from comet_rec.cli import options

Run = Annotated[Path, typer.Argument(metavar="RUN", help="What `train --out` wrote.")]


def evaluate(
    run: Run,
    full: Annotated[bool, typer.Option(help="Also rank the whole catalogue.")] = True,
    json_: options.Json = False,
) -> None:
    """Measure a run again under its own protocol."""
    from comet_rec.estimators.measuring import evaluate as measure
    from comet_rec.estimators.registry import load_model

    found = measure(load_model(run), full=full).to_dict()
    typer.echo(json.dumps(found) if json_ else as_text(found))


def as_text(found: Mapping[str, Any]) -> str:
    """Four figures, sampled and full, with standard errors, of what `Report.to_dict` gives."""
    names, protocol, users = list(found["sampled"]), found["protocol"], found["n_users"]
    lines = [f"{found['model']}: {users:,} test users, protocol {protocol['hash'][:12]}"]
    lines.append(f"{'':24}" + "".join(f"{name:>16}" for name in names))
    rows = [
        (f"positive + {protocol['negatives']} negatives", found["sampled"], found["sampled_se"])
    ]
    if found["full"] is not None:
        ranked = found["n_users_full"]
        label = "whole catalogue" if ranked == users else f"catalogue, {ranked} users"
        rows.append((label, found["full"], found["full_se"]))
    for label, means, errors in rows:
        cells = "".join(f"{means[n]:>9.4f} ±{errors[n]:.4f}" for n in names)
        lines.append(f"{label:24}{cells}")
    lines.append("± is one standard error over users")
    return "\n".join(lines)

"""``comet-rec evaluate RUN``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.terminal import folded, show
from comet_rec.text import table

Run = Annotated[Path, typer.Argument(metavar="RUN", help="What `train --out` wrote.")]


def evaluate(
    run: Run,
    full: Annotated[bool, typer.Option(help="Also rank the whole catalogue.")] = True,
    json_: options.Json = False,
) -> None:
    """Measure a run again under its own protocol."""
    from comet_rec.estimators.evaluate import evaluate as measure
    from comet_rec.estimators.registry import load_model

    found = measure(load_model(run), full=full).to_dict()
    show(json.dumps(found) if json_ else as_text(found))


def as_text(found: Mapping[str, Any]) -> str:
    """Four figures, sampled and full, with standard errors, of what `Report.to_dict` gives."""
    from comet_rec.evaluation.ranking import caution

    protocol, users = found["protocol"], found["n_users"]
    columns = {f"positive + {protocol['negatives']} negatives": "sampled"}
    if found["full"] is not None:
        ranked = found["n_users_full"]
        label = "whole catalogue" if ranked == users else f"catalogue, {ranked:,} users"
        columns[label] = "full"
    rows = [
        [
            name,
            *(f"{found[of][name]:.4f} ±{found[f'{of}_se'][name]:.4f}" for of in columns.values()),
        ]
        for name in found["sampled"]
    ]
    said = f"{found['model']}: {users:,} test users, protocol {protocol['hash'][:12]}"
    notes = ["± is one standard error over users", *caution(users)]
    return "\n".join([said, *table(["", *columns], rows), *(folded(note) for note in notes)])

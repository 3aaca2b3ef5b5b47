"""``comet-rec evaluate RUN``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comet_rec.cli import options

if TYPE_CHECKING:
    from comet_rec.evaluation.ranking import Report

Run = Annotated[Path, typer.Argument(metavar="RUN", help="What `train --out` wrote.")]


def evaluate(
    run: Run,
    full: Annotated[bool, typer.Option(help="Also rank the whole catalogue.")] = True,
    json_: options.Json = False,
) -> None:
    """Measure a run again under its own protocol."""
    from comet_rec.estimators.measuring import evaluate as measure
    from comet_rec.estimators.registry import load_model

    report = measure(load_model(run), full=full)
    typer.echo(json.dumps(report.to_dict()) if json_ else as_text(report))


def as_text(report: Report) -> str:
    """Four figures, sampled and full, with standard errors."""
    names = list(report.sampled)
    lines = [
        f"{report.model}: {len(report.users):,} test users, protocol {report.protocol['hash'][:12]}"
    ]
    lines.append(f"{'':24}" + "".join(f"{name:>16}" for name in names))
    rows = [
        (f"positive + {report.protocol['negatives']} negatives", report.sampled, report.sampled_se)
    ]
    if report.full is not None and report.full_se is not None:
        ranked = len(report.full_ranks.better) if report.full_ranks else 0
        label = "whole catalogue" if ranked == len(report.users) else f"catalogue, {ranked} users"
        rows.append((label, report.full, report.full_se))
    for label, means, errors in rows:
        cells = "".join(f"{means[n]:>9.4f} ±{errors[n]:.4f}" for n in names)
        lines.append(f"{label:24}{cells}")
    lines.append("± is one standard error over users")
    return "\n".join(lines)

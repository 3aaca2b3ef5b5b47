"""The command ``comet-rec evaluate``: compute the metrics of a trained run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.tables import show_table
from comet_rec.cli.terminal import folded, show

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `train --out` wrote.")]


def evaluate(
    run: Run,
    full: Annotated[bool, typer.Option(help="Also rank all items.")] = True,
    memory: options.Memory = None,
    json_: options.Json = False,
) -> None:
    """Evaluate a trained run again, with the protocol that the run stores.

    A final or updated run knows its test items. For such a run, the stored figures of the measured
    model are printed.
    """
    from comet_rec.estimators.evaluate import evaluate as measure
    from comet_rec.estimators.registry import load_model

    model = load_model(run)
    stored = model.run.metrics
    if stored and (model.run.final or model.run.split is None):
        options.say_notes([f"{run} knows all rows; these are the figures from before that"], False)
        report = stored
    else:
        report = measure(model, full=full).to_dict()
    options.say_memory(memory, json_)
    if json_:
        show(json.dumps(report))
    else:
        show_report(report)


def show_report(report: Mapping[str, Any]) -> None:
    """Print a table of the sampled and full metrics of a report, with standard errors.

    `report` is the result of `Report.to_dict`.
    """
    from comet_rec.evaluation.ranking import caution

    protocol, users = report["protocol"], report["n_users"]
    columns = {f"positive + {protocol['negatives']} negatives": "sampled"}
    if report["full"] is not None:
        ranked = report["n_users_full"]
        label = "full ranking" if ranked == users else f"full ranking, {ranked:,} users"
        columns[label] = "full"
    rows = []
    for name in report["sampled"]:
        cells = [
            f"{report[kind][name]:.4f} ±{report[f'{kind}_se'][name]:.4f}"
            for kind in columns.values()
        ]
        rows.append([name, *cells])
    show(f"{report['model']}: {users:,} test users, protocol {protocol['hash'][:12]}")
    show_table(["", *columns], rows)
    if "time_split" in report:
        _show_time_split(report)
    for note in ("± is one standard error over users", *caution(users)):
        show(folded(note))


def _show_time_split(report: Mapping[str, Any]) -> None:
    """Print what a split by time adds to a report: groups, future items, and facts of the lists."""
    found = report["time_split"]
    rows = []
    for name, group in found["groups"].items():
        cells = [
            "" if group[kind] is None else f"{group[kind][metric]:.4f}"
            for kind in ("sampled", "full")
            for metric in ("HR@10", "NDCG@10")
        ]
        rows.append([name, f"{group['users']:,}", f"{group['items']:,}", *cells])
    columns = ["users", "items", "HR@10", "NDCG@10", "full HR@10", "full NDCG@10"]
    show("")
    show_table(["group", *columns], rows)
    lines = [
        f"{found['lists']:,} lists; target {found['target']}",
        f"{found['future_rows']:,} of {found['rows']:,} test rows ({found['future_share']:.1%}) "
        "are of items from the future, which are not ranked",
        f"{found['new_users']:,} of {found['users']:,} users have no row before the split; "
        f"{found['users_not_ranked']:,} users are not ranked",
    ]
    if found["coverage@10"] is not None:
        lines.append(
            f"lists of 10 hold {found['coverage@10']:.1%} of the items; their items have "
            f"{found['popularity@10']:,.0f} earlier rows on average"
        )
    for line in lines:
        show(folded(line))

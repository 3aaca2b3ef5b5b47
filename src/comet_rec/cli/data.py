"""The command ``comet-rec data``: list and download data sets; the figures of Table I for a log."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.tables import show_table
from comet_rec.cli.terminal import folded, show

if TYPE_CHECKING:
    from comet_rec.data.interactions import Int32, Interactions

LABEL = 14
"""Width of the names before the figures of `stats`."""

app = typer.Typer(
    cls=options.Commands,
    help="List and download data sets; show the size of a log.",
    no_args_is_help=True,
)


@app.command("list")
def list_() -> None:
    """List the named data sets with their licences."""
    from comet_rec.datasets import catalog

    rows = []
    for name, entry in catalog.entries().items():
        size = [
            f"{count:,} {noun}"
            for noun, count in (
                ("users", entry.users),
                ("items", entry.items),
                ("interactions", entry.interactions),
            )
            if count is not None
        ]
        rows.append((name, (entry.title, ", ".join(size), entry.licence)))
    show_table(["data set", "content, size and licence"], rows, left=2)


@app.command()
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a data set; see `data list`.")
    ],
    quiet: options.Quiet = False,
) -> None:
    """Download a named data set into the cache and print its folder."""
    from comet_rec.datasets import catalog

    show(str(catalog.fetch(name, quiet=quiet)))


@app.command()
@options.reads_log
def stats(
    data: options.Data,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Print the size of a log as in Table I, its columns and times, and the rows left out.

    Bad rows are counted and left out; --skip-bad N refuses a log with more than N of them.
    """
    if not reading.skip_bad:
        reading = dataclasses.replace(reading, skip_bad=sys.maxsize)
    log = options.read_data(data, reading)
    options.say_notes(log.notes, quiet)
    if json_:
        show(json.dumps(_figures(log)))
        return
    lines = {
        "users": f"{log.n_users:,}",
        "items": f"{log.n_items:,}",
        "interactions": f"{len(log):,}",
        "density": f"{log.density:.5f}",
        **_source(log),
    }
    for name, text in lines.items():
        show(folded(f"{name:{LABEL}}{text}", LABEL))
    show("")
    header = ["quartiles", "least", "25 %", "median", "75 %", "most"]
    per_user, per_item = (
        [f"{value:,.{value % 1 > 0:d}f}" for value in _quartiles(indices)]
        for indices in (log.users, log.items)
    )
    show_table(header, [["per user", *per_user], ["per item", *per_item]])


def _source(log: Interactions) -> dict[str, str]:
    """Lines about the columns and the times of a log, and about the rows that were left out."""
    from comet_rec.data.clock import dates

    if log.times is None:
        times = "none: rows count in the order of the log"
    elif log.time_scope == "per_user":
        times = f"positions {log.times.min():,} to {log.times.max():,} within each user"
    else:
        ends = dates(log.times, dated=log.dated) or (log.times.min(), log.times.max())
        times = f"{ends[0]} to {ends[1]}"
    origin = log.origin
    assert origin is not None  # `read` sets it
    counts = {
        "bad": origin.bad,
        "of other events": origin.other_events,
        "rated too low": origin.low_ratings,
        "repeated": origin.repeats,
        "of users or items with too few": origin.few,
    }
    left_out = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    lines = {
        "columns": ", ".join(f"{role} {name!r}" for role, name in origin.columns.items()),
        "times": times,
        "rows": f"{origin.rows:,}; left out: {left_out or 'none'}",
    }
    return lines | ({"first bad row": origin.first_bad} if origin.first_bad else {})


def _figures(log: Interactions) -> dict[str, Any]:
    """The statistics of a log as plain data."""
    from comet_rec.data.clock import dates

    origin = log.origin
    assert origin is not None  # `read` sets it
    rows = dataclasses.asdict(origin)
    columns = rows.pop("columns")
    times: dict[str, Any] = {"scope": log.time_scope}
    if log.times is not None:
        ends = None if log.time_scope == "per_user" else dates(log.times, dated=log.dated)
        times |= {"first": int(log.times.min()), "last": int(log.times.max()), "dates": ends}
    return {
        "users": log.n_users,
        "items": log.n_items,
        "interactions": len(log),
        "density": log.density,
        "columns": columns,
        "times": times,
        "rows": {"all": rows.pop("rows"), **rows},
        "per_user": _quartiles(log.users),
        "per_item": _quartiles(log.items),
    }


def _quartiles(indices: Int32) -> list[float]:
    """Least, 25 %, median, 75 % and most rows of one user, or of one item.

    `indices` (int32 [R]) has the user, or the item, of each row.
    """
    import numpy as np

    counts = np.bincount(indices)  # every index of a log has a row
    return [float(value) for value in np.quantile(counts, [0, 0.25, 0.5, 0.75, 1])]

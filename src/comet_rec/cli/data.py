"""The command ``comet-rec data``: list and download data sets; the figures of Table I for a log."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from comet_rec.cli import options
from comet_rec.cli.terminal import folded, show, width

app = typer.Typer(
    cls=options.Commands,
    help="List and download data sets; show the size of a log.",
    no_args_is_help=True,
)


@app.command("list")
def list_() -> None:
    """List the named data sets with their licences."""
    from comet_rec.datasets import catalog

    for name, entry in catalog.entries().items():
        show(folded(f"{name:14} {entry.title}", 15, width()))
        show(folded(f"{'':14} {entry.licence}", 15, width()))


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
    """Print the number of users, items and interactions and the density of a log, as in Table I."""
    log = options.read_data(data, reading)
    options.say_notes(log.notes, quiet)
    if json_:
        figures = {"users": log.n_users, "items": log.n_items, "interactions": len(log)}
        show(json.dumps({**figures, "density": log.density}))
        return
    show(f"users         {log.n_users:,}")
    show(f"items         {log.n_items:,}")
    show(f"interactions  {len(log):,}")
    show(f"density       {log.density:.5f}")

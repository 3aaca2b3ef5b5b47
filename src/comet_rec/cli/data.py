"""``comet-rec data``: what data sets there are, fetching them, Table I for any log."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from comet_rec.cli import options

app = typer.Typer(help="Named data sets, and Table I for any log.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Named data sets with their licences."""
    from comet_rec.datasets import catalog

    for name, entry in catalog.entries().items():
        typer.echo(f"{name:14} {entry.title}\n{'':14} {entry.licence}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See `data list`.")],
    quiet: options.Quiet = False,
) -> None:
    """Download a named data set into the cache and print the folder."""
    from comet_rec.datasets import catalog

    typer.echo(str(catalog.fetch(name, quiet=quiet)))


@app.command()
@options.reads_log
def stats(
    data: options.Data,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Table I: users, items, interactions, density."""
    log = options.read_data(data, reading)
    options.say_notes(log.notes, quiet)
    if json_:
        figures = {"users": log.n_users, "items": log.n_items, "interactions": len(log)}
        typer.echo(json.dumps({**figures, "density": log.density}))
        return
    typer.echo(f"users         {log.n_users:,}")
    typer.echo(f"items         {log.n_items:,}")
    typer.echo(f"interactions  {len(log):,}")
    typer.echo(f"density       {log.density:.5f}")

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
    from comet_rec.data import catalog

    for name, entry in catalog.entries().items():
        typer.echo(f"{name:14} {entry.title}\n{'':14} {entry.licence}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See `data list`.")],
    quiet: options.Quiet = False,
) -> None:
    """Download a named data set into the cache and print the folder."""
    from comet_rec.data import catalog

    typer.echo(str(catalog.fetch(name, quiet=quiet)))


@app.command()
def stats(
    data: options.Data,
    user: options.User = None,
    item: options.Item = None,
    time: options.Time = None,
    rating: options.Rating = None,
    time_scope: options.TimeScope = "auto",
    min_rating: options.MinRating = None,
    min_user: options.MinUser = None,
    min_item: options.MinItem = None,
    skip_bad: options.SkipBad = 0,
    threads: options.Threads = None,
    folder: options.Folder = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Table I: users, items, interactions, density."""
    reading = options.Reading(
        user, item, time, rating, time_scope, min_rating, min_user, min_item, skip_bad, threads,
        folder,
    )  # fmt: skip
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

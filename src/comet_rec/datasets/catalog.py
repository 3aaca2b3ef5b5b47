"""Loading data sets by name: download once, check digests, read with the right columns."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comet_rec.data.interactions import Interactions
from comet_rec.datasets import cache
from comet_rec.datasets.cache import Progress, Say
from comet_rec.datasets.entries import ENTRIES, Entry
from comet_rec.errors import DataError, did_you_mean
from comet_rec.text import printable


def entries() -> dict[str, Entry]:
    """Descriptions of all named data sets: sources, terms of use and counts, by name."""
    return {entry.name: entry for entry in ENTRIES}


def is_name(text: str) -> bool:
    """Whether `text` is the name of a data set."""
    return text in entries()


def entry_of(name: str) -> Entry:
    """Description of the data set `name`: sources, terms of use, columns and counts.

    Raises
    ------
    DataError
        When no data set has this name; the message suggests the nearest name.
    """
    by_name = entries()
    if name in by_name:
        return by_name[name]
    raise DataError(f"unknown data set {name!r}; {did_you_mean(name, by_name)}")


def fetch(
    name: str,
    *,
    folder: str | Path | None = None,
    quiet: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download a data set, unless its files are already on this machine.

    Parameters
    ----------
    name : str
        Name of the data set, e.g. "ml-100k"; `entries` lists all names.
    folder : path, optional
        Folder for the files. Default: the subfolder `name` of the cache (see `cache_folder`).
        Files or a zip archive that you put there yourself are used without a download.
    quiet : bool
        Print no messages and show no progress bar.
    say : callable, optional
        Takes each message, the terms of use first. Default: print to stderr.
    progress : callable, optional
        Takes the bytes downloaded so far and the size of the file (None if unknown).
        Default: a progress bar, if stderr is a terminal.

    Returns
    -------
    Path
        Folder that holds the files.

    Raises
    ------
    DataError
        When the name is unknown, no source can be reached, the folder cannot be written, or the
        digest of a file is wrong.
    """
    entry = entry_of(name)
    home = Path(folder).expanduser() if folder is not None else cache.cache_folder() / name
    log = cache.find_log(entry, home)
    if log is not None:
        cache.verify(log)
        return log.parent
    bar: cache.Bar = contextlib.nullcontext(progress)
    if progress is None and not quiet:
        bar = cache.terminal_bar(name)
    cache.fill(entry, home, (lambda line: None) if quiet else say or _to_stderr, bar)
    return home


def _to_stderr(text: str) -> None:
    sys.stderr.write("\n".join(map(printable, text.split("\n"))) + "\n")


def load(
    name: str,
    *,
    folder: str | Path | None = None,
    quiet: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Interactions:
    """Load a named data set; the first call downloads it into the cache.

    Parameters
    ----------
    name : str
        "ml-100k", "ml-1m", "amazon-movies" or "amazon-cds".
    folder : path, optional
        Your own folder with the files, searched before the cache. It holds the log under its
        original name (plain, .gz or .zst), or the original zip archive, which is unpacked there.
    quiet : bool
        Print no messages and show no progress bar.
    say : callable, optional
        Takes each message, the terms of use first. Default: print to stderr.
    progress : callable, optional
        Takes the bytes downloaded so far and the size of the file (None if unknown).
        Default: a progress bar, if stderr is a terminal.
    options
        Further arguments of `read`, such as ``min_rating=4``. An option that is None has the
        data set's default: the Amazon sets drop users with fewer than 10 interactions.

    Returns
    -------
    Interactions
        The log. Its `notes` name the source and any differences from the published counts.

    Raises
    ------
    DataError
        When the name is unknown, `folder` is not a folder, or downloading or reading fails.
    """
    from comet_rec.reading import readers

    entry = entry_of(name)
    filled_homes = (
        home
        for home in _homes(name, folder)
        if cache.find_log(entry, home) or cache.find_archive(entry, home)
    )
    home = fetch(name, folder=next(filled_homes, None), quiet=quiet, say=say, progress=progress)
    log = cache.find_log(entry, home)
    assert log is not None  # `fetch` returns a folder with a log, or raises
    chosen = {key: value for key, value in options.items() if value is not None}
    by_wheel = not log.name.startswith(entry.interactions_file)
    columns = entry.wheel.columns if by_wheel and entry.wheel else entry.columns
    default = {"min_user_interactions": entry.min_user_interactions}
    interactions = readers.read(log, **{**columns, **default, **chosen})
    source = cache.read_record(log.parent)["source"] or f"{log.name} in a folder of your own"
    notes = (
        *interactions.notes,
        f"{name}: from {source}",
        *_count_note(entry, interactions, chosen),
    )
    # New rows come from the user, and not in the columns of the published file.
    reading = {name: value for name, value in interactions.reading.items() if name in chosen}
    return dataclasses.replace(interactions, notes=notes, reading=reading)


def _homes(name: str, folder: str | Path | None) -> list[Path]:
    """Folders that may hold the data set `name`: first the user's `folder`, then the cache."""
    cached = cache.cache_folder() / name
    if folder is None:
        return [cached]
    chosen = Path(folder).expanduser()
    if not chosen.is_dir():
        raise DataError(f"{chosen} is not a folder: name the folder that holds {name}'s files")
    return [chosen, cached]


def _count_note(entry: Entry, log: Interactions, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Note on counts of `log` that differ from the published ones; an empty tuple if none differ.

    Counts are not compared if `options` filter the rows differently from the publication.
    """
    usual = {
        "min_rating": None,
        "min_user_interactions": entry.min_user_interactions,
        "min_item_interactions": 0,
        "events": None,
    }
    if any(options.get(key, value) != value for key, value in usual.items()):
        return ()
    pairs = {
        "users": (log.n_users, entry.users),
        "items": (log.n_items, entry.items),
        "interactions": (len(log), entry.interactions),
    }
    differences = [
        f"{counted:,} {noun}, published {published:,}"
        for noun, (counted, published) in pairs.items()
        if published not in (None, counted)
    ]
    return (f"{entry.name}: {'; '.join(differences)}",) if differences else ()


def titles(name: str, *, folder: str | Path | None = None) -> dict[int | str, str]:
    """Item titles of a named data set; only files on this machine are read.

    Parameters
    ----------
    name : str
        Name of the data set.
    folder : path, optional
        Your own folder with the files, searched before the cache.

    Returns
    -------
    dict
        Item id → title; empty if this machine has no file of titles.

    Raises
    ------
    DataError
        When the name is unknown, or `folder` is not a folder.
    """
    entry = entry_of(name)
    for home in _homes(name, folder):
        path = cache.find_titles(entry, home)
        if path is not None:
            return _read_titles(path)
    return {}


def _read_titles(path: Path) -> dict[int | str, str]:
    """Read item titles by item id, from a file of MovieLens or of RecBole.

    MovieLens separates columns by ``::`` or ``|``. RecBole separates them by tabs, below a header.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    rows = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    mark = next((mark for mark in ("::", "\t", "|") if all(mark in row for row in rows)), None)
    if mark is None or not rows:
        raise DataError(f"{path} is not a file of titles; remove it and fetch again")
    fields = [row.split(mark) for row in rows]
    by_wheel = fields[0][0] == "item_id:token"  # columns: id, title, year, genres
    titles_by_id: dict[int | str, str] = {}
    for key, title, *rest in fields[1:] if by_wheel else fields:
        year = f" ({rest[0]})" if by_wheel and rest and rest[0].isdecimal() else ""
        titles_by_id[int(key) if key.isdecimal() else key] = title + year
    return titles_by_id

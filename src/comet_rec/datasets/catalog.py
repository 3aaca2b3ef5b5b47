"""Named data sets by name: fetch them once, check them, read them with the right columns."""

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
    """All named data sets by their names."""
    return {entry.name: entry for entry in ENTRIES}


def is_name(text: str) -> bool:
    """Whether `text` is the name of a data set."""
    return text in entries()


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Raises
    ------
    DataError
        When no data set has this name; the text names the nearest one.
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
    """Download a data set unless it is on this machine already.

    Parameters
    ----------
    name : str
        A name of `entries`.
    folder : path, optional
        Folder of its files; by default a folder of that name in `cache.cache_folder`.
        Files or an archive that you put there yourself are used as they are.
    quiet : bool
        Print no message and draw no progress bar.
    say : callable, optional
        Takes each line for the user (the licence first); stderr by default.
    progress : callable, optional
        Takes the bytes that have arrived and the bytes of the whole file (None when not known).
        By default a bar is drawn where stderr is a terminal.

    Returns
    -------
    Path
        The folder that holds the files.

    Raises
    ------
    DataError
        When the name is unknown, no source can be reached, the folder cannot be written, or
        a file does not have the published or recorded digest.
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
    """Read a data set: from your folder, else from the cache, else fetched into the cache.

    Parameters
    ----------
    name : str
        A name of `entries`.
    folder : path, optional
        A folder of your own with its files: the log under its original name (plain, .gz or
        .zst), or the zip archive, which is unpacked there.
    quiet, say, progress
        As in `fetch`.
    options
        As in `readers.read`. None means the default of the data set: the Amazon sets drop users
        with fewer than 10 interactions.

    Raises
    ------
    DataError
        When the name is unknown, `folder` is not a folder, or reading or fetching fails.
    """
    from comet_rec.reading import readers

    entry = entry_of(name)
    filled = (
        home
        for home in _homes(name, folder)
        if cache.find_log(entry, home) or cache.find_archive(entry, home)
    )
    home = fetch(name, folder=next(filled, None), quiet=quiet, say=say, progress=progress)
    log = cache.find_log(entry, home)
    assert log is not None  # `fetch` returns the folder of a log or raises
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
    return dataclasses.replace(interactions, notes=notes)


def _homes(name: str, folder: str | Path | None) -> list[Path]:
    """Folders that may hold a data set: the user's comes before the cache's."""
    cached = cache.cache_folder() / name
    if folder is None:
        return [cached]
    chosen = Path(folder).expanduser()
    if not chosen.is_dir():
        raise DataError(f"{chosen} is not a folder: name the folder that holds {name}'s files")
    return [chosen, cached]


def _count_note(entry: Entry, log: Interactions, options: Mapping[str, Any]) -> tuple[str, ...]:
    """A note when the counts differ from the published ones under the default filter."""
    usual = {
        "min_rating": None,
        "min_user_interactions": entry.min_user_interactions,
        "min_item_interactions": 0,
        "skip_bad": 0,
    }
    if any(options.get(key, value) != value for key, value in usual.items()):
        return ()
    pairs = {
        "users": (log.n_users, entry.users),
        "items": (log.n_items, entry.items),
        "interactions": (len(log), entry.interactions),
    }
    differences = [
        f"{counted:,} {what}, published {published:,}"
        for what, (counted, published) in pairs.items()
        if published not in (None, counted)
    ]
    return (f"{entry.name}: {'; '.join(differences)}",) if differences else ()


def titles(name: str, *, folder: str | Path | None = None) -> dict[int | str, str]:
    """Item titles by item id, from the files on this machine; {} if there are none.

    Parameters
    ----------
    name : str
        A name of `entries`.
    folder : path, optional
        A folder of your own with its files; the cache comes second. Nothing is downloaded.

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
    """Titles of a file of MovieLens (``::`` or ``|``) or of the wheel (tabs, with a header)."""
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

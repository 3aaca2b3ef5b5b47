"""Named data sets: fetched once, verified, read with the right columns."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comet_rec.data.interactions import Interactions
from comet_rec.datasets import sets, store
from comet_rec.datasets.download import Progress
from comet_rec.datasets.sets import Entry
from comet_rec.datasets.store import Say
from comet_rec.errors import DataError, did_you_mean
from comet_rec.text import printable


def entries() -> dict[str, Entry]:
    """Every data set that has a name here, by that name."""
    return {entry.name: entry for entry in sets.ENTRIES}


def is_name(text: str) -> bool:
    """Whether `text` is the name of a data set, and so not of a file."""
    return text in entries()


def entry_of(name: str) -> Entry:
    """The entry of a name.

    Raises
    ------
    DataError
        When no data set has this name; the text names the nearest one.
    """
    known = entries()
    if name in known:
        return known[name]
    raise DataError(f"unknown data set {name!r}; {did_you_mean(name, known)}")


def fetch(
    name: str,
    *,
    folder: str | Path | None = None,
    quiet: bool = False,
    say: Say | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make sure that a data set is on this machine; nothing is fetched twice.

    Parameters
    ----------
    name : str
        A name of `entries`.
    folder : path, optional
        Where its files are or go; a folder of its own in `store.cache_folder` by default.
        Files or an archive that you put there yourself are used as they are.
    quiet : bool
        Say nothing and draw nothing.
    say : callable, optional
        Takes each line for the user (the licence first); stderr by default.
    progress : callable, optional
        Takes the bytes that are there and the bytes of the whole (None when not told);
        by default a bar is drawn where stderr is a terminal.

    Returns
    -------
    Path
        The folder that holds the files.

    Raises
    ------
    DataError
        When the name is unknown, the source cannot be reached, the folder cannot be written, or
        a file does not have the digest that was published or recorded.
    """
    entry = entry_of(name)
    home = Path(folder).expanduser() if folder is not None else store.cache_folder() / name
    found = store.find_log(entry, home)
    if found is not None:
        store.verify(found)
        return found.parent
    tell = _nothing if quiet else say or _to_stderr
    if progress is None and not quiet:
        store.fill(entry, home, tell, lambda: store.terminal_bar(name))
    else:
        store.fill(entry, home, tell, lambda: contextlib.nullcontext(progress))
    return home


def _nothing(text: str) -> None:
    pass


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
        Where you keep its files: the log under its original name (plain, .gz or .zst), or the
        zip archive, which is unpacked there.
    quiet, say, progress
        As in `fetch`.
    options
        As in `readers.read`; None stands for the data set's own default, such as the
        users with fewer than 10 interactions that are dropped from the Amazon sets.

    Raises
    ------
    DataError
        When the name is unknown, `folder` is not a folder, or reading or fetching fails.
    """
    from comet_rec.reading import readers

    entry = entry_of(name)
    log = None
    for home in _homes(name, folder):
        if store.find_log(entry, home) or store.find_archive(entry, home):
            log = store.find_log(entry, fetch(name, folder=home, quiet=quiet, say=say))
            break
    if log is None:
        log = store.find_log(entry, fetch(name, quiet=quiet, say=say, progress=progress))
    assert log is not None  # `fetch` returns the folder of a log or raises
    given = {key: value for key, value in options.items() if value is not None}
    by_wheel = not log.name.startswith(entry.interactions_file)
    columns = entry.wheel.columns if by_wheel and entry.wheel else entry.columns
    default = {"min_user_interactions": entry.min_user_interactions}
    interactions = readers.read(log, **{**columns, **default, **given})
    source = store.read_record(log.parent)["source"] or f"{log.name} in a folder of your own"
    notes = (
        *interactions.notes,
        f"{name}: from {source}",
        *_count_note(entry, interactions, given),
    )
    return dataclasses.replace(interactions, notes=notes)


def _homes(name: str, folder: str | Path | None) -> list[Path]:
    """The folders to look into, the user's own first."""
    cache = store.cache_folder() / name
    if folder is None:
        return [cache]
    own = Path(folder).expanduser()
    if not own.is_dir():
        raise DataError(f"{own} is not a folder: name the folder that holds {name}'s files")
    return [own, cache]


def _count_note(entry: Entry, log: Interactions, given: Mapping[str, Any]) -> tuple[str, ...]:
    """A note where the counts are not the published ones though the filter is the default."""
    usual = {
        "min_rating": None,
        "min_user_interactions": entry.min_user_interactions,
        "min_item_interactions": 0,
        "skip_bad": 0,
    }
    if any(given.get(key, value) != value for key, value in usual.items()):
        return ()
    pairs = {
        "users": (log.n_users, entry.users),
        "items": (log.n_items, entry.items),
        "interactions": (len(log), entry.interactions),
    }
    off = [f"{a:,} {what}, published {b:,}" for what, (a, b) in pairs.items() if b not in (None, a)]
    return (f"{entry.name}: {'; '.join(off)}",) if off else ()


def titles(name: str, *, folder: str | Path | None = None) -> dict[int | str, str]:
    """Titles of the items by their ids, from the files that are there; {} if there are none.

    Parameters
    ----------
    name : str
        A name of `entries`.
    folder : path, optional
        Where you keep its files; the cache is looked into after it. Nothing is fetched.

    Raises
    ------
    DataError
        When the name is unknown, or `folder` is not a folder.
    """
    entry = entry_of(name)
    for home in _homes(name, folder):
        path = store.find_titles(entry, home)
        if path is not None:
            return _read_titles(path)
    return {}


def _read_titles(path: Path) -> dict[int | str, str]:
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
    by_wheel = fields[0][0] == "item_id:token"  # id, title, year, genres
    found: dict[int | str, str] = {}
    for key, title, *rest in fields[by_wheel:]:
        year = f" ({rest[0]})" if by_wheel and rest and rest[0].isdecimal() else ""
        found[int(key) if key.isdecimal() else key] = title + year
    return found

"""User and item ids on the command line: in the values of options, and in their files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comet_rec.cli import options
from comet_rec.errors import InputError
from comet_rec.files import read_lines
from comet_rec.text import shortened

if TYPE_CHECKING:
    from comet_rec.artefact.run import Run
    from comet_rec.data.ids import Ids


def ids_of_text(ids: Ids, text: str, option: str) -> list[Any]:
    """Parse comma-separated ids; a text that is itself a known id counts as one id."""
    is_known = ids.index([ids.parse(text)])[0] >= 0
    if is_known or not any(mark in text for mark in ',"'):
        if not text.strip():
            raise InputError(f"{option} {text!r}: holds no id; give ID,ID,…")
        return [meant(ids, text)]
    try:
        (parts,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:  # ValueError: several rows
        why = str(error) if isinstance(error, csv.Error) else "it holds a line end"
        raise InputError(f"{option} {shortened(text)!r}: {why}; give ID,ID,…") from None
    if not any(part.strip() for part in parts):
        raise InputError(f"{option} {shortened(text)!r}: holds no id; give ID,ID,…")
    if "" in parts:
        raise InputError(f"{option} {shortened(text)!r}: holds an empty id; give ID,ID,…")
    return [meant(ids, part) for part in parts]


def meant(ids: Ids, text: str) -> Any:
    """Parse one id; blanks around it are dropped, unless the log has an id with these blanks."""
    exact = ids.parse(text)
    return exact if ids.index([exact])[0] >= 0 else ids.parse(text.strip())


def all_ids(ids: Ids, option: str, texts: list[str], lines: list[str]) -> list[Any]:
    """Ids from all values of a repeatable option and from the lines of its file."""
    option_ids = [each for text in texts for each in ids_of_text(ids, text, option)]
    return option_ids + [meant(ids, line) for line in lines]


def say_absent(ids: Ids, option: str, given: Sequence[Any], role: str = "items") -> None:
    """Print a note about ids of an option that are not in the log."""
    indices = ids.index(given).tolist()
    absent = [value for value, index in zip(given, indices, strict=True) if index < 0]
    if absent:
        few = f"{len(absent):,} of {len(given):,} {role} do not occur in the log"
        options.say_notes([f"{option}: {few}, such as {shortened(absent[0])!r}"], False)


def pairs_of_file(path: Path, option: str, run: Run) -> dict[str, list[Any]]:
    """The columns user_id and item_id of a CSV file, as ids of the log.

    Raises
    ------
    InputError
        When the file cannot be read, or lacks a column.
    """
    log = run.interactions
    roles = {"user": log.user_ids, "item": log.item_ids}
    users, items = _two_columns(path, option, roles, run.reading)
    return {"user_id": _meant_ids(log.user_ids, users), "item_id": _meant_ids(log.item_ids, items)}


def groups_of_file(path: Path, option: str, run: Run) -> dict[Any, str]:
    """Group of each item, from the columns item_id and group of a CSV file.

    Raises
    ------
    InputError
        When the file cannot be read, lacks a column, or gives an item two groups.
    """
    ids = run.interactions.item_ids
    texts, groups = _two_columns(path, option, {"item": ids, "group": None}, run.reading)
    items = _meant_ids(ids, texts)
    of_items: dict[Any, str] = {}
    for item, group in zip(items, groups, strict=True):
        if of_items.setdefault(item, group) != group:
            raise InputError(
                f"{option} {path}: item {shortened(item)!r} has two groups, "
                f"{shortened(of_items[item])!r} and {shortened(group)!r}; give one"
            )
    return of_items


def titles_of_file(path: Path, option: str = "--titles") -> dict[str, str]:
    """Title of each item id (as text), from the columns item_id and title of a CSV file.

    Raises
    ------
    InputError
        When the file cannot be read or lacks a column.
    """
    items, titles = _two_columns(path, option, {"item": None, "title": None}, {})
    return dict(zip(items, titles, strict=True))


def _two_columns(
    path: Path, option: str, roles: Mapping[str, Ids | None], reading: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Texts in two columns of a CSV file (of a TSV file, if its name says so) with a header.

    `roles` has the names of the columns, and the ids that a column holds. `reading` has the names
    of the log's columns.
    """
    from comet_rec.data.id_lists import chosen_columns

    label = f"{option} {path}"
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    lines = (line + "\n" for line in read_lines(path, label))
    try:
        header, *rows = csv.reader(lines, delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise InputError(f"{label}: {error}; write it as CSV") from None
    except ValueError:  # nothing to unpack
        raise InputError(f"{label}: is empty; line 1 must name the columns") from None
    # The log's own column names are known from its reading.
    plain = {reading.get(role): role for role in roles}
    header = [plain.get(column, column) for column in header]
    first_role, second_role = roles
    columns = chosen_columns(header, (first_role, second_role))
    if columns is None and len(header) == 2 and header[1] == second_role:
        columns = header[0], second_role  # the items may have any name
    # A file without a header would lose its first row.
    is_row = len(header) == 2 and any(
        ids is not None and ids.index([meant(ids, text)])[0] >= 0
        for ids, text in zip(roles.values(), header, strict=True)
    )
    if columns is None or is_row:
        wanted = ",".join(role if role in ("group", "title") else f"{role}_id" for role in roles)
        raise InputError(f"{label}: line 1 must name the columns, such as {wanted}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(
                f"{label}: row {number} has {len(row)} fields, but line 1 has {len(header)}; fix it"
            )
    first, second = (header.index(column) for column in columns)
    return [row[first] for row in rows], [row[second] for row in rows]


def _meant_ids(ids: Ids, texts: list[str]) -> list[Any]:
    """As `meant`, for many texts."""
    exact = [ids.parse(text) for text in texts]
    known = ids.index(exact) >= 0
    return [
        value if is_known else ids.parse(text.strip())
        for value, is_known, text in zip(exact, known.tolist(), texts, strict=True)
    ]

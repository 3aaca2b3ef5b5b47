"""Choose the columns of a log that hold the user, the item, the time, the rating, the event."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from comet_rec.errors import DataError, NoColumnError, argument, did_you_mean

Role = Literal["user", "item", "time", "rating", "event"]
ROLES: tuple[Role, ...] = ("user", "item", "time", "rating", "event")
IDS: tuple[Role, ...] = ("user", "item")
LETTER: Mapping[Role, str] = {"user": "u", "item": "i", "time": "t", "rating": "r", "event": "e"}
"""SQL name of each role's column."""

# Common names, best first; case, "_", "-", spaces and a ":type" suffix are ignored.
RECOGNISED: dict[Role, tuple[str, ...]] = {
    "user": (
        "userid", "user", "uid", "customerid", "customer", "reviewerid", "reviewer", "visitorid",
        "memberid", "accountid", "profileid", "sessionid",
    ),
    "item": (
        "itemid", "item", "iid", "movieid", "movie", "productid", "product", "asin", "parentasin",
        "sku", "isbn", "bookid", "songid", "trackid", "artistid", "gameid", "businessid",
        "articleid", "newsid", "videoid", "contentid",
    ),
    "time": (
        "timestamp", "time", "ts", "unixreviewtime", "unixtime", "eventtime", "datetime", "date",
        "createdat", "when", "reviewtime", "eventtimestamp", "transactiondate", "orderdate",
    ),
    "rating": ("rating", "score", "stars", "overall", "ratings", "label", "click", "clicked"),
    "event": (),  # only a column that the caller names
}  # fmt: skip


TIME_ENDINGS = ("at", "on", "date", "time", "datetime", "timestamp", "day", "ts")
"""Last words of column names that may hold times, e.g. of ``bought_on`` or ``OrderDate``."""


def plain(name: str) -> str:
    """A column name in lower case, without separators and RecBole's `:type` suffix."""
    stem = name.split(":")[0]
    return "".join(c for c in stem.lower() if c not in "_- \t")


def event_text(value: object) -> str:
    """An event as text, as `events` of `read` names it: true and false as in JSON."""
    text = str(value)
    return text.lower() if text in ("True", "False") else text


def recognised(name: str) -> bool:
    """Whether a column name is a common one for users, items, times or ratings."""
    return any(plain(name) in names for names in RECOGNISED.values())


def find(name: str, columns: Sequence[str]) -> int | None:
    """Position of the column `name`; None without such a column.

    The exact name counts first, then the name in any case, then the name without a `:type` suffix.
    """
    if name in columns:
        return columns.index(name)
    lower_name = name.strip().lower()
    lowered = [column.strip().lower() for column in columns]
    for stems in (lowered, [column.split(":")[0].strip() for column in lowered]):
        if lower_name in stems:
            return stems.index(lower_name)
    return None


def _last_word(name: str) -> str:
    """Last word of a column name in lower case: "on" of ``bought_on``, "Date" of ``OrderDate``."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name.split(":")[0])
    return words[-1].lower() if len(words) > 1 else ""


def rivals(
    columns: Sequence[str], asked: Mapping[Role, str | None], chosen: Mapping[Role, int]
) -> dict[Role, str]:
    """A note for each role (user, item, time, rating) for which several columns have a common name.

    Roles whose column the caller named in `asked` have no note. `chosen` has the column positions.
    A log without a time column has a note on the columns whose names end like times.
    """
    notes: dict[Role, str] = {}
    for role, position in chosen.items():
        if asked.get(role) is not None:
            continue
        others = [
            repr(column)
            for place, column in enumerate(columns)
            if place not in chosen.values() and plain(column) in RECOGNISED[role]
        ]
        if others:
            notes[role] = (
                f"the {role} is column {columns[position]!r}; {', '.join(others)} could be it too: "
                f"name it with {argument(role)}"
            )
    if "time" not in chosen:
        likely = [repr(column) for column in columns if _last_word(column) in TIME_ENDINGS]
        if likely:
            notes["time"] = f"if {' or '.join(likely)} holds times, name it with {argument('time')}"
    return notes


def choose(columns: Sequence[str], asked: Mapping[Role, str | None], where: str) -> dict[Role, int]:
    """Choose the column of each role (user, item, time, rating, event); return its position.

    Parameters
    ----------
    columns : sequence of str
        The log's column names, in order.
    asked : mapping of role to name or None
        Column names that the caller gave; the column of another role is recognised by its name.
    where : str
        The log's name in messages.

    Raises
    ------
    NoColumnError
        When a column in `asked` does not exist, or the user or the item column is neither given
        nor recognised.
    DataError
        When two roles have the same column, or two columns have the name of a chosen one.
    """
    chosen: dict[Role, int] = {}
    for role in ROLES:
        name = asked.get(role)
        if name is None:
            continue
        position = find(name, columns)
        if position is None:
            raise NoColumnError(f"{where}: no column {name!r}; {did_you_mean(name, columns)}")
        chosen[role] = position
    for role in ROLES:
        if role in chosen:
            continue
        stems = [
            "" if position in chosen.values() else plain(column)
            for position, column in enumerate(columns)
        ]
        for candidate in RECOGNISED[role]:
            if candidate in stems:
                chosen[role] = stems.index(candidate)
                break
    for role in IDS:
        if role not in chosen:
            listed = ", ".join(map(repr, columns[:12]))
            more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
            raise NoColumnError(
                f"{where}: no {role} column among {listed}{more}; name it with {argument(role)}"
            )
    for position in chosen.values():
        if columns.count(columns[position]) > 1:
            raise DataError(f"{where}: two columns are named {columns[position]!r}; rename one")
    taken: dict[int, Role] = {}
    for role in ROLES:
        if role in chosen:
            position = chosen[role]
            other = taken.setdefault(position, role)
            if other != role:
                raise DataError(
                    f"{where}: column {columns[position]!r} is both {other} and {role}; name two "
                    "columns"
                )
    return chosen

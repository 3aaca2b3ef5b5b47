"""Test rows and candidates of a split that others made: (user, item) pairs in file order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from comet_rec.data.columns import Role
from comet_rec.data.database import connect, refusing
from comet_rec.data.ids import IdKind
from comet_rec.data.loading import load
from comet_rec.data.packed import compression_of, head_of, lines_of, verify
from comet_rec.data.sources import open_source, source_name
from comet_rec.errors import DataError

External = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs in the order of the file, by external id.

    Parameters
    ----------
    users, items : ndarray [R], int64 or object (of `str` or `uuid.UUID`)
    notes : tuple of str
        What reading did.
    """

    users: External
    items: External
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class WideCandidates:
    """What NCF's `.test.negative` holds: a test pair a line, and its negatives.

    Parameters
    ----------
    users, positives : ndarray [n], int64 or object (of `str`)
        The test pairs.
    candidate_users, candidates : ndarray [C], int64 or object (of `str`)
        Every negative, beside the user of its line.
    """

    users: External
    positives: External
    candidate_users: External
    candidates: External


def read_pairs(
    source: Any,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    user_kind: IdKind | None = None,
    item_kind: IdKind | None = None,
    skip_bad: int = 0,
    threads: int | None = None,
) -> Pairs:
    """Read the user and item columns of a file or frame.

    Parameters
    ----------
    source : path, DataFrame, Arrow table or sparse matrix
        As for `read`.
    user, item : str or int, optional
        Column names; common names are recognised when not given.
    user_kind, item_kind : {"int", "text", "uuid"}, optional
        Kinds of the ids of the log that the pairs belong to: a column of digits stays text
        beside a log whose ids are text. Decided from the values when not given.
    skip_bad : int
        Number of bad rows that may be skipped.
    threads : int, optional
        Number of threads; all cores when not given.

    Raises
    ------
    DataError
        When the source cannot be read as asked; one line.
    """
    asked: dict[Role, str | int | None] = {"user": user, "item": item}
    known: dict[Role, IdKind | None] = {"user": user_kind, "item": item_kind}
    fixed: dict[Role, IdKind] = {role: kind for role, kind in known.items() if kind is not None}
    with connect(threads) as con, refusing(source_name(source)):
        opened = open_source(con, source, asked)
        _, notes = load(con, opened, ("user", "item"), skip_bad, fixed)
        fetched = con.execute("SELECT u, i FROM log ORDER BY rowid").fetchnumpy()
    users, items = np.ma.getdata(fetched["u"]), np.ma.getdata(fetched["i"])
    return Pairs(users, items, tuple(notes))


def is_wide(path: str | PathLike[str]) -> bool:
    """Whether a file begins like NCF's `.test.negative`."""
    path = Path(path).expanduser()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        compression = compression_of(file.read(16))
    verify(path, str(path), compression)
    head, _ = head_of(path, str(path), compression)
    return re.match(rb"\s*\([^\t\n]*,[^\t\n]*\)\t", head.removeprefix(b"\xef\xbb\xbf")) is not None


def read_wide_candidates(
    path: str | PathLike[str],
    *,
    user_kind: IdKind | None = None,
    item_kind: IdKind | None = None,
) -> WideCandidates:
    """Read `(user,item)<tab>negative<tab>negative…` lines.

    Parameters
    ----------
    path : path
        The file, plain, gzip or zstd.
    user_kind, item_kind : {"int", "text", "uuid"}, optional
        As for `read_pairs`.

    Raises
    ------
    DataError
        When there is no such file or a line is of another form; one line.
    """
    name, path = str(path), Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{name}: no such file")
    with path.open("rb") as file:
        compression = compression_of(file.read(16))
    verify(path, name, compression)
    users: list[str] = []
    positives: list[str] = []
    negatives: list[list[str]] = []
    for number, line in enumerate(lines_of(path, name, compression), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: is not UTF-8; mend it") from error
        if not text:
            continue
        pair, *rest = text.split("\t")
        found = re.fullmatch(r"\(([^,]+),([^,]+)\)", pair.strip())
        if found is None or not all(rest):
            raise DataError(
                f"{name}, line {number}: is not (user,item) and negatives between tabs; mend it"
            )
        users.append(found[1].strip())
        positives.append(found[2].strip())
        negatives.append(rest)
    if not users:
        raise DataError(f"{name}: has no rows")
    flat = [item for line in negatives for item in line]
    user_ids = _typed(users, user_kind)
    item_ids = _typed(positives + flat, item_kind)
    repeated = np.repeat(user_ids, [len(line) for line in negatives])
    return WideCandidates(user_ids, item_ids[: len(users)], repeated, item_ids[len(users) :])


def _typed(texts: list[str], kind: IdKind | None) -> External:
    """Integers if every text survives text → int64 → text, UUIDs for a log of them, else texts."""
    values = np.empty(len(texts), dtype=object)
    if kind == "uuid":
        values[:] = [_uuid(text) for text in texts]
        return values
    if kind != "text" and all(re.fullmatch(r"-?[1-9]\d{0,18}|0", text) for text in texts):
        numbers = [int(text) for text in texts]
        if all(-(2**63) <= number < 2**63 for number in numbers):
            return np.array(numbers, dtype=np.int64)
    values[:] = texts
    return values


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise DataError(f"{text!r} is no UUID, and the ids of the log are") from None

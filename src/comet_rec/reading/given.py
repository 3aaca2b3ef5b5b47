"""Test items and candidates of one's own, read from files or frames; `data.given_split` splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from comet_rec.config import ProtocolConfig
from comet_rec.data.given_split import Pairs, given_split
from comet_rec.data.ids import IdKind
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.split import Split
from comet_rec.errors import DataError, InputError, NoColumnError
from comet_rec.reading.cautions import Remarks
from comet_rec.reading.columns import IDS, Role
from comet_rec.reading.database import connect, refusing
from comet_rec.reading.files import chunks, compression_of, regular_file
from comet_rec.reading.readers import load_rows, open_log, source_name
from comet_rec.reading.table import LogTable

Read = TypeVar("Read")


def given_test(
    interactions: Interactions,
    test: Any,
    candidates: Any = None,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    negatives: int = 99,
    seed: int = 0,
    ties: Literal["expected", "pessimistic"] = "expected",
    skip_bad: int = 0,
) -> Split:
    """Split by a test set of one's own: one item a user, such as what came after a point in time.

    Parameters
    ----------
    interactions : Interactions
        The training part. The latest row of each user with at least two is held out from it as
        the validation item.
    test : path, DataFrame or Arrow table
        One (user, item) row a user; users without a training row are left out and counted.
    candidates : path, DataFrame or Arrow table, optional
        (user, item) rows to rank beside each user's test item, or NCF's wide file. A user's other
        positives among them are dropped and counted. By default sampled as in `leave_one_out`.
    user, item : str or int, optional
        Column names in both; common names are recognised when not given.
    negatives, seed, ties
        As for `leave_one_out`; for the test items where no candidates are given.
    skip_bad : int
        Number of bad rows that may be skipped in each.

    Raises
    ------
    DataError
        When a source cannot be read, a test user occurs twice or has no candidate, a test pair is
        also a training row, or no user has two training rows to validate with.
    InputError
        When `interactions` is no log.
    """
    if not isinstance(interactions, Interactions):
        raise InputError(not_a_log(interactions, "given_test"))
    protocol = ProtocolConfig(negatives=negatives, seed=seed, ties=ties)
    rows = read_given(test, candidates, interactions, user=user, item=item, skip_bad=skip_bad)
    return given_split(interactions, *rows, protocol)


def read_given(
    test: Any,
    candidates: Any,
    log: Interactions,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    skip_bad: int = 0,
    or_common: bool = False,
) -> tuple[Pairs, Pairs | None]:
    """Read test rows, and candidates as rows or in NCF's wide form, with the ids of the log.

    `user` and `item` may be the columns of the log: with `or_common`, a file without these columns
    is read by common names.

    Raises
    ------
    DataError
        When a file cannot be read, or the wide file and the test file have different test pairs.
    """
    kinds: Any = {"user_kind": log.user_ids.kind, "item_kind": log.item_ids.kind}
    names = [{"user": user, "item": item}, *([{}] if or_common else [])]

    def rows(source: Any) -> Pairs:
        return first_named(partial(read_pairs, source, skip_bad=skip_bad, **kinds), names)

    held = rows(test)
    if candidates is None:
        return held, None
    if not (isinstance(candidates, (str, PathLike)) and is_wide(candidates)):
        return held, rows(candidates)
    wide: WideCandidates = read_wide_candidates(candidates, **kinds)
    ours = set(zip(held.users.tolist(), held.items.tolist(), strict=True))
    other = set(zip(wide.users.tolist(), wide.positives.tolist(), strict=True)) - ours
    if other:
        raise DataError(
            f"{candidates}: {len(other)} of its pairs, {sorted(map(str, other))[0]} for one, are "
            "not among the test rows; give the two files of one split"
        )
    return held, Pairs(wide.candidate_users, wide.candidates)


def first_named(read: Callable[..., Read], names: Sequence[Mapping[str, Any]]) -> Read:
    """Result of `read` with the first of these sets of column names that the source has.

    Raises
    ------
    NoColumnError
        The error of the first set, when the source has none of them.
    """
    missing: NoColumnError | None = None
    for columns in names:
        try:
            return read(**columns)
        except NoColumnError as error:
            missing = missing or error
    raise missing or NoColumnError("no names were given")


External = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class WideCandidates:
    """Content of NCF's `.test.negative`: one test pair for each line, and its negatives.

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
    remarks = Remarks()
    with connect(threads) as con, refusing(source_name(source)):
        name, parts = open_log(con, source, asked)
        load_rows(LogTable(con, name, parts, IDS, id_kinds=fixed), skip_bad, remarks)
        columns = con.execute("SELECT u, i FROM log ORDER BY rowid").fetchnumpy()
    users, items = map(np.ma.getdata, columns.values())
    return Pairs(users, items, tuple(remarks.notes))


def is_wide(path: str | PathLike[str]) -> bool:
    """Whether a file begins like NCF's `.test.negative`."""
    path = Path(path).expanduser()
    if not path.is_file():
        return False
    first = next(_lines(path, str(path)), b"")
    return re.match(rb"\s*\([^\t\n]*,[^\t\n]*\)\t", first.removeprefix(b"\xef\xbb\xbf")) is not None


def _lines(path: Path, name: str) -> Iterator[bytes]:
    """The lines of a file, unpacked."""
    with path.open("rb") as file:
        compression = compression_of(file.read(16))
    rest = b""
    for chunk in chunks(path, name, compression):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


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
    regular_file(str(path))
    users: list[str] = []
    positives: list[str] = []
    negatives: list[list[str]] = []
    numbers: list[int] = []
    for number, line in enumerate(_lines(path, name), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: is not UTF-8; fix it") from error
        if not text:
            continue
        pair, *rest = text.split("\t")
        found = re.fullmatch(r"\(([^,]+),([^,]+)\)", pair.strip())
        if found is None or not all(rest):
            raise DataError(
                f"{name}, line {number}: is not (user,item) and negatives between tabs; fix it"
            )
        users.append(found[1].strip())
        positives.append(found[2].strip())
        negatives.append(rest)
        numbers.append(number)
    if not users:
        raise DataError(f"{name}: has no rows")
    flat = [item for line in negatives for item in line]
    counts = [len(line) for line in negatives]
    user_ids = _typed(users, user_kind, name, numbers)
    of_items = [*numbers, *np.repeat(numbers, counts).tolist()]
    item_ids = _typed(positives + flat, item_kind, name, of_items)
    repeated = np.repeat(user_ids, counts)
    return WideCandidates(user_ids, item_ids[: len(users)], repeated, item_ids[len(users) :])


def _typed(texts: list[str], kind: IdKind | None, name: str, lines: list[int]) -> External:
    """Integers if every text survives text → int64 → text, UUIDs for a log of them, else texts.

    A log of integers, or of UUIDs, takes nothing else; `lines` are the texts' own.
    """
    values = np.empty(len(texts), dtype=object)
    of = {"int": _integer, "uuid": _uuid}.get(kind or "int")
    read: list[Any] = texts if of is None else [of(text) for text in texts]
    if None in read and kind is not None:
        at = read.index(None)
        what = "UUID" if kind == "uuid" else "plain integer"
        raise DataError(
            f"{name}, line {lines[at]}: {texts[at]!r} is no {what}, and the ids of the log are; "
            "fix it"
        )
    if of is _integer and None not in read:
        return np.array(read, dtype=np.int64)
    values[:] = texts if None in read else read
    return values


def _integer(text: str) -> int | None:
    if re.fullmatch(r"-?[1-9]\d{0,18}|0", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

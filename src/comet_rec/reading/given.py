"""Read test items and candidates that the caller gives as files or frames.

`data.given_split` makes the split from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

import numpy as np

from comet_rec.config import ProtocolConfig
from comet_rec.data.given_split import External, Pairs, given_split
from comet_rec.data.ids import IdKind
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.split import Split
from comet_rec.errors import DataError, InputError, NoColumnError
from comet_rec.reading.cautions import Remarks
from comet_rec.reading.columns import IDS, Role
from comet_rec.reading.database import connect
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
    """Split a log by a given test set with one item per user, such as a later interaction.

    Parameters
    ----------
    interactions : Interactions
        The training part. The latest row of each user with at least two rows is held out as the
        validation item.
    test : path, DataFrame or Arrow table
        One (user, item) row per user. Users without a training row are left out and counted.
    candidates : path, DataFrame or Arrow table, optional
        (user, item) rows: the items to rank together with each user's test item. A path may also
        be a file in NCF's `.test.negative` format. Candidates that are positives of their user are
        dropped and counted. By default candidates are sampled as in `leave_one_out`.
    user, item : str or int, optional
        Column names in both sources; common names are recognised by default.
    negatives, seed, ties
        As for `leave_one_out`. With `candidates`, nothing is sampled for the test items.
    skip_bad : int
        Number of bad rows that may be skipped in each source.

    Raises
    ------
    DataError
        When a source cannot be read, a test user occurs twice or has no candidate, a test pair is
        also a training row, or no user has two training rows for validation.
    InputError
        When `interactions` is not a log.
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
    """Read test rows and, unless `candidates` is None, candidate rows; return both.

    Candidates are (user, item) rows, or a file in NCF's `.test.negative` format. Ids get the types
    of the ids in `log`. `user` and `item` are column names; with `or_common`, a source without
    these columns is read by common column names.

    Raises
    ------
    DataError
        When a source cannot be read, or a `.test.negative` file has test pairs that `test` lacks.
    """
    kinds: dict[Role, IdKind] = {"user": log.user_ids.kind, "item": log.item_ids.kind}
    names = [{"user": user, "item": item}, *([{}] if or_common else [])]

    def rows(source: Any) -> Pairs:
        return first_named(partial(read_pairs, source, skip_bad=skip_bad, id_kinds=kinds), names)

    held = rows(test)
    if candidates is None:
        return held, None
    if not (isinstance(candidates, (str, PathLike)) and is_wide(candidates)):
        return held, rows(candidates)
    positives, negatives = read_wide_candidates(candidates, kinds)
    test_pairs = set(zip(held.users.tolist(), held.items.tolist(), strict=True))
    other = set(zip(positives.users.tolist(), positives.items.tolist(), strict=True)) - test_pairs
    if other:
        raise DataError(
            f"{candidates}: {len(other)} of its pairs, {sorted(map(str, other))[0]} for one, are "
            "not among the test rows; give the two files of one split"
        )
    return held, negatives


def first_named(read: Callable[..., Read], names: Sequence[Mapping[str, Any]]) -> Read:
    """Call `read` with each set of column names in turn; return the first result.

    Raises
    ------
    NoColumnError
        When the source lacks the columns of every set; the error is the one for the first set.
    """
    missing: NoColumnError | None = None
    for columns in names:
        try:
            return read(**columns)
        except NoColumnError as error:
            missing = missing or error
    raise missing or NoColumnError("no names were given")


def read_pairs(
    source: Any,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    id_kinds: Mapping[Role, IdKind] | None = None,
    skip_bad: int = 0,
) -> Pairs:
    """Read the user and item columns of a file or frame.

    Parameters
    ----------
    source : path, DataFrame, Arrow table or sparse matrix
        As for `read`.
    user, item : str or int, optional
        Column names; common names are recognised by default.
    id_kinds : mapping of role to kind, optional
        Types of user ids and item ids ("int", "text" or "uuid") in the log of the pairs. A column
        of digits stays text if the log's ids are text. By default the values decide.
    skip_bad : int
        Number of bad rows that may be skipped.

    Raises
    ------
    DataError
        When the source cannot be read; the message is one line.
    """
    asked: dict[Role, str | int | None] = {"user": user, "item": item}
    remarks = Remarks()
    with connect(source_name(source)) as con:
        name, parts = open_log(con, source, asked)
        load_rows(LogTable(con, name, parts, IDS, id_kinds=id_kinds or {}), skip_bad, remarks)
        columns = con.execute("SELECT u, i FROM log ORDER BY rowid").fetchnumpy()
    users, items = map(np.ma.getdata, columns.values())
    return Pairs(users, items, tuple(remarks.notes))


def is_wide(path: str | PathLike[str]) -> bool:
    """Whether a file has NCF's `.test.negative` format: it starts with `(user,item)` and a tab."""
    path = Path(path).expanduser()
    if not path.is_file():
        return False
    first = next(_lines(path, str(path)), b"")
    return re.match(rb"\s*\([^\t\n]*,[^\t\n]*\)\t", first.removeprefix(b"\xef\xbb\xbf")) is not None


def _lines(path: Path, name: str) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked if it is compressed."""
    with path.open("rb") as file:
        compression = compression_of(file.read(16))
    rest = b""
    for chunk in chunks(path, name, compression):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def read_wide_candidates(
    path: str | PathLike[str], id_kinds: Mapping[Role, IdKind] | None = None
) -> tuple[Pairs, Pairs]:
    """Read a file in NCF's `.test.negative` format; return the test pairs and the negatives.

    Each line is `(user,item)<tab>negative<tab>negative…`. A negative becomes a pair with the user
    of its line.

    Parameters
    ----------
    path : path
        The file, plain or compressed.
    id_kinds : mapping of role to kind, optional
        As for `read_pairs`.

    Raises
    ------
    DataError
        When there is no such file or a line has another form; the message is one line.
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
        match = re.fullmatch(r"\(([^,]+),([^,]+)\)", pair.strip())
        if match is None or not all(rest):
            raise DataError(
                f"{name}, line {number}: is not (user,item) and tab-separated negatives; fix it"
            )
        users.append(match[1].strip())
        positives.append(match[2].strip())
        negatives.append(rest)
        numbers.append(number)
    if not users:
        raise DataError(f"{name}: has no rows")
    counts = [len(line) for line in negatives]
    kinds = id_kinds or {}
    user_ids = _typed(users, kinds.get("user"), name, numbers)
    item_numbers = [*numbers, *np.repeat(numbers, counts).tolist()]
    item_ids = _typed([*positives, *chain(*negatives)], kinds.get("item"), name, item_numbers)
    pairs = Pairs(user_ids, item_ids[: len(users)])
    return pairs, Pairs(np.repeat(user_ids, counts), item_ids[len(users) :])


def _typed(texts: list[str], kind: IdKind | None, name: str, lines: list[int]) -> External:
    """Convert ids in text to the type of the log's ids, `kind`.

    Without `kind`, they become int64 if all are plain integers, else they stay text. An id that is
    not of type `kind` is an error; `lines` has the line number of each text for the message.
    """
    parse = {"int": _integer, "uuid": _uuid}.get(kind or "int")
    values: list[Any] = texts if parse is None else [parse(text) for text in texts]
    if None in values:
        if kind is not None:
            place = values.index(None)
            expected = "UUID" if kind == "uuid" else "plain integer"
            raise DataError(
                f"{name}, line {lines[place]}: {texts[place]!r} is no {expected}, unlike the "
                "ids of the log; fix it"
            )
        values = texts
    elif parse is _integer:
        return np.array(values, dtype=np.int64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _integer(text: str) -> int | None:
    """The int64 that plain digits stand for; None for any other text."""
    if re.fullmatch(r"-?[1-9]\d{0,18}|0", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return None


def _uuid(text: str) -> UUID | None:
    """The UUID that a text stands for; None for any other text."""
    try:
        return UUID(text)
    except ValueError:
        return None

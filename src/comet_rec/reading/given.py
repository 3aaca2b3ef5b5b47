"""Test items and candidates of your own, read from files or frames; `data.given_split` splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal, TypeVar

from comet_rec.config import ProtocolConfig
from comet_rec.data.given_split import Pairs, given_split
from comet_rec.data.interactions import Interactions, not_a_log
from comet_rec.data.split import Split
from comet_rec.errors import DataError, InputError, NoColumnError
from comet_rec.reading.pairs import WideCandidates, is_wide, read_pairs, read_wide_candidates

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

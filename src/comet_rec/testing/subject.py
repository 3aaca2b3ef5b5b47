"""The recommender under test, the logs that it is trained on, and helpers of the checks."""

from __future__ import annotations

import copy
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.reading.readers import read

Function = TypeVar("Function", bound=Callable[..., None])

FUNCTIONS: list[Callable[[Subject], None]] = []
"""All checks."""

USERS, ITEMS, ROWS_PER_USER = 48, 32, 10


class NotOffered(Exception):
    """The recommender says that it does not offer what a check needs."""


def check(function: Function) -> Function:
    """Register a check."""
    FUNCTIONS.append(function)
    return function


class Subject:
    """A recommender under test.

    Parameters
    ----------
    model : object
        Unfitted.
    load : callable
        Loads what ``model.save`` wrote.
    """

    def __init__(self, model: Any, load: Callable[[Any], Any]) -> None:
        self.model = model
        self.load = load

    def fit(self, log: Any) -> Any:
        """A new copy of the recommender, trained on `log`."""
        model = copy.deepcopy(self.model)
        return model.fit(log)

    @cached_property
    def fitted(self) -> Any:
        """A copy that was trained on `planted`; checks must not change it."""
        return self.fit(self.planted)

    @cached_property
    def planted(self) -> Interactions:
        """Log with two kinds of users and items: each user took 10 of the 16 items of one kind."""
        return log_of(*planted_columns())

    @cached_property
    def users(self) -> list[str]:
        """Ids of all users of the planted log."""
        return [str(user) for user in self.planted.user_ids.values]

    @cached_property
    def items(self) -> list[str]:
        """Ids of all items of the planted log."""
        return [str(item) for item in self.planted.item_ids.values]

    def seen(self, user: str) -> list[str]:
        """Items of a user in the planted log, oldest first."""
        return seen(self.planted, user)


def planted_columns() -> tuple[list[str], list[str], list[int]]:
    """Users, items and times of the planted log, row by row."""
    rng = np.random.default_rng(2020)
    users: list[str] = []
    items: list[str] = []
    times: list[int] = []
    for user in range(USERS):
        items_of_kind = np.arange(user % 2, ITEMS, 2)
        for item in rng.permutation(items_of_kind)[:ROWS_PER_USER]:
            users.append(f"u{user:02}")
            items.append(f"i{item:02}")
            times.append(1_600_000_000 + len(times))
    return users, items, times


def log_of(users: Any, items: Any, times: Any) -> Interactions:
    """Log with these columns, each a list or an array; `times` None for none."""
    columns: dict[str, Any] = {"user_id": np.array(users), "item_id": np.array(items)}
    if times is not None:
        columns["timestamp"] = np.array(times)
    return read(columns)


def seen(log: Interactions, user: Any) -> list[Any]:
    """Items of a user, oldest first."""
    index = int(np.flatnonzero(log.user_ids.values == user)[0])
    rows = slice(log.user_starts[index], log.user_starts[index + 1])
    return list(log.item_ids.external(log.items[rows]).tolist())


def kind(item: str) -> int:
    """Kind of an item or user of the planted log: 0 or 1."""
    return int(item[1:]) % 2


def by_user(table: Mapping[str, Any]) -> dict[Any, list[Any]]:
    """Items of each user's list, best first."""
    found: dict[Any, list[Any]] = {}
    for user, item in zip(table["user_id"], table["item_id"], strict=True):
        found.setdefault(user, []).append(item)
    return found


def equal(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float = 0.0) -> None:
    """Assert that two tables of lists are equal; scores may differ by `tolerance`.

    With a tolerance, neighbours in a list whose scores are that close may change places, and the
    last item of a list may be another one of its score.
    """
    users = np.asarray(one["user_id"], dtype=object)
    assert list(users) == list(other["user_id"]), "other users, or lists of other lengths"
    scores = np.asarray(one["score"]), np.asarray(other["score"])
    np.testing.assert_allclose(*scores, rtol=tolerance, atol=tolerance)
    items = list(one["item_id"]), list(other["item_id"])
    if tolerance == 0:
        assert items[0] == items[1], "other items, or another order"
    reach = 3 * tolerance * (1 + np.abs(scores[0]))
    for place in range(len(users)):
        near = [
            n for n in (place - 1, place + 1)
            if not 0 <= n < len(users) or users[n] != users[place]
            or abs(scores[0][n] - scores[0][place]) <= reach[place]
        ]  # fmt: skip
        # The first place of a list has no neighbour above, which does not make it uncertain.
        first = place == 0 or users[place - 1] != users[place]
        certain = near == [place - 1] if first else not near
        assert not certain or items[0][place] == items[1][place], f"other items in row {place}"


@contextmanager
def offered() -> Iterator[None]:
    """Context in which a refusal of the recommender means that it does not offer a feature."""
    try:
        yield
    except (NotImplementedError, ConfigError) as refusal:
        raise NotOffered(str(refusal)) from None


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """Assert that the block raises an error for a wrong argument, whose text is one line.

    The error is a ValueError, TypeError, KeyError or IndexError, and names one of `words`.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError) as error:
        text = str(error)
        assert text.strip(), "the error has no text"
        assert_one_line(error)
        if words:
            assert any(word in text for word in words), f"{text!r} names none of {words}"
        return
    raise AssertionError("nothing was refused")


def assert_one_line(error: Exception) -> None:
    """Assert that the text of an error is one line."""
    assert "\n" not in str(error), f"the error has several lines: {str(error)!r}"


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of `function` in a new process, which gets the arguments as pickles ("spawn")."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply_async(function, arguments).get(timeout=120)


def in_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of `function` in a forked process, which has the memory of this one."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise NotOffered("this system cannot fork")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(function(*arguments)))
    process.start()
    theirs.close()  # so that a process that dies ends the wait
    try:
        assert ours.poll(120), "no answer in two minutes"
        return ours.recv()
    finally:
        process.kill()
        process.join()


def lists_of_loaded(load: Callable[[Any], Any], folder: str) -> dict[str, Any]:
    """Lists of a saved recommender, for a process of its own."""
    return plain(load(folder).recommend(k=5))


def lists_of_model(model: Any) -> dict[str, Any]:
    """Lists of a recommender, for a process of its own."""
    return plain(model.recommend(k=5))


def one_below_the_other(tables: Sequence[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """The rows of all tables in one."""
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


def plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a table as lists, which every process can send."""
    names = ("user_id", "item_id", "score", "rank")
    return {name: np.asarray(table[name]).tolist() for name in names}


@contextmanager
def saved(model: Any) -> Iterator[Path]:
    """Folder of a saved recommender, removed at the end."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        with offered():
            model.save(folder)
        yield folder

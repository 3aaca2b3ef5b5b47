"""Errors and warnings for the user, and functions that build their messages."""

import difflib
import json
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from comet_rec.text import printable

_SHELL_NAMES = {"min_user_interactions": "min-user", "min_item_interactions": "min-item"}
_NEAR = 0.7
"""Smallest similarity of a suggested name: `itme` and `item` have 0.75, `title` and `time` 0.67."""
_LISTED = 40
"""Largest number of names that a message lists."""
Reader = Literal["python", "shell", "http"]
_reader: Reader = "python"


@contextmanager
def messages_for(reader: Reader) -> Iterator[None]:
    """Inside the ``with`` block, error messages name arguments as their reader writes them.

    For example, `skip_bad=3` is `--skip-bad 3` in the shell and `"skip_bad": 3` over HTTP.
    """
    global _reader
    before, _reader = _reader, reader
    try:
        yield
    finally:
        _reader = before


def argument(name: str, value: object = "…") -> str:
    """An argument as text for a message: `skip_bad=3` in Python, `--skip-bad 3` in the shell."""
    if _reader == "http":
        return f'"{name}": {value if value == "…" else json.dumps(value, default=str)}'
    if _reader == "python":
        return f"{name}={value if value == '…' else repr(value)}"
    if isinstance(value, dict):  # {"event": ["cart"]} is written --event event=cart
        words = [f"{key}={','.join(map(str, items))}" for key, items in value.items()]
        return f"--{name.removesuffix('s')} {' '.join(map(shlex.quote, words))}"
    option = "--" + _SHELL_NAMES.get(name, name.replace("_", "-"))
    if value is True:
        return option
    if value is False:
        return f"--no-{option[2:]}"
    if value == "…":
        return f"{option} {name.upper()}"
    return f"{option} {shlex.quote(str(value))}"


def by_reader(*, python: str, shell: str) -> str:
    """The text `python` for callers from Python, `shell` for users of the command line."""
    return shell if _reader == "shell" else python


def did_you_mean(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """End of an error message about the unknown `name`: a similar valid name, or else all of them.

    Case and leading dashes are ignored. The beginning of a valid name counts as similar to it.
    `prefix` is shown in front of each valid name.

    Examples
    --------
    >>> did_you_mean("raitng", ["user", "item", "rating"])
    "did you mean 'rating'?"
    >>> did_you_mean("foo", ["user", "item", "rating"])
    'known: user, item, rating'
    """
    names = list(valid)
    # In reverse, so that the first of two names that differ only in case is kept.
    plain = {each.lstrip("-").lower(): each for each in reversed(names)}
    unknown = name.lstrip("-").lower()
    likeness = {each: _likeness(unknown, each) for each in plain}
    # The first letter is seldom mistyped: it decides between equally similar names.
    nearest = max(plain, key=lambda each: (likeness[each], each[:1] == unknown[:1]), default="")
    if nearest and likeness[nearest] >= _NEAR:
        return f"did you mean {prefix + plain[nearest]!r}?"
    listed = ", ".join(prefix + each for each in names[:_LISTED])
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"known: {listed}{more}"


def _likeness(unknown: str, name: str) -> float:
    """Similarity of two names: the share of letters they have in common.

    It is 0.99 if `unknown` is a prefix of `name`.
    """
    if len(unknown) > 2 and name.startswith(unknown):
        return 1.0 if name == unknown else 0.99
    # An upper bound from the lengths alone saves a slow comparison with a very long text.
    bound = 2 * min(len(unknown), len(name)) / max(len(unknown) + len(name), 1)
    return 0.0 if bound < _NEAR else difflib.SequenceMatcher(None, name, unknown).ratio()


class CometError(Exception):
    """Base of all errors that this library raises on purpose.

    The text is one line: what is wrong, where, and how to fix it.
    """

    def __str__(self) -> str:
        # Ids and file names in the message may hold control characters. `Exception.__str__` is
        # called because `KeyError.__str__` would return a repr.
        return printable(Exception.__str__(self))


class CometWarning(UserWarning):
    """Warning that the library did something that the user may not expect; the text is one line."""

    def __str__(self) -> str:
        return printable(Exception.__str__(self))


class InputError(CometError, ValueError):
    """The user's input is at fault (exit status 2)."""


class DataError(InputError):
    """A log, split or candidate file cannot be read as asked."""


class NoColumnError(DataError):
    """A named column does not exist, or no column could be recognised by its name."""


class ConfigError(InputError):
    """A setting is unknown or out of range."""


class UnknownIdError(InputError, KeyError):
    """An id does not occur in the log that the model was trained on."""


class UnknownNameError(InputError, KeyError):
    """A report has no metric, or a table has no column, with the given name."""


class ArtefactError(InputError):
    """A run directory is missing, incomplete, damaged or of another schema."""


class DamagedError(ArtefactError):
    """A file of a stored run is missing, or its content has changed."""


class NotFittedError(InputError):
    """A model that was not fitted was asked for results."""


class NonFiniteError(CometError, ArithmeticError):
    """A loss, parameter or score is NaN or infinite."""


class TrainingInterrupted(CometError):
    """Training was stopped by the user; its state is saved (exit status 130)."""

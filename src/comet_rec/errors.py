"""Errors and warnings whose text is written for the user, and exit statuses."""

import difflib
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from comet_rec.text import printable

_SHELL_NAMES = {"min_user_interactions": "min-user", "min_item_interactions": "min-item"}
_NEAR = 0.7
"""Likeness from which on a name is suggested: `itme` for `item` has .75, `title` for `time` .67."""
_LISTED = 40
"""Names that a message lists at most."""
_in_shell = False


@contextmanager
def shell_messages() -> Iterator[None]:
    """Let messages name shell options (`--skip-bad 3`) instead of Python arguments."""
    global _in_shell
    before, _in_shell = _in_shell, True
    try:
        yield
    finally:
        _in_shell = before


def argument(name: str, value: object = "…") -> str:
    """How a reader passes an argument: `skip_bad=3` in Python, `--skip-bad 3` in the shell.

    Texts are quoted as each of the two needs it.
    """
    if not _in_shell:
        return f"{name}={value if value == '…' else repr(value)}"
    option = "--" + _SHELL_NAMES.get(name, name.replace("_", "-"))
    if value is True:
        return option
    if value is False:
        return f"--no-{option[2:]}"
    if value == "…":
        return f"{option} {name.upper()}"
    return f"{option} {shlex.quote(str(value))}"


def by_reader(*, python: str, shell: str) -> str:
    """Words for a reader in Python, or in the shell, where an argument's name does not do."""
    return shell if _in_shell else python


def did_you_mean(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """The name that was meant, where one is near, else all valid ones: the end of a message.

    Case and leading dashes do not count. A name that begins another one is near to it. `prefix`
    is shown in front of each valid name.

    Examples
    --------
    >>> did_you_mean("raitng", ["user", "item", "rating"])
    "did you mean 'rating'?"
    >>> did_you_mean("foo", ["user", "item", "rating"])
    'known: user, item, rating'
    """
    names = list(valid)
    # The first of two that differ in case alone.
    plain = {each.lstrip("-").lower(): each for each in reversed(names)}
    wanted = name.lstrip("-").lower()
    likeness = {each: _likeness(wanted, each) for each in plain}
    # Of equally near ones that with the same first letter, which is seldom mistyped.
    near = max(plain, key=lambda each: (likeness[each], each[:1] == wanted[:1]), default="")
    if near and likeness[near] >= _NEAR:
        return f"did you mean {prefix + plain[near]!r}?"
    listed = ", ".join(prefix + each for each in names[:_LISTED])
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"known: {listed}{more}"


def _likeness(wanted: str, name: str) -> float:
    """Share of letters that two names have in common; 0.99 where one begins the other."""
    if len(wanted) > 2 and name.startswith(wanted):
        return 1.0 if name == wanted else 0.99
    # No more than this is possible: nothing is compared with a text of a megabyte.
    most = 2 * min(len(wanted), len(name)) / max(len(wanted) + len(name), 1)
    return 0.0 if most < _NEAR else difflib.SequenceMatcher(None, name, wanted).ratio()


class CometError(Exception):
    """Base of every deliberate error; its text is one line: what, where, what to do."""

    def __str__(self) -> str:
        # Ids and file names are parts of messages. (A KeyError's own text would be a repr.)
        return printable(Exception.__str__(self))


class CometWarning(UserWarning):
    """Something was done otherwise than one would expect; one line, like an error's."""

    def __str__(self) -> str:
        return printable(Exception.__str__(self))


class InputError(CometError, ValueError):
    """The user's input is at fault (exit status 2)."""


class DataError(InputError):
    """A log, split or candidate file cannot be read as asked."""


class NoColumnError(DataError):
    """A column was named that is not there, or none could be recognised."""


class ConfigError(InputError):
    """A setting is unknown or out of range."""


class UnknownIdError(InputError, KeyError):
    """An id does not occur in the log that the model was trained on."""


class UnknownNameError(InputError, KeyError):
    """A figure of a report, or a column of a table, that is not there."""


class ArtefactError(InputError):
    """A run directory is missing, incomplete, damaged or of another schema."""


class DamagedError(ArtefactError):
    """A file of a run is missing, or is not the one that was written."""


class NotFittedError(InputError):
    """A model was asked for results before `fit`."""


class NonFiniteError(CometError, ArithmeticError):
    """A loss, parameter or score is NaN or infinite."""


class TrainingInterrupted(CometError):
    """Training was stopped by the user; its state is saved (exit status 130)."""

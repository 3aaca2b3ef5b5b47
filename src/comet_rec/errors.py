"""Errors and warnings whose text is written for the user, and exit statuses."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

_SHELL_NAMES = {"min_user_interactions": "min-user", "min_item_interactions": "min-item"}
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
    if value == "…":
        return f"{option} {name.upper()}"
    return f"{option} {shlex.quote(str(value))}"


class CometError(Exception):
    """Base of every deliberate error; its text is one line: what, where, what to do."""


class CometWarning(UserWarning):
    """Something was done otherwise than one would expect; one line, like an error's."""


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

    __str__ = Exception.__str__  # KeyError would print the repr


class UnknownNameError(InputError, KeyError):
    """A figure of a report, or a column of a table, that is not there."""

    __str__ = Exception.__str__


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

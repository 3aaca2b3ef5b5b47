"""Errors and warnings whose text is written for the user, and exit statuses."""


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


class ArtefactError(InputError):
    """A run directory is missing, incomplete, damaged or of another schema."""


class NotFittedError(InputError):
    """A model was asked for results before `fit`."""


class NonFiniteError(CometError, ArithmeticError):
    """A loss, parameter or score is NaN or infinite."""


class TrainingInterrupted(CometError):
    """Training was stopped by the user; its state is saved (exit status 130)."""

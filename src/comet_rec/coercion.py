"""Values of settings: from text or TOML to their declared type, their ranges, and back."""

from __future__ import annotations

import json
import math
import numbers
import types
from typing import Any, Literal, Union, get_args, get_origin

from comet_rec.errors import ConfigError
from comet_rec.text import shortened

MOST_THREADS = 1024
"""Each is started, needed or not: a mistyped number would stop the machine."""
LARGEST = 10**20
"""Integers from here on are slips: they would fail as an array's size, or as a float, later."""


def coerce(key: str, value: Any, hint: Any) -> Any:
    """Value of a setting in its declared type; text is parsed.

    Raises
    ------
    ConfigError
        When the value does not fit the type.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or value == "none":
            return None
        return coerce(key, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value not in args:
            known = ", ".join(map(repr, args))
            raise ConfigError(f"{key} = {_told(value)}: must be one of {known}")
        return value
    if origin is tuple and not isinstance(value, (str, list, tuple)):
        raise ConfigError(f"{key} = {_told(value)}: must be a list, e.g. {key}=[1, 8]")
    if origin is tuple:
        parts = value.strip("[]() ").split(",") if isinstance(value, str) else list(value)
        return tuple(coerce(key, p, args[0]) for p in parts if p != "")
    try:
        if hint is bool:
            return _boolean(value)
        # By its text, so that numpy's are told without importing numpy.
        if hint in (int, float) and str(value) in ("True", "False"):
            raise ValueError
        if hint is int and not isinstance(value, str) and int(value) != value:
            raise ValueError
        found = hint(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{key} = {_told(value)}: must be {_type_name(hint)}") from None
    if hint is int and abs(found) >= LARGEST:
        raise ConfigError(f"{key} = {_told(value)}: is too large; nothing is of that size")
    return found


def _told(value: Any) -> str:
    """A value as a message shows it, however long it is."""
    return repr(shortened(value)) if isinstance(value, str) else shortened(value)


def _boolean(value: Any) -> bool:
    words = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() in words:
        return words[str(value).lower()]
    raise ValueError


def _type_name(hint: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "text")


def literal(value: Any) -> str:
    """A setting's value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return '"none"'
    if isinstance(value, tuple):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or numpy."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive(config: Any, room: str, *names: str) -> None:
    """Refuse settings that are not above zero."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"{room}.{name} = {value}: must be above 0, and finite")


def not_negative(config: Any, room: str, *names: str) -> None:
    """Refuse settings below zero."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(
                f"{room}.{name} = {getattr(config, name)}: must not be below 0, and finite"
            )


def share(config: Any, room: str, *names: str) -> None:
    """Refuse settings outside [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{room}.{name} = {getattr(config, name)}: must lie in [0, 1)")

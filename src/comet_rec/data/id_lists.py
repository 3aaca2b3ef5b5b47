"""Checks of arguments that hold ids: a list of ids, two columns, or one history for each user."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.nearest import shown
from comet_rec.data.tables import Table
from comet_rec.errors import InputError

IdList = list[Any] | npt.NDArray[Any]


def id_list(given: Any, what: str, *, ordered: bool = True) -> IdList:
    """A flat list of ids, from a list, array, Series, Index, Arrow array or any iterable.

    Other arguments are refused with a message that says how to fix the call.

    Parameters
    ----------
    given
        The argument of the caller.
    what : str
        Name of the argument, for messages.
    ordered : bool
        Whether the order of the ids matters; if so, a set is refused.

    Raises
    ------
    InputError
        For another type, such as a text, a frame or a dict.
    """
    if _is_frame(given):
        raise InputError(
            f"{what}: a {type(given).__name__} is no list of ids; give one column, such as "
            'frame["user_id"]'
        )
    if isinstance(given, Mapping):
        raise InputError(
            f"{what}: a {type(given).__name__} is no list of ids; give its keys or values"
        )
    if ordered and isinstance(given, (set, frozenset)):
        raise InputError(f"{what}: a set has no order; give a list, such as sorted(…) of it")
    if _is_single(given):
        raise InputError(f"{what}: {shown(given)} is no list of ids; give {_in_a_list(given)}")
    listed = _as_array(given)
    if listed is None:
        return list(given)
    if listed.ndim != 1:
        raise InputError(
            f"{what}: an array of shape {listed.shape} is no list of ids; give one column, such "
            "as array[:, 0]"
        )
    return listed


def history_lists(given: Any) -> list[IdList]:
    """Histories of several users as a list with one flat list of ids for each user.

    The ids of a history must be in time order, so a set is refused.

    Raises
    ------
    InputError
        For another type, such as one flat list.
    """
    remedy = "give a list of lists of item ids"
    if _is_frame(given) or isinstance(given, (Mapping, set, frozenset)):
        raise InputError(f"histories: a {type(given).__name__} is no list of histories; {remedy}")
    if _is_single(given):
        raise InputError(f"histories: {shown(given)} is no list of histories; {remedy}")
    histories = []
    for place, history in enumerate(given):
        # A list of Arrow or polars holds a typed array; converting it to a Python list would lose
        # the type.
        history = getattr(history, "values", history) if hasattr(history, "as_py") else history
        if _is_single(history):
            raise InputError(
                f"histories: {shown(history)} (place {place}) is no history; {remedy}, such as "
                f"{_in_a_list([history])}"
            )
        histories.append(id_list(history, f"history {place}"))
    return histories


def id_columns(given: Any, what: str, names: tuple[str, str]) -> tuple[IdList, IdList]:
    """Two columns of ids, from a frame, an Arrow table, a `Table` or a dict of columns.

    A column may also be named with "_id" at its end. A frame of exactly two columns with other
    names has them in the order of `names`.

    Parameters
    ----------
    given
        The argument of the caller.
    what : str
        Name of the argument, for messages.
    names : pair of str
        Names of the two columns, such as ``("user", "item")``.

    Raises
    ------
    InputError
        For another type, for missing columns, or for columns of different lengths.
    """
    wanted = " and ".join(f"{name}_id" if name in ("user", "item") else name for name in names)
    given, columns = with_columns(given, what, f"the columns {wanted}")
    found = chosen_columns(columns, names)
    if found is None:
        raise InputError(f"{what}: needs the columns {wanted}; name them so")
    first, second = (
        id_list(given[name], f"{what}, column {shown(name)}", ordered=True) for name in found
    )
    if len(first) != len(second):
        raise InputError(
            f"{what}: {len(first)} values in column {shown(found[0])}, {len(second)} in column "
            f"{shown(found[1])}; give one of each per row"
        )
    return first, second


def with_columns(given: Any, what: str, wanted: str) -> tuple[Any, list[Any]]:
    """A frame, an Arrow table, a `Table`, a structured array or a dict, and its column names.

    Raises
    ------
    InputError
        For another type; `what` is the argument's name, and `wanted` the columns that it needs.
    """
    if hasattr(given, "collect_schema") and hasattr(given, "collect"):  # a polars LazyFrame
        given = given.collect()
    if not _is_frame(given) and not isinstance(given, Mapping):
        raise InputError(
            f"{what}: {shown(given)} has no columns; give a frame, or a dict of lists, with "
            f"{wanted}"
        )
    return given, _column_names(given)


def chosen_columns(columns: list[Any], names: tuple[str, str]) -> tuple[Any, Any] | None:
    """The columns that `names` mean, as `id_columns` describes; None if they are not there."""
    spellings = [[c for c in columns if c in (name, f"{name}_id")] for name in names]
    if all(len(found) == 1 for found in spellings):
        return spellings[0][0], spellings[1][0]
    if len(columns) == 2 and not any(spellings):
        return columns[0], columns[1]
    return None


def _column_names(given: Any) -> list[Any]:
    """Names of the columns of a frame, a `Table`, a structured array or a dict."""
    if isinstance(given, np.ndarray):
        return list(given.dtype.names or ())
    if isinstance(given, (Mapping, Table)):
        return list(given.keys())
    if hasattr(type(given), "column_names"):  # an Arrow table, whose `columns` are arrays
        return list(given.column_names)
    return list(given.columns)


def _is_frame(given: Any) -> bool:
    """Whether an argument is a data frame, a `Table` or a structured array."""
    # Ask the class: on an instance, some libraries compute the columns and warn.
    if hasattr(type(given), "columns") or hasattr(type(given), "column_names"):
        return True
    if isinstance(given, Table):
        return True
    return isinstance(given, np.ndarray) and given.dtype.names is not None


def _is_single(given: Any) -> bool:
    """Whether an argument is a single value: a text, a number, a 0-dimensional array or None."""
    if isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(given, Iterable):
        return True
    return getattr(given, "ndim", 1) == 0


def _in_a_list(given: Any) -> str:
    """How to write a single value as a list, for a hint, e.g. ``[7]``."""
    if isinstance(given, list):
        return f"[{_in_a_list(given[0])}]"
    if isinstance(given, (str, int, float, np.generic, np.ndarray, uuid.UUID)):
        return f"[{shown(given)}]"
    return "[]" if given is None else "a list"


def _as_array(given: Any) -> npt.NDArray[Any] | None:
    """Array of the values of an array or Series, in its own type; None for other objects."""
    if isinstance(given, np.ma.MaskedArray) or not hasattr(given, "__array__"):
        return None
    try:
        # `to_numpy` keeps text as objects. In numpy's fixed-width text, one long id would make
        # every entry as long.
        if hasattr(given, "to_list") and hasattr(given, "to_numpy"):
            return np.asarray(given.to_numpy())
        return np.asarray(given)
    except Exception:  # each library has its own error for a type that numpy lacks (bfloat16)
        return None

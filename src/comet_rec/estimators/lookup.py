"""Indices of the ids that a caller passes, and the error for ids that are not in the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.data.id_lists import IdList, id_list
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.data.nearest import nearest, shown
from comet_rec.errors import UnknownIdError, argument
from comet_rec.estimators.rules import Rules

Int64 = npt.NDArray[np.int64]


def known(ids: Ids, values: Iterable[Any], role: str) -> Int64:
    """Convert user or item ids, as `role` says, to indices; every id must be in the log.

    Raises
    ------
    UnknownIdError
        When an id is not in the log.
    """
    argument_name = f"{role}s"
    stored, indices = ids.lookup(id_list(values, argument_name), argument_name)
    missing = indices < 0
    if missing.any():
        unknown = ids.as_external(stored[missing])
        raise unknown_id(ids, unknown, len(indices), role, policies=False)
    return np.asarray(indices)


def history(log: Interactions, items: IdList, place: int, rules: Rules) -> Int64:
    """Item indices of one history, without repetitions, in the order of first occurrence.

    `place` is the position of the history in the request, for errors.
    """
    stored, indices = log.item_ids.lookup(items, f"history {place}")
    missing = indices < 0
    if missing.any() and rules.unknown == "error":
        unknown_items = log.item_ids.as_external(stored[missing])
        raise unknown_id(log.item_ids, unknown_items, len(indices), "item", f" in history {place}")
    return distinct(indices[~missing])


def distinct(items: Int64) -> Int64:
    """Items without repetitions, in the order of first occurrence."""
    return np.array(list(dict.fromkeys(items.tolist())), dtype=np.int64)


def unknown_id(
    ids: Ids, missing: npt.NDArray[Any], asked: int, role: str, where: str = "", *,
    policies: bool = True,
) -> UnknownIdError:  # fmt: skip
    """Error for ids that are not in the log; it suggests the id nearest to the first of them.

    With `policies`, the error also names the values of `unknown` that allow such ids.
    """
    first = missing[:1].tolist()[0]
    near = nearest(ids, first)
    what = f"unknown {role} {shown(first)}{where} ({len(missing)} of {asked} unknown)"
    hint = f"the ids of the log are {ids.in_words}" if near is None else f"did you mean {near!r}?"
    if policies:
        ways = " or ".join(argument("unknown", way) for way in ("skip", "popular"))
        hint += f" ({ways} allows unknown ids)"
    return UnknownIdError(f"{what}; {hint}")

"""Rules of lists: the arguments of `recommend`, checked, and what they mean for one log."""

from __future__ import annotations

import json
import numbers
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from comet_rec.config import is_whole
from comet_rec.config import unknown as unknown_word
from comet_rec.data.id_lists import IdList, id_columns, id_list
from comet_rec.data.ids import is_missing, unwrapped
from comet_rec.data.interactions import Interactions, row_places, row_starts
from comet_rec.data.nearest import shown
from comet_rec.errors import ConfigError, InputError, by_reader, did_you_mean

Unknown = Literal["error", "skip", "popular"]
Int64 = npt.NDArray[np.int64]
Rows = tuple[Int64, Int64]
"""(query, item) pairs: the position of a user in the request [M], ascending, and the item [M]."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which items a list may hold, and how many; see `Estimator.recommend` for the fields."""

    k: int = 10
    include_seen: bool = False
    allow: Iterable[Any] | None = None
    block: Iterable[Any] | None = None
    allow_pairs: Any = None
    block_pairs: Any = None
    groups: Any = None
    allow_groups: Iterable[Any] | None = None
    block_groups: Iterable[Any] | None = None
    per_group: int | None = None
    unknown: Unknown = "error"
    diversify: float = 0.0

    def __post_init__(self) -> None:
        # Ids are kept as lists: an iterator works only once.
        for name in ("allow", "block", "allow_groups", "block_groups"):
            if getattr(self, name) is not None:
                self._set(name, id_list(getattr(self, name), name, ordered=False))
        for name in ("allow_pairs", "block_pairs"):
            if getattr(self, name) is not None:
                columns = id_columns(getattr(self, name), name, ("user", "item"))
                self._set(name, columns)
        if not is_whole(self.k) or self.k < 1:
            raise InputError(f"k = {self.k!r}: must be a whole number above 0")
        if not isinstance(self.include_seen, (bool, np.bool_)):
            raise InputError(f"include_seen = {self.include_seen!r}: must be True or False")
        if self.unknown not in get_args(Unknown):
            raise ConfigError(unknown_word("policy", str(self.unknown), list(get_args(Unknown))))
        number = isinstance(self.diversify, numbers.Real) and not isinstance(self.diversify, bool)
        if not number or not 0 <= self.diversify <= 1:
            raise InputError(f"diversify = {self.diversify!r}: must be a number from 0 to 1")
        self._check_groups()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_groups(self) -> None:
        """Check the rules about groups; `groups` becomes a pair of lists: items and groups."""
        if self.per_group is not None and (not is_whole(self.per_group) or self.per_group < 1):
            raise InputError(f"per_group = {self.per_group!r}: must be a whole number above 0")
        users_of_groups = ("allow_groups", "block_groups", "per_group")
        if self.groups is None:
            for name in users_of_groups:
                if getattr(self, name) is not None:
                    way = by_reader(python="groups={item: group, …}", shell="--groups FILE")
                    raise InputError(f"{name}: needs groups, e.g. {way}")
            return
        if isinstance(self.groups, Mapping):
            items, groups = list(self.groups), list(self.groups.values())
        else:
            items, groups = map(list, id_columns(self.groups, "groups", ("item", "group")))
        groups = [_group(value) for value in groups]
        self._set("groups", (items, groups))
        names = {group for group in groups if group is not None}
        for name in ("allow_groups", "block_groups"):
            chosen = getattr(self, name)
            if chosen is None:
                continue
            self._set(name, [_group(value) for value in chosen])
            absent = [group for group in getattr(self, name) if group not in names]
            if absent:
                hint = did_you_mean(str(absent[0]), sorted(map(str, names)))
                raise InputError(f"{name}: no item is of the group {shown(absent[0])}; {hint}")

    def allowed(self, log: Interactions) -> npt.NDArray[np.bool_] | None:
        """Mask of the items that any list may hold, bool [I]; None for all.

        It combines `allow`, `block`, `allow_groups` and `block_groups`.
        """
        mask = np.full(log.n_items, True)
        for name, listed in (("allow", True), ("block", False)):
            ids: IdList | None = getattr(self, name)
            if ids is not None:
                _, indices = log.item_ids.lookup(ids, name)
                mask &= _mask(indices[indices >= 0], log.n_items) == listed  # -1: not in the log
            groups: Sequence[Any] | None = getattr(self, f"{name}_groups")
            if groups is not None:
                of_items = self._grouped(log)
                chosen = {group for group in groups if group is not None}
                members = [item for item, group in of_items.items() if group in chosen]
                mask &= _mask(np.array(members, dtype=np.int64), log.n_items) == listed
        return None if mask.all() else mask

    def group_numbers(self, log: Interactions) -> Int64 | None:
        """Number of each item's group, [I], and −1 for items without one; None without a limit.

        Only `per_group` needs these numbers.
        """
        if self.per_group is None:
            return None
        of_items = self._grouped(log)
        numbers_of = {
            group: number for number, group in enumerate(dict.fromkeys(of_items.values()))
        }
        found = np.full(log.n_items, -1, dtype=np.int64)
        found[list(of_items)] = [numbers_of[group] for group in of_items.values()]
        return found

    def _grouped(self, log: Interactions) -> dict[int, Any]:
        """Group of each item index that has one.

        Raises
        ------
        InputError
            When `groups` gives an item two groups.
        """
        items, groups = self.groups
        _, indices = log.item_ids.lookup(items, "groups")
        of_items: dict[int, Any] = {}
        for item, index, group in zip(items, indices.tolist(), groups, strict=True):
            if index < 0 or group is None:
                continue
            if of_items.setdefault(index, group) != group:
                raise InputError(
                    f"groups: item {shown(item)} has two groups, {shown(of_items[index])} and "
                    f"{shown(group)}; give one"
                )
        return of_items

    def pairs(self, log: Interactions, name: str, unknown: Mapping[Any, int]) -> Pairs | None:
        """The pairs of `allow_pairs` or `block_pairs`, by user; None if there are none.

        Parameters
        ----------
        log : Interactions
        name : {"allow_pairs", "block_pairs"}
        unknown : mapping of id to int
            Number of each requested user outside the log, from `log.n_users` on.
        """
        columns = getattr(self, name)
        if columns is None:
            return None
        stored, users = log.user_ids.lookup(columns[0], f"{name}, users")
        _, items = log.item_ids.lookup(columns[1], f"{name}, items")
        users = np.array(users)
        for place in np.flatnonzero(users < 0).tolist() if unknown else ():
            users[place] = unknown.get(stored[place], -1)
        return Pairs.of(users, items, log.n_users + len(unknown), log.n_items)

    def text(self) -> str:
        """All rules as JSON: equal texts mean equal rules."""
        rules = asdict(self)
        for name in ("allow", "block", "allow_groups", "block_groups"):
            if rules[name] is not None:  # a set has another order in each process
                rules[name] = sorted(map(str, rules[name]))
        return json.dumps(rules, default=_plain)


@dataclass(frozen=True, eq=False)
class Pairs:
    """(user, item) pairs, by user: those of user u are ``items[starts[u]:starts[u + 1]]``.

    The items of a user are distinct and ascend.

    Parameters
    ----------
    starts : int64 [U + 1]
    items : int64 [M]
    """

    starts: Int64
    items: Int64

    @staticmethod
    def of(users: Int64, items: Int64, n_users: int, n_items: int) -> Pairs:
        """Pairs of a user and an item index each; pairs with an index of −1 are left out."""
        exist = (users >= 0) & (items >= 0)
        keys = np.unique(users[exist] * n_items + items[exist])  # one number for each pair
        users, items = np.divmod(keys, max(n_items, 1))
        return Pairs(row_starts(np.bincount(users, minlength=n_users)), items)

    def rows(self, users: Int64) -> Rows:
        """The pairs of a request for these users: position in `users`, and item; ascending."""
        places, counts = row_places(self.starts, users)
        return np.repeat(np.arange(len(users)), counts), self.items[places]


def _group(value: Any) -> Any:
    """A group as a plain value; None if the value is missing."""
    value = unwrapped(value)
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, Hashable):
        raise InputError(f"groups: {shown(value)} cannot be a group; give texts or numbers")
    return None if is_missing(value) or value != value else value


def _mask(indices: Int64, size: int) -> npt.NDArray[np.bool_]:
    """Mask that is true at `indices`, bool [size]."""
    mask = np.zeros(size, dtype=np.bool_)
    mask[indices] = True
    return mask


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)

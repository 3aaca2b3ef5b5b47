"""Items that users took since the run was trained, in memory only."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

MOST_USERS, MOST_ITEMS = 10_000, 50
"""Users that are remembered, and items of each; the oldest ones are forgotten."""

Stored = int | str


class Sessions:
    """Recent items of recent users; safe to use from several threads.

    Users and items are kept by their ids, so that they stay valid when the run is swapped.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[str, deque[Stored]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, user: Stored, item: Stored) -> None:
        """Add an item to the end of a user's recent items."""
        with self._lock:
            recent = self._items.setdefault(str(user), deque(maxlen=MOST_ITEMS))
            recent.append(item)
            self._items.move_to_end(str(user))
            if len(self._items) > MOST_USERS:
                self._items.popitem(last=False)

    def of(self, user: Stored) -> list[Stored]:
        """Recent items of a user, oldest first."""
        with self._lock:
            return list(self._items.get(str(user), ()))

"""Search of items by title or id."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import numpy as np

from comet_rec.data.interactions import Interactions


class Catalogue:
    """Items of a log in the order of popularity, with the texts that a search looks at.

    Parameters
    ----------
    log : Interactions
    titles : mapping of str to str
        Title of each item id, as text.
    """

    def __init__(self, log: Interactions, titles: Mapping[str, str]) -> None:
        users = np.bincount(log.items, minlength=log.n_items)  # [I]
        self._order = np.argsort(-users, kind="stable").tolist()
        self._users = users
        self.ids = log.item_ids
        self.titles = titles
        names = log.item_ids.values.tolist()
        self._texts = [folded(f"{name} {titles.get(str(name), '')}") for name in names]

    def title(self, item_id: object) -> str | None:
        """Title of an item; None if it has none."""
        return self.titles.get(str(item_id))

    def search(self, text: str, limit: int) -> list[dict[str, object]]:
        """The most popular items whose title or id holds every word of `text`."""
        words = folded(text).split()
        found: list[int] = []
        for item in self._order:
            if all(word in self._texts[item] for word in words):
                found.append(item)
                if len(found) == limit:
                    break
        ids = self.ids.external(found).tolist()
        return [
            {"item_id": name, "title": self.title(name), "users": int(self._users[item])}
            for name, item in zip(ids, found, strict=True)
        ]


def folded(text: str) -> str:
    """Text without accents and in lower case, so that `amélie` is found by `Amelie`."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in parts if not unicodedata.combining(letter)).casefold()

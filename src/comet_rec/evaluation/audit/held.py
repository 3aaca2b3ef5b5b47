"""Checks of held-out items and their candidates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from comet_rec.evaluation.audit.findings import Hit, counted
from comet_rec.evaluation.audit.material import Held, Int64, Material

Bool = npt.NDArray[np.bool_]


def in_training(material: Material, held: Held) -> Hit | None:
    """Held-out items that the same user has in an earlier part."""
    earlier, log = material.part < held.part, material.log
    known = np.sort(material.keys(log.users[earlier], log.items[earlier]), kind="stable")
    keys = material.keys(held.users, held.positives)
    mask = np.searchsorted(known, keys, "right") > np.searchsorted(known, keys, "left")
    what = f"users have their {held.name} item in the training part too"
    return counted(mask, what, lambda n: _positive(material, held, n))


def rated_zero(material: Material, held: Held) -> Hit | None:
    """Held-out items that their user rated 0, as files with sampled negatives have them."""
    log = material.log
    zero = material.keys(log.zero_users, log.zero_items)
    mask = np.isin(material.keys(held.users, held.positives), zero)
    what = (
        f"users have a {held.name} item with rating 0, which is rather a negative; read the log "
        "with min_rating (--min-rating 1)"
    )
    return counted(mask, what, lambda n: _positive(material, held, n))


def outside_the_catalogue(material: Material, held: Held) -> Hit | None:
    """Candidates that are no index of an item."""
    what = f"{held.name} candidates are indices outside the catalogue"
    return counted(
        ~_is_item(material, held),
        what,
        lambda n: material.example(user=held.users[held.rows[n]], index=int(held.candidates[n])),
    )


def positive_among_candidates(material: Material, held: Held) -> Hit | None:
    """Users whose own positive is among their negatives."""
    rows, items = _candidates(material, held)
    what = "have the positive among their own candidates"
    return _users_of(material, held, rows, items, _is_positive(held, rows, items), what)


def interacted(material: Material, held: Held) -> Hit | None:
    """Candidates that the user interacted with anywhere in the raw log."""
    rows, items = _candidates(material, held)
    mask = material.interacted.excludes(held.users[rows], items)
    mask &= ~_is_positive(held, rows, items)
    what = "have candidates that they touched somewhere in the raw log"
    return _users_of(material, held, rows, items, mask, what)


def repeated(material: Material, held: Held) -> Hit | None:
    """Users with a candidate more than once."""
    rows, items = _candidates(material, held)
    keys = rows * material.log.n_items + items
    order = np.argsort(keys, kind="stable")
    mask = np.zeros(len(keys), dtype=bool)
    # In sorted order a repeat follows its equal.
    mask[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return _users_of(material, held, rows, items, mask, "have a candidate more than once")


def none_at_all(material: Material, held: Held) -> Hit | None:
    """Users with nothing to be ranked against."""
    return _with_counts(material, held, 0, 0, "have no candidate")


def too_few(material: Material, held: Held) -> Hit | None:
    """Users with fewer candidates than the protocol says."""
    most = (held.negatives or 0) - 1
    return _with_counts(material, held, 1, most, f"have fewer than {held.negatives} candidates")


def cold_users(material: Material, held: Held) -> Hit | None:
    """Held-out users without a training row."""
    log = material.log
    known = np.bincount(log.users[material.train], minlength=log.n_users) > 0
    what = f"{held.name} users have no training row"
    return counted(~known[held.users], what, lambda n: material.example(user=held.users[n]))


def cold_items(material: Material, held: Held) -> Hit | None:
    """Held-out items without a training row."""
    what = f"users have a {held.name} item without a training row"
    mask = ~_in_training(material)[held.positives]
    return counted(mask, what, lambda n: _positive(material, held, n))


def foreign_candidates(material: Material, held: Held) -> Hit | None:
    """Candidates in no row of the log."""
    items = np.unique(_candidates(material, held)[1])
    what = f"items among the {held.name} candidates are in no row of the log"
    mask = ~_in_the_log(material)[items]
    return counted(mask, what, lambda n: material.example(item=items[n]))


def cold_candidates(material: Material, held: Held) -> Hit | None:
    """Candidates without a training row, which are easy to rank low."""
    items = np.unique(_candidates(material, held)[1])
    what = f"items among the {held.name} candidates have no training row"
    mask = (_in_the_log(material) & ~_in_training(material))[items]
    return counted(mask, what, lambda n: material.example(item=items[n]))


def _positive(material: Material, held: Held, place: int) -> dict[str, object]:
    return material.example(user=held.users[place], item=held.positives[place])


def _is_item(material: Material, held: Held) -> Bool:
    """Whether a candidate is an index of the catalogue, bool [M]."""
    return (held.candidates >= 0) & (held.candidates < material.log.n_items)


def _candidates(material: Material, held: Held) -> tuple[Int64, Int64]:
    """Place of the user and item of each candidate within the catalogue."""
    inside = _is_item(material, held)
    return held.rows[inside], held.candidates[inside]


def _is_positive(held: Held, rows: Int64, items: Int64) -> Bool:
    return np.asarray(items == held.positives[rows])


def _users_of(
    material: Material, held: Held, rows: Int64, items: Int64, mask: Bool, what: str
) -> Hit | None:
    """A hit that counts the users of some candidates."""
    if not mask.any():
        return None
    first = int(np.argmax(mask))
    users = np.bincount(rows[mask], minlength=len(held.users)) > 0
    what = f"{held.name} users {what} ({int(mask.sum()):,} candidates)"
    example = material.example(user=held.users[rows[first]], item=items[first])
    return counted(users, what, lambda _: example)


def _with_counts(material: Material, held: Held, least: int, most: int, what: str) -> Hit | None:
    """A hit that counts users with `least` to `most` candidates."""
    if held.negatives is None:  # candidates are still to be drawn
        return None
    counts = np.bincount(held.rows, minlength=len(held.users))
    return counted(
        (counts >= least) & (counts <= most),
        f"{held.name} users {what}",
        lambda n: material.example(user=held.users[n], candidates=int(counts[n])),
    )


def _in_training(material: Material) -> Bool:
    """Whether an item has a training row, bool [I]."""
    log = material.log
    return np.bincount(log.items[material.train], minlength=log.n_items) > 0


def _in_the_log(material: Material) -> Bool:
    """Whether an item has any row, dropped ones included, bool [I]."""
    log = material.log
    known = np.bincount(log.items, minlength=log.n_items) > 0
    known |= np.bincount(log.dropped_items, minlength=log.n_items) > 0
    return known

"""Checks of held-out items and their candidates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from comet_rec.data.sampling import Complement, untouched_items
from comet_rec.data.split import TRAIN
from comet_rec.evaluation.audit.findings import Finding, Severity
from comet_rec.evaluation.audit.material import Held, Material

Bool = npt.NDArray[np.bool_]


def held_out(material: Material) -> Iterator[Finding]:
    """All findings about held-out items and candidates, test before validation."""
    raw = untouched_items(material.log)
    for held in material.held:
        yield from _leaked(material, held)
        yield from _rated_zero(material, held)
        yield from _candidates(material, held, raw)
        yield from _numbers(material, held)
        yield from _cold(material, held)


def _leaked(material: Material, held: Held) -> Iterator[Finding]:
    """Held-out items that the same user has in an earlier part."""
    earlier = material.part < held.part
    log = material.log
    known = np.sort(material.keys(log.users[earlier], log.items[earlier]), kind="stable")
    keys = material.keys(held.users, held.positives)
    hit = np.searchsorted(known, keys, "right") > np.searchsorted(known, keys, "left")
    if hit.any():
        first = int(np.argmax(hit))
        yield Finding(
            f"{held.name}-in-training",
            "error",
            int(hit.sum()),
            len(held.users),
            f"{_of(hit, 'users')} have their {held.name} item in the training part too",
            material.example(user=held.users[first], item=held.positives[first]),
        )


def _rated_zero(material: Material, held: Held) -> Iterator[Finding]:
    """Held-out items that their user rated 0, as files with drawn negatives have it."""
    log = material.log
    zero = material.keys(log.zero_users, log.zero_items)
    hit = np.isin(material.keys(held.users, held.positives), zero)
    if hit.any():
        first = int(np.argmax(hit))
        yield Finding(
            f"{held.name}-rated-zero",
            "error",
            int(hit.sum()),
            len(held.users),
            f"{_of(hit, 'users')} have a {held.name} item with rating 0, which is rather a "
            "negative; read the log with min_rating (--min-rating 1)",
            material.example(user=held.users[first], item=held.positives[first]),
        )


def _candidates(material: Material, held: Held, raw: Complement) -> Iterator[Finding]:
    """Candidates that are no negatives, stand twice, or are no items."""
    inside = (held.candidates >= 0) & (held.candidates < material.log.n_items)
    if not inside.all():
        first = int(np.argmin(inside))
        yield Finding(
            f"{held.name}-candidates-outside",
            "error",
            int((~inside).sum()),
            len(inside),
            f"{_of(~inside, f'{held.name} candidates')} are indices outside the catalogue",
            material.example(user=held.users[held.rows[first]], index=int(held.candidates[first])),
        )
    rows, items = held.rows[inside], held.candidates[inside]
    owners, own = held.users[rows], items == held.positives[rows]
    yield from _of_users(
        material, held, rows, items, own, "error", "positive-among-candidates",
        "have the positive among their own candidates",
    )  # fmt: skip
    touched = raw.touched(owners, items) & ~own
    yield from _of_users(
        material, held, rows, items, touched, "error", "candidates-touched",
        "have candidates that they touched somewhere in the raw log",
    )  # fmt: skip
    keys = rows * material.log.n_items + items
    order = np.argsort(keys, kind="stable")
    again = np.zeros(len(keys), dtype=bool)
    again[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    yield from _of_users(
        material, held, rows, items, again, "error", "candidates-repeated",
        "have a candidate more than once",
    )  # fmt: skip


def _of_users(
    material: Material,
    held: Held,
    rows: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    hit: Bool,
    severity: Severity,
    check: str,
    what: str,
) -> Iterator[Finding]:
    """A finding that counts the users of some candidates."""
    if hit.any():
        first = int(np.argmax(hit))
        users = np.bincount(rows[hit], minlength=len(held.users)) > 0
        yield Finding(
            f"{held.name}-{check}",
            severity,
            int(users.sum()),
            len(users),
            f"{_of(users, f'{held.name} users')} {what} ({int(hit.sum()):,} candidates)",
            material.example(user=held.users[rows[first]], item=items[first]),
        )


def _numbers(material: Material, held: Held) -> Iterator[Finding]:
    """Users without candidates, or with fewer than the protocol says."""
    if held.negatives is None:
        return
    counts = np.bincount(held.rows, minlength=len(held.users))
    none, few = counts == 0, (counts > 0) & (counts < held.negatives)
    cases: list[tuple[Bool, Severity, str, str]] = [
        (none, "error", "without-candidates", "have no candidate"),
        (few, "warning", "few-candidates", f"have fewer than {held.negatives} candidates"),
    ]
    for hit, severity, check, what in cases:
        if hit.any():
            first = int(np.argmax(hit))
            yield Finding(
                f"{held.name}-{check}",
                severity,
                int(hit.sum()),
                len(hit),
                f"{_of(hit, f'{held.name} users')} {what}",
                material.example(user=held.users[first], candidates=int(counts[first])),
            )


def _cold(material: Material, held: Held) -> Iterator[Finding]:
    """Users, items and candidates that training never saw."""
    log = material.log
    train = material.part == TRAIN
    user_known = np.bincount(log.users[train], minlength=log.n_users) > 0
    item_known = np.bincount(log.items[train], minlength=log.n_items) > 0
    item_exists = np.bincount(log.items, minlength=log.n_items) > 0
    item_exists |= np.bincount(log.dropped_items, minlength=log.n_items) > 0

    users = ~user_known[held.users]
    if users.any():
        yield Finding(
            f"{held.name}-users-cold",
            "warning",
            int(users.sum()),
            len(users),
            f"{_of(users, f'{held.name} users')} have no training row",
            material.example(user=held.users[np.argmax(users)]),
        )
    items = ~item_known[held.positives]
    if items.any():
        first = int(np.argmax(items))
        yield Finding(
            f"{held.name}-items-cold",
            "warning",
            int(items.sum()),
            len(items),
            f"{_of(items, 'users')} have a {held.name} item without a training row",
            material.example(user=held.users[first], item=held.positives[first]),
        )
    inside = (held.candidates >= 0) & (held.candidates < log.n_items)
    candidates = np.flatnonzero(np.bincount(held.candidates[inside], minlength=log.n_items))
    foreign, cold = ~item_exists[candidates], (item_exists & ~item_known)[candidates]
    cases: list[tuple[Bool, Severity, str, str]] = [
        (foreign, "warning", "candidates-outside", "are in no row of the log"),
        (cold, "note", "candidates-cold", "have no training row"),
    ]
    for hit, severity, check, what in cases:
        if hit.any():
            yield Finding(
                f"{held.name}-{check}",
                severity,
                int(hit.sum()),
                len(hit),
                f"{_of(hit, f'items among the {held.name} candidates')} {what}",
                material.example(item=candidates[np.argmax(hit)]),
            )


def _of(hit: Bool, what: str) -> str:
    return f"{int(hit.sum()):,} of {len(hit):,} {what}"

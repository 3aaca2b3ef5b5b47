"""Checks of rows: held-out items, candidates, repeated pairs, targets in input histories."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from comet_rec.config import Config
from comet_rec.data.batches import Batch, Batches
from comet_rec.data.histories import HistorySettings
from comet_rec.data.queries import existing
from comet_rec.evaluation.audit.findings import Example, Hit
from comet_rec.evaluation.audit.material import Bool, Held, Int64, Material
from comet_rec.models import base

SAMPLED_POSITIVES = 8_192
"""Number of sampled training positives after which `target_in_history` stops."""
SAMPLED_NEGATIVES = 1_000
"""Largest number of negatives for each positive in the batches of `target_in_history`.

The check does not use negatives, and a config may ask for very many of them.
"""

_REMOVED = re.compile(r"([\d,]+) repeated \(user, item\) rows? removed")


def in_training(material: Material, held: Held) -> Hit | None:
    """Check for users whose held-out item is also in an earlier part, such as training."""
    earlier, log = material.part < held.part, material.log
    known = np.sort(material.keys(log.users[earlier], log.items[earlier]), kind="stable")
    keys = material.keys(held.users, held.positives)
    # A key is known if its two insertion positions differ.
    mask = np.searchsorted(known, keys, "right") > np.searchsorted(known, keys, "left")
    message = f"users have their {held.name} item in the training part too"
    return material.hit(mask, message, user=held.users, item=held.positives)


def rated_zero(material: Material, held: Held) -> Hit | None:
    """Check for held-out items that the user rated 0.

    Files that include sampled negatives often mark them by this rating.
    """
    log = material.log
    zero = material.keys(log.zero_users, log.zero_items)
    mask = np.isin(material.keys(held.users, held.positives), zero)
    message = (
        f"users have a {held.name} item with rating 0, which probably marks a negative; read the "
        "log with min_rating (--min-rating 1)"
    )
    return material.hit(mask, message, user=held.users, item=held.positives)


def candidates_outside(material: Material, held: Held) -> Hit | None:
    """Check for candidates that are not the index of an item."""
    message = f"{held.name} candidates are not indices of items"
    users = held.users[held.rows]
    return material.hit(~_is_item(material, held), message, user=users, index=held.candidates)


def positive_among_candidates(material: Material, held: Held) -> Hit | None:
    """Check for users whose held-out item is also one of their candidates."""
    rows, items = _candidates(material, held)
    message = "have the positive among their own candidates"
    return _users_of(material, held, items == held.positives[rows], message)


def candidates_interacted(material: Material, held: Held) -> Hit | None:
    """Check for candidates that the user interacted with anywhere in the raw log."""
    rows, items = _candidates(material, held)
    mask = material.interacted(held).excludes(held.users[rows], items) & (
        items != held.positives[rows]
    )
    message = "have candidates that they interacted with in the raw log"
    return _users_of(material, held, mask, message)


def candidates_repeated(material: Material, held: Held) -> Hit | None:
    """Check for users who have the same candidate more than once."""
    rows, items = _candidates(material, held)
    mask = _repeats(rows * material.log.n_items + items)
    return _users_of(material, held, mask, "have a candidate more than once")


def without_candidates(material: Material, held: Held) -> Hit | None:
    """Check for users without candidates."""
    return _with_counts(material, held, 0, 0, "have no candidate")


def few_candidates(material: Material, held: Held) -> Hit | None:
    """Check for users with fewer candidates than the protocol asks for."""
    most = (held.negatives or 0) - 1
    return _with_counts(material, held, 1, most, f"have fewer than {held.negatives} candidates")


def cold_users(material: Material, held: Held) -> Hit | None:
    """Check for users who have a held-out item but no training row."""
    log = material.log
    known = np.bincount(log.users[material.train], minlength=log.n_users) > 0
    message = f"{held.name} users have no training row"
    users = np.unique(held.users)
    return material.hit(~known[users], message, user=users)


def cold_items(material: Material, held: Held) -> Hit | None:
    """Check for held-out items without a training row."""
    message = f"users have a {held.name} item without a training row"
    mask = ~_in_training(material)[held.positives]
    return material.hit(mask, message, user=held.users, item=held.positives)


def future_candidates(material: Material, held: Held) -> Hit | None:
    """Check for candidates and held-out items that did not exist at the moment of the split.

    Only splits by time have a moment. An item exists if it has an earlier row.
    """
    if material.by_time is None:
        return None
    exists = existing(material.log, material.part < held.part)
    rows, items = _candidates(material, held)
    users = np.append(held.users[rows], held.users)
    items = np.append(items, held.positives)
    message = f"{held.name} candidates and positives have no row before the moment of the split"
    return material.hit(~exists[items], message, user=users, item=items)


def foreign_candidates(material: Material, held: Held) -> Hit | None:
    """Check for candidates that occur in no row of the log."""
    items = np.unique(_candidates(material, held)[1])
    message = f"items among the {held.name} candidates are in no row of the log"
    return material.hit(~_in_the_log(material)[items], message, item=items)


def cold_candidates(material: Material, held: Held) -> Hit | None:
    """Check for candidates without a training row, which are easy to rank low."""
    items = np.unique(_candidates(material, held)[1])
    message = f"items among the {held.name} candidates have no training row"
    mask = (_in_the_log(material) & ~_in_training(material))[items]
    return material.hit(mask, message, item=items)


def repeated_rows(material: Material) -> Hit | None:
    """Check for training rows that repeat a (user, item) pair."""
    users, items = material.log.users[material.train], material.log.items[material.train]
    mask = _repeats(material.keys(users, items))
    return material.hit(mask, "training rows repeat a (user, item) pair", user=users, item=items)


def rows_removed_by_reading(material: Material) -> Hit | None:
    """Check for repeated (user, item) rows that were removed when the log was read."""
    matches = [match for note in material.log.notes if (match := _REMOVED.search(note))]
    removed = sum(int(match[1].replace(",", "")) for match in matches)
    if removed == 0:
        return None
    total = len(material.log) + removed
    message = (
        f"{removed:,} of {total:,} rows of the log repeat a (user, item) pair; reading kept the "
        "earliest of each pair; a tool that keeps all rows can test on its training rows"
    )
    return Hit(removed, total, message)


def target_in_history(material: Material, config: Config) -> Hit | None:
    """Check for training positives whose target is in the model's own input history.

    The target of a positive is the item, for the user's history, or the user, for the item's
    history. The check samples training batches with the settings of `config`. For a model of full
    histories, only the setting `model.exclude_target` is checked.
    """
    settings = history_settings(config)
    if settings is None or not material.train.any():
        return None
    if settings.policy == "full":
        total, example = int(material.train.sum()), None
        count = 0 if settings.exclude_target else total
    else:
        count, total, example = _targets_in_batches(material, config, settings)
    if count == 0:
        return None
    excluded = settings.exclude_target
    remedy = "look for repeated rows in the log" if excluded else "set model.exclude_target=true"
    message = (
        f"{count:,} of {total:,} sampled training positives are in the history that {config.name} "
        f"reads for them, so it trains on the answer; {remedy}"
    )
    return Hit(count, total, message, example)


def shown_by(config: Config) -> tuple[object, ...] | None:
    """Settings that decide which histories are in training batches; None without histories.

    Configs with equal settings of this kind need only one audit.
    """
    settings = history_settings(config)
    train = config.train
    batches = train.batch_size, train.negatives, train.positives_per_user, train.negative_pool
    return None if settings is None else (settings, *batches)


def history_settings(config: Config) -> HistorySettings | None:
    """Settings of a model's input histories; None if it has no input histories."""
    # The settings do not depend on the sizes of the tables, so a tiny model is enough.
    settings: HistorySettings | None = base.build(config.name, config.model, 2, 2, 0).histories
    return settings


def _targets_in_batches(
    material: Material, config: Config, settings: HistorySettings
) -> tuple[int, int, Example | None]:
    """Sample training positives, and search the input histories for their targets.

    Returns the number of targets in a history, the number of positives, and an example.
    """
    train = config.train
    batches = Batches(
        material.log.select(material.train),
        batch_size=min(train.batch_size, SAMPLED_POSITIVES),
        negatives=min(train.negatives, SAMPLED_NEGATIVES),
        histories=settings,
        seed=config.seed,
        positives_per_user=train.positives_per_user,
        negative_pool=train.negative_pool,
    )
    count = total = 0
    example = None
    for batch in batches.epoch(0):
        users, items, in_history = _targets(batch)
        if in_history.any() and example is None:
            example = material.example(int(np.argmax(in_history)), user=users, item=items)
        count += int(in_history.sum())
        total += len(in_history)
        if total >= SAMPLED_POSITIVES:
            break
    return count, total, example


def _targets(batch: Batch) -> tuple[Int64, Int64, Bool]:
    """User and item of each positive, and whether one of them is in the history of the other.

    All three arrays are [P].
    """
    positive = batch.labels > 0
    rows, columns = batch.pair_users[positive], batch.pair_items[positive]
    users, items = batch.users[rows], batch.items[columns]
    # Histories [P, N] against targets [P, 1].
    in_history = torch.zeros(len(users), dtype=torch.bool)
    if isinstance(batch.user_histories, Tensor):
        in_history |= (batch.user_histories[rows] == items[:, None]).any(dim=1)
    if batch.item_histories is not None:
        in_history |= (batch.item_histories[columns] == users[:, None]).any(dim=1)
    return users.numpy(), items.numpy(), in_history.numpy()


def _is_item(material: Material, held: Held) -> Bool:
    """Whether each candidate is the index of an item, bool [M]."""
    return (held.candidates >= 0) & (held.candidates < material.log.n_items)


def _candidates(material: Material, held: Held) -> tuple[Int64, Int64]:
    """Position in `held.users`, and item, of each candidate that is the index of an item."""
    inside = _is_item(material, held)
    return held.rows[inside], held.candidates[inside]


def _users_of(material: Material, held: Held, mask: Bool, message: str) -> Hit | None:
    """Hit that counts the users with at least one candidate marked by `mask`.

    `mask` has one value for each candidate of `_candidates`.
    """
    rows, items = _candidates(material, held)
    affected = np.bincount(rows[mask], minlength=len(held.users)) > 0
    hit = material.hit(affected, f"{held.name} users {message} ({int(mask.sum()):,} candidates)")
    if hit is None:
        return None
    example = material.example(int(np.argmax(mask)), user=held.users[rows], item=items)
    return replace(hit, example=example)


def _with_counts(material: Material, held: Held, least: int, most: int, message: str) -> Hit | None:
    """Hit that counts users with `least` to `most` candidates."""
    if held.negatives is None:  # candidates are not sampled yet
        return None
    counts = np.bincount(held.rows, minlength=len(held.users))
    mask = (counts >= least) & (counts <= most)
    return material.hit(mask, f"{held.name} users {message}", user=held.users, candidates=counts)


def _in_training(material: Material) -> Bool:
    """Whether each item has a training row, bool [I]."""
    log = material.log
    return np.bincount(log.items[material.train], minlength=log.n_items) > 0


def _in_the_log(material: Material) -> Bool:
    """Whether each item has any row, also one that was dropped by reading, bool [I]."""
    log = material.log
    return np.bincount(np.append(log.items, log.dropped_items), minlength=log.n_items) > 0


def _repeats(keys: Int64) -> Bool:
    """Whether each key equals an earlier key, bool [N]."""
    order = np.argsort(keys, kind="stable")
    mask = np.zeros(len(keys), dtype=bool)
    # In sorted order a repeat directly follows an equal key, since the sort is stable.
    mask[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return mask

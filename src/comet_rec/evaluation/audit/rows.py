"""Checks of the training rows: repeated pairs, and what a training step would be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.config import Config
from comet_rec.data.batches import Batch, Batches
from comet_rec.data.histories import HistorySettings
from comet_rec.data.interactions import Interactions
from comet_rec.evaluation.audit.findings import Hit, counted
from comet_rec.evaluation.audit.material import Material
from comet_rec.models import base

Bool = npt.NDArray[np.bool_]

DRAWN_POSITIVES = 8_192
"""Positives of training batches after which enough were looked at."""
DRAWN_NEGATIVES = 1_000
"""Most negatives of each: they tell nothing of targets, and a run may ask for any number."""

_REMOVED = re.compile(r"([\d,]+) repeated \(user, item\) rows? removed")


def repeated(material: Material) -> Hit | None:
    """Training rows that repeat a (user, item) pair."""
    log = material.log
    train = np.flatnonzero(material.train)
    keys = material.keys(log.users[train], log.items[train])
    order = np.argsort(keys, kind="stable")
    mask = np.zeros(len(keys), dtype=bool)
    # In sorted order a repeat follows its equal.
    mask[order[1:]] = keys[order[1:]] == keys[order[:-1]]

    def example(place: int) -> dict[str, object]:
        row = train[place]
        return material.example(user=log.users[row], item=log.items[row])

    return counted(mask, "training rows repeat a (user, item) pair", example)


def repeated_in_reading(material: Material) -> Hit | None:
    """Rows of a repeated pair that reading removed, as its notes say."""
    log = material.log
    removed = sum(
        int(found[1].replace(",", "")) for note in log.notes if (found := _REMOVED.search(note))
    )
    if removed == 0:
        return None
    of = len(log) + removed
    what = (
        f"{removed:,} of {of:,} rows of the log repeat a (user, item) pair; reading kept the "
        "earliest of each, a tool that keeps all can test on what it trained on"
    )
    return Hit(removed, of, what)


def target_in_history(material: Material, config: Config) -> Hit | None:
    """Training positives that a model with this config sees in the histories it is shown.

    Batches are drawn with the config's own settings and looked into. A model that is shown whole
    histories leaves the target out itself, so its setting is what counts.
    """
    settings = history_settings(config)
    rows = material.log.select(material.train)
    if settings is None or len(rows) == 0:
        return None
    if settings.policy == "full":
        if settings.exclude_target:
            return None
        return _target(len(rows), len(rows), config, settings, None)
    seen = looked = 0
    example = None
    for batch in _batches(rows, config, settings):
        of_users, of_items = shown_targets(batch)
        hit = of_users | of_items
        if hit.any() and example is None:
            pair = torch.nonzero(batch.labels > 0)[np.argmax(hit), 0]
            user = batch.users[batch.pair_users[pair]]
            item = batch.items[batch.pair_items[pair]]
            example = material.example(user=int(user), item=int(item))
        seen += int(hit.sum())
        looked += len(hit)
        if looked >= DRAWN_POSITIVES:
            break
    return _target(seen, looked, config, settings, example) if seen else None


def shown_by(config: Config) -> tuple[object, ...] | None:
    """All that decides which histories training batches show; None for a model without any."""
    settings = history_settings(config)
    train = config.train
    drawn = train.batch_size, train.negatives, train.positives_per_user, train.negative_pool
    return None if settings is None else (settings, *drawn)


def history_settings(config: Config) -> HistorySettings | None:
    """Settings of the input histories of a model with this config; None without histories."""
    # The settings do not depend on the sizes, so small tables do.
    settings: HistorySettings | None = base.build(config.name, config.model, 2, 2, 0).histories
    return settings


def _batches(rows: Interactions, config: Config, settings: HistorySettings) -> Iterator[Batch]:
    train = config.train
    return Batches(
        rows,
        batch_size=min(train.batch_size, DRAWN_POSITIVES),
        negatives=min(train.negatives, DRAWN_NEGATIVES),
        histories=settings,
        seed=config.seed,
        positives_per_user=train.positives_per_user,
        negative_pool=train.negative_pool,
    ).epoch(0)


def shown_targets(batch: Batch) -> tuple[Bool, Bool]:
    """Whether each positive's item is in its user's shown history, its user in its item's.

    Returns
    -------
    of_users, of_items : bool [positives]
        False throughout for a side that is not shown.
    """
    positive = batch.labels > 0
    users, items = batch.pair_users[positive], batch.pair_items[positive]
    none = torch.zeros(len(users), dtype=torch.bool)
    of_users, of_items = none, none
    if isinstance(batch.user_histories, Tensor):
        of_users = (batch.user_histories[users] == batch.items[items, None]).any(dim=1)
    if batch.item_histories is not None:
        of_items = (batch.item_histories[items] == batch.users[users, None]).any(dim=1)
    return of_users.numpy(), of_items.numpy()


def _target(
    count: int, of: int, config: Config, settings: HistorySettings,
    example: dict[str, object] | None,
) -> Hit:  # fmt: skip
    excluded = settings.exclude_target
    remedy = "look for repeated rows" if excluded else "set model.exclude_target=true"
    what = (
        f"{count:,} of {of:,} training positives that were drawn stand in the history that "
        f"{config.name} is shown with them, so it trains on the answer; {remedy}"
    )
    return Hit(count, of, what, example)

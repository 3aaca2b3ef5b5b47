"""Update of a trained model with new rows, without a training from the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from comet_rec.artefact.run import Run
from comet_rec.config import Config
from comet_rec.data.joined import Joined
from comet_rec.evaluation.scoring import blended, vectors
from comet_rec.models import base
from comet_rec.random import generator
from comet_rec.training.checkpoints import Hooks, log_line
from comet_rec.training.fit import batches_of, check_vectors
from comet_rec.training.growth import Untrained, grown, item_tables
from comet_rec.training.trainer import Progress, Trainer, frozen

OLD_ROWS = 9
"""Old rows in training for each new row."""
RATE = 0.1
"""Learning rate of an update, as a share of the first training's. At a share of 0.5, epochs made
lists worse (docs/log.md, 2026-11-30)."""
Described = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Item indices of a joined log [d], and the features of these items [d, F]."""


def updated(
    run: Run, joined: Joined, second: Config | None, described: Described | None, epochs: int,
    hooks: Hooks, device: torch.device,
) -> Run:  # fmt: skip
    """Run of a model, and of a blend's second model, updated with the new rows of a joined log.

    Parameters
    ----------
    run : Run
    joined : Joined
        The run's log and the new rows.
    second : Config or None
        Complete config of the second model of a blend.
    described : pair of arrays or None
        Features of items, for the vectors of new items without rows.
    epochs : int
        Epochs over the new rows and a sample of old ones; 0 trains nothing.
    hooks : Hooks
        Progress reports and a stop signal.
    device : torch.device

    Raises
    ------
    NonFiniteError, TrainingInterrupted
    """
    log, blend = joined.log, run.blend
    users_too, items_too = joined.new_users, joined.new_items
    users_too[joined.users[run.untrained_users]] = True
    items_too[joined.items[run.untrained_items]] = True
    untrained = Untrained(users_too, items_too, described)
    lines: list[dict[str, Any]] = []
    other = None
    if blend is not None:
        assert second is not None
        inner = hooks.of_blend(second.name)
        other = _continued(second, blend.state, joined, untrained, epochs, inner, device, lines)
        lines = [{**line, "stage": f"{second.name} {line['stage']}"} for line in lines]
        blend = replace(blend, state=frozen(other), selected=None)
    model = _continued(run.config, run.state, joined, untrained, epochs, hooks, device, lines)
    users: Any = None
    items: Any = None
    if base.two_tower(run.config.name):
        users, items = vectors(model, log)
    if blend is not None:
        users, items = blended(users, items, *vectors(other, log), blend.weight)
    check_vectors(users, items)
    counted = (joined.new_rows, joined.new_users, joined.new_items)
    if epochs > 0 and joined.new_rows.any():  # all users and items with rows were in training
        users_too &= np.bincount(log.users, minlength=log.n_users) == 0
        items_too &= np.bincount(log.items, minlength=log.n_items) == 0
    sizes = dict(zip(("rows", "users", "items"), (int(new.sum()) for new in counted), strict=True))
    return replace(
        run, state=frozen(model), interactions=log, split=None, final=False, selected=None,
        user_vectors=users, item_vectors=items, blend=blend, log=[*run.log, *lines],
        untrained_users=np.flatnonzero(users_too), untrained_items=np.flatnonzero(items_too),
        updates=(*run.updates, {**sizes, "epochs": epochs}),
    )  # fmt: skip


def _continued(
    config: Config, state: Mapping[str, Tensor], joined: Joined, untrained: Untrained,
    epochs: int, hooks: Hooks, device: torch.device, lines: list[dict[str, Any]],
) -> Any:  # fmt: skip
    """Model for a joined log, trained on from the parameters `state`; adds to the log `lines`."""
    log = joined.log
    if base.non_iterative(config.name):
        model = base.build(config.name, config.model, log.n_users, log.n_items, 0)
        model.fit(log)
        return model
    begun = grown(config, state, joined, untrained)
    # Training would push items without rows away from every user: keep their vectors.
    rowless = torch.from_numpy(np.flatnonzero(np.bincount(log.items, minlength=log.n_items) == 0))
    kept = {name: begun[name][rowless] for name in item_tables(config, log.n_users, log.n_items)}
    model = base.restored(config, begun, log).to(device)
    if epochs == 0 or not joined.new_rows.any():
        return model

    def report(progress: Progress) -> bool:
        if progress.finished_epoch:
            lines.append(log_line("update", progress))
        hooks.report("update", progress)
        return not progress.finished_epoch and hooks.stop()

    rate = RATE * config.train.learning_rate
    train = replace(config.train, learning_rate=rate, schedule="constant", warmup=0.0)
    positives = rows_to_learn(joined, config.seed)
    batches = batches_of(log, replace(config, train=train), model, positives)
    trainer = Trainer(model, batches, train, seed=config.seed, device=device, report=report)
    trainer.run(epochs)
    parameters = model.state_dict()  # tensors that share the memory of the model
    for name, rows in kept.items():
        parameters[name][rowless.to(device)] = rows.to(device)
    return model


def rows_to_learn(joined: Joined, seed: int) -> npt.NDArray[np.bool_]:
    """Rows to train on, bool [R]: the new ones, and `OLD_ROWS` random old ones for each of them."""
    rows = joined.new_rows.copy()
    old = np.flatnonzero(~rows)
    count = min(len(old), OLD_ROWS * int(rows.sum()))
    rng = generator(seed, "update.rows", len(rows))
    rows[rng.choice(old, count, replace=False)] = True
    return rows

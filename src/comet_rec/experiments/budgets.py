"""How much is spent on a study: minutes that prove the machinery, or the paper's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]
"""Dotted keys and values."""

CLOSED = ("popularity", "itemknn", "ease")
"""Models without epochs."""


@dataclass(frozen=True)
class Budget:
    """How much is spent on a study.

    Parameters
    ----------
    name : str
    note : str
        What the figures are worth, for every page.
    logs : tuple of str
        Data sets of the catalog that are studied when none is asked for.
    seeds : int
        Training seeds of the tables' models and of falsifications.
    neural : mapping
        Settings of all models with epochs.
    models : mapping
        Settings by registered name.
    compared : mapping
        Settings of trainings that are only compared with one another: figures, falsifications.
    large : mapping
        Settings of trainings that vary COMET in the paper's manner, tables IV and V included, on
        a log of large tables: there the paper's sizes cost half an hour each.
    falsified : mapping
        Further ones of falsifications, which are trained in every seed.
    dims : tuple of int
        K of Figure 6.
    warning : str
        What every page has to say.
    """

    name: str
    note: str
    logs: tuple[str, ...]
    seeds: int
    neural: Settings = field(default_factory=dict)
    models: Mapping[str, Settings] = field(default_factory=dict)
    compared: Settings = field(default_factory=dict)
    large: Settings = field(default_factory=dict)
    falsified: Settings = field(default_factory=dict)
    dims: tuple[int, ...] = (16, 32, 64, 128)
    warning: str = ""

    def settings(self, model: str) -> dict[str, Any]:
        """Dotted settings of a registered model."""
        neural = {} if model in CLOSED else self.neural
        return {**neural, **self.models.get(model, {})}


SMOKE = Budget(
    name="smoke",
    note="Budget smoke: small embeddings, a few epochs (but for the FISM within the preset best), "
    "one seed. It proves that the machinery works; no figure here says anything about a model.",
    logs=("ml-100k",),
    seeds=1,
    neural={
        "model.embedding_dim": 16, "train.epochs": 3, "train.patience": 0, "train.refit": False,
        "train.learning_rate": 5e-3,
    },
    models={
        "comet": {
            "model.history_length": 20, "model.hidden": (32,), "train.batch_size": 2048,
            "train.epochs": 10,
        },
        "mlp": {"model.hidden": (16, 8)},
        "neumf": {"model.hidden": (16, 8)},
        "convncf": {"train.epochs": 1},
    },
    dims=(4, 8, 16, 32),
    warning="Budget smoke: no figure here says anything about a model.",
)  # fmt: skip
FULL = Budget(
    name="full",
    note="Budget full. COMET has the paper's sizes, in falsifications K = 32, and on logs of "
    "350,000 rows or more, of more than 32,768 users and items, K = 64 in Tables IV and V and "
    "Figures 3, 4 and 6; on logs of fewer than 350,000 rows it is smaller. Batches and what "
    "they draw from, rate, averaging and, in the tables of algorithms, decay are ours; "
    "products of training steps are in bfloat16 where the processor can (ADR 0027). Opponents "
    "have settings of ours, MF, MLP, GMF and NeuMF more negatives than the paper's four: on "
    "large logs SVD++ and FISM from a search of a few trials, MF and GMF from trials in the "
    "diary, the rest by hand; on logs of fewer than 500,000 rows those searched on "
    "MovieLens-100K; where the section on searches says so, what a search on the log itself "
    "found. The epoch is chosen on the validation items. In the tables, Figure 4 and what "
    "falsifies the preset best the model is trained again with them, but for Tables IV and V "
    "where K is 64 by their size, and for ConvNCF, which has two epochs and no second training "
    "for its cost.",
    logs=("ml-1m", "amazon-movies", "amazon-cds"),
    seeds=3,
    neural={"train.matmul_precision": "medium"},
    compared={"train.refit": False},
    large={"model.embedding_dim": 64, "train.refit": False},
    falsified={"model.embedding_dim": 32},
    models={"convncf": {"train.epochs": 2, "train.patience": 0, "train.refit": False}},
)
BUDGETS = {budget.name: budget for budget in (SMOKE, FULL)}

"""Presets: functions that choose all settings of a model by the log, and return a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from comet_rec.config import (
    OF_A_TIME_SPLIT,
    BlendConfig,
    Config,
    ProtocolConfig,
    TrainConfig,
    unknown,
)
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.models import base
from comet_rec.training.blend import check as check_blend

SMALL = 500_000
"""Rows of a log below which the presets take their settings for small logs.

In `best`: the sizes of `SEQUENCES` (ADR 0047). In `blended` (ADR 0026): K = 64 instead of 128,
N = 50 instead of 100, batches of 2,048 instead of 4,096, and 16 epochs instead of at most 10. In
`paper`: the "small" settings of `COMMON` and
`SEARCHED` for the baselines (ADR 0019).
"""

SHORT = 40
"""Mean rows per user below which histories count as short.

On small logs with short histories, `best` trains FISM with a softmax loss. That was better with 9
and 28 rows per user, and worse with 106 (ADR 0026).
"""

MANY = 10_000
"""Validation items from which on `best` chooses by full metrics if histories are short.

The number counts for models without an order. Full metrics rank among all items, sampled metrics
among 99 sampled items. With fewer validation items, `best` uses sampled metrics. The number is a
guess: full metrics gained nothing with 1,500 validation items, and something with 17,000 (ADR
0026).
"""

WIDE = 50_000
"""Items of a log from which on `best` uses a sampled softmax instead of the full softmax.

The cost of a full softmax grows with the number of items (ADR 0026).
"""

PRODUCTS = 1_500_000_000_000
"""Multiply-adds per epoch (rows × items × K) from which on `best` uses a sampled softmax.

The limit counts for logs with fewer than `WIDE` items, and at least twice `DRAWN` (ADR 0047).
"""

DRAWN = 8_192
"""Number of items in the sampled softmax (ADR 0026)."""

BLEND_DIM = 256
"""Embedding size K of a FISM with a softmax loss, alone or in `blended` (ADR 0026).

Other FISMs have K = 64, and the FISM of `best` on short histories has that of `SHORT_BLEND`.
"""

POSITIVES = 20_000_000
"""Most positives that a training of `best` sees, in all epochs together (ADR 0026).

On logs of more than about 2 million rows, this limit lowers the number of epochs to at least 2.
"""


ROUGH = 50_000
"""Rows of a log from which `best` multiplies in bfloat16.

A smaller log trains in seconds anyway, and so its lists depend less on the processor.
"""


BY_ROWS = 20_000_000
"""Numbers in embedding tables from which on presets update tables by rows.

From about there a step is faster so (ADR 0049, `python benchmarks/processes.py --only tables`).
"""


def auto(model: str, log: Interactions) -> Config:
    """The default preset: `best` without a refit, that is, validation rows are not trained on.

    See ADR 0026 and 0047.
    """
    config = best(model, log)
    return replace(config, preset="auto", train=replace(config.train, refit=False))


def best(model: str, log: Interactions) -> Config:
    """Settings for the best recommendations (ADR 0026).

    They include a refit: the model is trained again on training and validation rows.

    - COMET on a log whose times give an order: one layer over the user's sequence, a softmax loss,
      averaged weights and a cosine schedule. K, N, dropout, batch size, number of epochs and the
      sampled softmax depend on the size of the log and the length of its histories. With short
      histories the scores of a FISM are added (ADR 0047).
    - COMET on a log without an order: preset `static` with a refit.
    - SASRec: a softmax loss and the same schedule, with its own K, N, heads, epochs and learning
      rate (`SEQUENCES`).
    - FISM on a small log with short histories: a softmax loss.
    - Any other model: preset `paper`.

    Full metrics select the epochs of COMET on a log with an order, and of SASRec. They also select
    other models that score all items at once, on small logs with short histories and at least
    `MANY` validation items. Otherwise sampled metrics select.
    """
    short, selection_metric = _short(log), _selection_metric(model, log)
    if model == "fism" and short:
        config = paper(model, log)
        return replace(
            config,
            preset="best",
            model=replace(config.model, embedding_dim=BLEND_DIM),
            train=replace(
                config.train, loss="softmax", mask_known_positives=True,
                softmax_items=_drawn(log, BLEND_DIM), learning_rate=3e-3, weight_decay=1e-5,
                full_epochs=4, patience=3, selection_metric=selection_metric,
            ),
        )  # fmt: skip
    if model == "sasrec" or (model == "comet" and log.time_scope != "none"):
        return _best_of_sequences(model, log)
    config = static(model, log)
    train = replace(config.train, refit=True, selection_metric=selection_metric)
    return replace(config, preset="best", train=train)


def _best_of_sequences(model: str, log: Interactions) -> Config:
    """Preset `best` of the models of sequences: COMET in layers, and SASRec (ADR 0047)."""
    size = "large" if len(log) >= SMALL else "short" if _short(log) else "small"
    model_settings, train = SEQUENCES[model, size]
    blend = BlendConfig()
    if model == "comet":
        model_settings = COMET_SEQUENCES | model_settings
        blend = BlendConfig(**SHORT_BLEND) if size == "short" else blend
    epochs = min(train["epochs"], max(2, POSITIVES // max(len(log), 1)))
    return Config(
        name=model,
        preset="best",
        model=base.config_class(model)(**model_settings),
        blend=blend,
        train=TrainConfig(
            **train | {"epochs": epochs, "full_epochs": epochs},
            learning_rate=3e-3 if model == "comet" else 2e-3,
            loss="softmax", softmax_items=_drawn(log, model_settings["embedding_dim"]),
            schedule="cosine", warmup=0.5, average=0.995, patience=0, refit=True,
            selection_metric="full", matmul_precision="medium" if len(log) >= ROUGH else "highest",
        ),
    )  # fmt: skip


def blended(model: str, log: Interactions) -> Config:
    """`best` of COMET in versions before 0.3, from which the study's records are (ADR 0026).

    Causal histories are encoded one by one, and the scores of a FISM are added. The sampled softmax
    begins where that of `best` does now (`PRODUCTS`), which changes no log of the study.

    Raises
    ------
    ConfigError
        When the model is not COMET.
    """
    if model != "comet":
        raise ConfigError(f"preset blended: only comet has it, not {model}; use best")
    if log.time_scope == "none":
        return replace(best(model, log), preset="blended")
    short, small = _short(log), len(log) < SMALL
    k = 64 if small else 128
    epochs = 16 if small else min(10, max(2, POSITIVES // len(log)))
    fism = paper("fism", log).model
    return Config(
        name=model,
        preset="blended",
        model=base.config_class(model)(
            history="causal", towers="user", embedding_dim=k,
            history_length=50 if small else 100,
        ),
        blend=BlendConfig(
            model="fism", preset="best" if short else "paper",
            embedding_dim=BLEND_DIM if short else fism.embedding_dim, alpha=fism.alpha,
        ),
        train=TrainConfig(
            loss="softmax", mask_known_positives=True, softmax_items=_drawn(log, k),
            batch_size=2048 if small else 4096, learning_rate=2e-3, schedule="cosine", warmup=0.5,
            epochs=epochs, full_epochs=epochs, patience=0, average=0.99, refit=True,
            selection_metric=_selection_metric(model, log),
        ),
    )  # fmt: skip


def _short(log: Interactions) -> bool:
    """Whether the log is small and its histories are short; see `SMALL` and `SHORT`."""
    return len(log) < min(SMALL, SHORT * log.n_users)


def _selection_metric(model: str, log: Interactions) -> Literal["sampled", "full"]:
    """Metric by which `best` chooses the epoch: among sampled candidates, or among all items.

    Models that score each pair separately are too slow for all items.
    """
    ranks_all_items = base.non_iterative(model) or base.two_tower(model)
    if not ranks_all_items or not _short(log):
        return "sampled"
    # Users with one or two rows have no validation item.
    validation_items = int((np.diff(log.user_starts) > 2).sum())
    return "full" if validation_items >= MANY else "sampled"


def _drawn(log: Interactions, k: int) -> int:
    """Number of sampled items in the softmax loss; 0 for a softmax over all items."""
    few = log.n_items < 2 * DRAWN or (log.n_items < WIDE and len(log) * log.n_items * k < PRODUCTS)
    return 0 if few else DRAWN


def static(model: str, log: Interactions) -> Config:
    """Settings for histories without an order, without a refit.

    From `MEDIUM` rows on, COMET has the settings of preset `paper`. On smaller logs it has K = 64
    and batches of 2,048. On MovieLens-100K, more steps per epoch matter more than fewer tower
    passes, and K = 64 keeps such an epoch short (docs/log-archive.md, 2026-11-23). Other models
    have the settings of preset `paper`.
    """
    config = paper(model, log)
    train = replace(config.train, refit=False)
    if model != "comet" or len(log) >= MEDIUM:
        return replace(config, preset="static", train=train)
    return replace(
        config,
        preset="static",
        model=replace(config.model, embedding_dim=64),
        train=replace(
            train, batch_size=2048, learning_rate=3e-3, warmup=0.0, average=0.0, epochs=60,
            full_epochs=30, patience=8,
        ),
    )  # fmt: skip


def paper(model: str, log: Interactions) -> Config:
    """Settings with which the paper's tables were reproduced, with a refit.

    COMET has the settings of the paper: K = 128, widths 1, 8, 32 and 128, 8 channels, N = 50,
    dropout 0.3 and Adam. The paper does not state batch size, learning rate and averaging, so this
    library chose them (ADR 0010, 0028). For other models the paper prints search grids without the
    chosen values, so this library searched them (ADR 0019).
    """
    size = "small" if len(log) < SMALL else "large"
    model_settings, train_settings = SEARCHED.get((model, size), ({}, {}))
    common = COMMON[size] | BATCHES.get(model, {})
    if model == "sasrec":
        common, model_settings = PUBLISHED["short" if _short(log) else "long"]
    if model == "comet":
        common = {"batch_size": 8192}
        if len(log) >= MEDIUM:
            common = LARGE_TABLES if large_tables(log) else WHOLE_TABLES
    return Config(
        name=model,
        preset="paper",
        model=base.config_class(model)(**model_settings),
        train=TrainConfig(**{"refit": True, **common, **train_settings}),
    )


def large_tables(log: Interactions) -> bool:
    """Whether users and items together are more than the batch size of `WHOLE_TABLES`."""
    return log.n_users + log.n_items > int(WHOLE_TABLES["batch_size"])


def paper_literal(model: str, log: Interactions) -> Config:
    """Preset `paper`, but histories keep the item to predict: a leak that the paper may have.

    Raises
    ------
    ConfigError
        When the model reads no history.
    """
    config = paper(model, log)
    settings = {field.name for field in fields(config.model)}
    if "exclude_target" not in settings:
        raise ConfigError(f"{model} reads no history, so it has no preset paper-literal; use paper")
    changes: dict[str, Any] = {"exclude_target": False}
    if "history_dropout" in settings:
        changes["history_dropout"] = 0.0
    return replace(config, preset="paper-literal", model=replace(config.model, **changes))


VARIANTS: dict[str, dict[str, Any]] = {
    "widths-1": {"widths": (1,)},
    "widths-1-8": {"widths": (1, 8)},
    "widths-1-8-32": {"widths": (1, 8, 32)},
    "cnn-only": {"cross": "cnn"},
    "mlp-only": {"cross": "mlp"},
    "original-only": {"enrich": "original", "id_embedding_dropout": 0.0},
    "interaction-only": {"enrich": "interaction"},
    "permuted-dimensions": {"permute_dimensions": True},
    "shuffled-history": {"shuffle_history": True},
    "frozen-filters": {"freeze_filters": True},
    "matched-mlp": {"cross": "matched-mlp"},
    "kept-target": {"exclude_target": False, "history_dropout": 0.0},
}
"""Variants of COMET (Tables IV, V, Figures 3, 4) and falsifications, as changes to `static`."""


def _variant(name: str, model: str, log: Interactions) -> Config:
    """Preset `static` of COMET with the changes of the variant `name`; see `VARIANTS`."""
    if model != "comet":
        raise ConfigError(f"preset {name} is a variant of comet; {model} has no such preset")
    config = static(model, log)
    return replace(config, preset=name, model=replace(config.model, **VARIANTS[name]))


def blend_config(config: Config, log: Interactions) -> Config | None:
    """Complete config of the second model of a blend; None if `config` asks for no blend.

    In a blend, the scores of the second model are added to those of the main model.
    """
    blend = config.blend
    if blend.model == "none":
        return None
    second = preset(blend.preset, blend.model, log)
    train = replace(
        second.train, refit=config.train.refit, selection_metric=config.train.selection_metric
    )
    if config.preset != "blended":  # the study's records of `blended` have a FISM in float32
        train = replace(train, matmul_precision=config.train.matmul_precision)
    if blend.epochs > 0:
        train = replace(train, epochs=blend.epochs, full_epochs=blend.epochs, patience=0)
    model = replace(second.model, **blend.settings)
    return replace(second, model=model, train=train, seed=config.seed, protocol=config.protocol)


COMMON: dict[str, dict[str, Any]] = {
    "small": {"batch_size": 1024, "negatives": 8, "average": 0.99},
    "large": {"batch_size": 4096, "negatives": 8, "average": 0.998},
}
"""Training settings of the baselines, by the size of the log (`SMALL`).

The paper states 4 negatives and no averaging. Eight negatives and averaged weights helped MF on
validation items (docs/log-archive.md, 2026-11-24), and baselines should be well tuned (ADR 0019).
"""

MEDIUM = 350_000
"""Rows of a log from which on COMET's `paper` and `static` use the settings below (ADR 0028).

A batch is at most a tenth of the log (ADR 0010). A tenth of 350,000 rows is enough for the batch
of `WHOLE_TABLES`.
"""

WHOLE_TABLES: dict[str, Any] = {
    "batch_size": 32_768, "learning_rate": 8e-3, "weight_decay": 1e-6, "warmup": 1.0,
    "average": 0.98, "full_epochs": 40, "patience": 8,
}  # fmt: skip
"""COMET's training settings if users and items together are at most one batch.

Nearly every user and item occurs in each batch, so a positive needs few tower passes (ADR 0028).
"""

LARGE_TABLES: dict[str, Any] = {
    **WHOLE_TABLES, "batch_size": 8192, "learning_rate": 4e-3, "average": 0.995,
    "negative_pool": 2048, "positives_per_user": 4, "patience": 4,
}  # fmt: skip
"""COMET's training settings if users and items together are more than that batch.

Smaller batches give more steps per epoch. Grouped positives and a pool of negatives keep the tower
passes of a step few (ADR 0028).
"""

BATCHES: dict[str, dict[str, Any]] = {
    # The full history of a user is summed once per batch, so grouping positives saves time.
    "svdpp": {"positives_per_user": 16, "negatives": 4},
    "fism": {"positives_per_user": 16, "negatives": 4},
    # A pair takes 3 MFLOP and 130 KiB of memory, so batches are small.
    "convncf": {"batch_size": 512, "negatives": 4},
}
"""Training settings of single baselines that replace those of `COMMON`."""

PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "short": (
        {
            "negatives": 1, "batch_size": 1024, "learning_rate": 1e-3, "epochs": 100,
            "full_epochs": 40, "patience": 10,
        },
        {"embedding_dim": 64, "history_length": 50, "heads": 1, "dropout": 0.5},
    ),
    "long": (
        {
            "negatives": 1, "batch_size": 8192, "learning_rate": 1e-3, "epochs": 100,
            "full_epochs": 50, "patience": 10,
        },
        {"embedding_dim": 64, "history_length": 200, "heads": 2, "dropout": 0.2},
    ),
}  # fmt: skip
"""SASRec's settings of training and model in `paper`, for short histories (`SHORT`) and for others.

They are published ones: two blocks, one negative of each positive, Adam at 0.001 and batches of
about 128 users (ADR 0046).
"""

SEQUENCES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("comet", "short"): (
        {"embedding_dim": 128, "history_length": 50, "dropout": 0.5},
        {"batch_size": 1024, "epochs": 12},
    ),
    ("comet", "small"): (
        {"embedding_dim": 64, "history_length": 50, "dropout": 0.3},
        {"batch_size": 512, "epochs": 16},
    ),
    ("comet", "large"): (
        {"embedding_dim": 256, "hidden": (1024,), "history_length": 100, "dropout": 0.2},
        {"batch_size": 1024, "epochs": 5},
    ),
    ("sasrec", "short"): (
        {"embedding_dim": 128, "history_length": 50, "heads": 1, "dropout": 0.5},
        {"batch_size": 1024, "epochs": 20},
    ),
    ("sasrec", "small"): (
        {"embedding_dim": 64, "history_length": 200, "heads": 2, "dropout": 0.3},
        {"batch_size": 512, "epochs": 16},
    ),
    ("sasrec", "large"): (
        {"embedding_dim": 128, "history_length": 200, "heads": 2, "dropout": 0.2},
        {"batch_size": 1024, "epochs": 10},
    ),
}
"""(Model, size of the log) → settings of the model and of its training in `best` (ADR 0047).

"large" logs have at least `SMALL` rows. Of the others, those with short histories (`SHORT`) are
"short".
"""

SHORT_BLEND: dict[str, Any] = {
    "model": "fism", "preset": "best", "embedding_dim": 128, "epochs": 6,
}  # fmt: skip
"""Blend of COMET in `best` on logs with short histories (ADR 0047)."""

COMET_SEQUENCES: dict[str, Any] = {
    "layers": 1, "history": "causal", "towers": "user", "user_embedding": False, "channels": 4,
    "widths": (1, 4096),
}  # fmt: skip
"""Settings of COMET in `best`, whatever the size of the log. Widths above K become K."""

SEARCHED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("mf", "small"): ({"embedding_dim": 128}, {"learning_rate": 2e-3, "weight_decay": 5e-7}),
    ("gmf", "small"): ({"embedding_dim": 64}, {"learning_rate": 2e-3, "weight_decay": 5e-7}),
    ("mlp", "small"): ({"embedding_dim": 64, "dropout": 0.3}, {"learning_rate": 5e-3}),
    ("neumf", "small"): ({"embedding_dim": 64, "dropout": 0.3}, {"learning_rate": 2e-3}),
    ("svdpp", "small"): ({"embedding_dim": 64}, {"learning_rate": 2e-3, "weight_decay": 5e-7}),
    ("fism", "small"): (
        {"embedding_dim": 64, "alpha": 0.5}, {"learning_rate": 5e-3, "weight_decay": 2e-6}
    ),
    ("itemknn", "small"): ({"neighbours": 20, "shrink": 0.0}, {}),
    ("ease", "small"): ({"l2": 200.0}, {}),
    ("mf", "large"): (
        {"embedding_dim": 128}, {"learning_rate": 2e-3, "weight_decay": 5e-7, "negatives": 12}
    ),
    ("gmf", "large"): ({"embedding_dim": 128}, {"learning_rate": 2e-3, "weight_decay": 5e-7}),
    ("mlp", "large"): (
        {"embedding_dim": 128, "hidden": (256, 128, 64), "dropout": 0.2},
        {"learning_rate": 2e-3, "weight_decay": 2e-7},
    ),
    ("neumf", "large"): (
        {"embedding_dim": 128, "hidden": (256, 128, 64), "dropout": 0.2},
        {"learning_rate": 1e-3, "weight_decay": 5e-7},
    ),
    ("svdpp", "large"): (
        {"embedding_dim": 64}, {"learning_rate": 5e-3, "weight_decay": 1e-7, "batch_size": 8192}
    ),
    ("fism", "large"): (
        {"embedding_dim": 64, "alpha": 0.75}, {"learning_rate": 5e-3, "batch_size": 8192}
    ),
}  # fmt: skip
"""(Model, size of the log) → (settings of the model, settings of its training).

ADR 0019 lists which settings come from a recorded search.
"""

PRESETS: dict[str, Callable[[str, Interactions], Config]] = {
    "auto": auto,
    "best": best,
    "static": static,
    "paper": paper,
    "paper-literal": paper_literal,
    "blended": blended,
    **{name: partial(_variant, name) for name in VARIANTS},
}
"""Name of a preset → function that takes a model's name and a log, and returns a config."""


def preset(name: str, model: str, log: Interactions) -> Config:
    """Complete config that the preset `name` gives the model `model` for this log.

    Raises
    ------
    ConfigError
        When the name is unknown. The message suggests the nearest name.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", str(name), list(PRESETS)))
    return PRESETS[name](model, log)


def by_rows(config: Config, log: Interactions) -> Config:
    """The config, with large tables updated by rows unless the preset is of the paper."""
    every_item = config.train.loss == "softmax" and not config.train.softmax_items
    if base.non_iterative(config.name) or every_item or config.preset.startswith("paper"):
        return config  # a full softmax reads every item in every step
    if base.table_numbers(config, log.n_users, log.n_items) < BY_ROWS:
        return config
    return replace(config, train=replace(config.train, table_optimizer="sparse_adam"))


OF_A_SOLUTION = ("train.refit", "train.matmul_precision", "train.selection_metric")
"""Training settings that non-iterative models accept, although they have no epochs.

A comparison gives one precision to all models, and a search reads the selection metric.
"""


def bare(key: str) -> str:
    """Keyword argument for a dotted key: "train.epochs" → "epochs", "blend.x" → "blend_x"."""
    room, _, name = key.partition(".")
    return f"blend_{name}" if room == "blend" else name


def dotted(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the names of settings by dotted keys, e.g. "epochs" by "train.epochs".

    If the model and its training both have a setting of that name, the model's setting is meant.

    Raises
    ------
    ConfigError
        When a name is unknown.
    """
    names = {f.name: f"train.{f.name}" for f in fields(config.train)}
    names |= {f.name: f"model.{f.name}" for f in fields(config.model)}
    names |= {f"blend_{f.name}": f"blend.{f.name}" for f in fields(config.blend)}
    names |= {key: key for key in config.setting_names()}
    for name in settings:
        if name not in names:
            known = [key for key in names if ("." in key) == ("." in name)]
            raise ConfigError(unknown("setting", name, known))
    return {names[name]: value for name, value in settings.items()}


def check_protocol(config: Config, settings: Mapping[str, Any], protocol: ProtocolConfig) -> None:
    """Check that the caller's protocol settings agree with the split, which `protocol` describes.

    Raises
    ------
    ConfigError
        When one of the `settings` differs from the protocol of the split.
    """
    given_split = protocol.split == "given"
    makers = {"leave_one_out": "leave_one_out", "given": "given_test", "time": "time_split"}
    maker = makers[protocol.split]
    for key in dotted(config, settings):
        room, name = key.split(".", 1)
        if room != "protocol" or (given_split and name == "negatives"):  # candidates from a file
            continue
        if config.get(key) != getattr(protocol, name):
            advice = f"pass it to {maker}, or to train --set"
            if name == "split":
                advice = "omit this setting; --test and given_test read a split of your own"
            elif name in OF_A_TIME_SPLIT:
                advice = "omit this setting; time_split and --split take it"
            raise ConfigError(
                f"{key} = {config.get(key)}: the split was made with {getattr(protocol, name)}; "
                f"{advice}"
            )


def applied(plain: Config, settings: Mapping[str, Any]) -> Config:
    """Replace settings of the preset config `plain` by the caller's `settings`, and check them.

    Raises
    ------
    ConfigError
        When a setting is unknown, out of range, or does not apply to this model, such as `epochs`
        of a non-iterative model.
    """
    changes = dotted(plain, settings)
    config = plain.with_settings(changes)
    base.check(config)
    check_blend(config)
    if base.non_iterative(config.name):
        for key in changes:
            unused = key.startswith("train.") and key not in OF_A_SOLUTION
            if unused and config.get(key) != plain.get(key):
                raise ConfigError(
                    f"{key}: {config.name} is not trained in epochs; omit this setting"
                )
    return config


def check_without_log(config_for: Callable[[Interactions], Config]) -> None:
    """Raise an error if `config_for` raises one for every kind of log.

    So wrong settings fail before a log is read.
    """
    for log in (_NO_LOG, _SHORT_HISTORIES):
        with suppress(ConfigError):
            config_for(log)
            return
    config_for(_ORDERED)


_NO_LOG = Interactions(
    users=np.empty(0, np.int32),
    items=np.empty(0, np.int32),
    times=None,
    time_scope="none",
    user_ids=Ids("int", np.empty(0, np.int64)),
    item_ids=Ids("int", np.empty(0, np.int64)),
)
"""Empty log whose times give no order."""
_ORDERED = replace(_NO_LOG, times=np.empty(0, np.int64), time_scope="per_user")
"""Empty log whose times order the rows of each user."""
_SHORT_HISTORIES = replace(_ORDERED, user_ids=Ids("int", np.zeros(1, np.int64)))
"""Ordered log with one user and no rows, so its histories count as short."""

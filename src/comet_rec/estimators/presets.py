"""Presets: functions that return a complete frozen config for a model and a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from comet_rec.config import BlendConfig, Config, ProtocolConfig, TrainConfig, unknown
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.models import base
from comet_rec.training.blend import check as check_blend

SMALL = 500_000
"""Rows below which `auto` takes the small settings."""

SHORT = 40
"""Mean rows a user below which a FISM has a softmax: better with 9 and 28, worse with 106
(ADR 0026)."""

MANY = 10_000
"""Validation items from which on figures over the whole catalogue choose: a guess between 1,500,
where that gained nothing, and 17,000 (ADR 0026)."""

WIDE = 50_000
"""Items from which on a softmax of `best` is estimated from drawn ones."""

PRODUCTS = 2_560_000_000_000
"""Products of an epoch, rows times items times K, from which on it is too (ADR 0026)."""

DRAWN = 8_192
"""Items that it is estimated from."""

BLEND_DIM = 256
"""K of a FISM under a softmax (ADR 0026)."""

POSITIVES = 20_000_000
"""Positives that a training of `best` sees at most, but for two epochs (ADR 0026)."""


def auto(model: str, log: Interactions) -> Config:
    """Preset of a caller who chooses none: like `best`, without a refit (ADR 0026)."""
    config = best(model, log)
    return replace(config, preset="auto", train=replace(config.train, refit=False))


def best(model: str, log: Interactions) -> Config:
    """The best lists that we know how to get, figures with a refit.

    COMET on a log with times: causal histories, a softmax over the catalogue, the user's tower
    alone, averaged weights and a rate that falls to zero; K, N, batches, epochs and whether items
    are drawn by the size of the log (ADR 0026). On a log without an order: as
    `static`. FISM on a log of short histories: a softmax too (ADR 0026). The others: as `paper`.
    Where histories are short and users many, what ranks a catalogue at once is chosen by figures
    over the whole of it (ADR 0026).
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
    if model != "comet" or log.time_scope == "none":
        config = static(model, log)
        train = replace(config.train, refit=True, selection_metric=selection_metric)
        return replace(config, preset="best", train=train)
    small = len(log) < SMALL
    k = 64 if small else 128
    epochs = 16 if small else min(10, max(2, POSITIVES // len(log)))
    fism = paper("fism", log).model
    return Config(
        name=model,
        preset="best",
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
            selection_metric=selection_metric,
        ),
    )  # fmt: skip


def _short(log: Interactions) -> bool:
    """Whether histories are short, and the log small enough for a second softmax (ADR 0026)."""
    return len(log) < min(SMALL, SHORT * log.n_users)


def _selection_metric(model: str, log: Interactions) -> Literal["sampled", "full"]:
    """Selection metric for a log; models of pairs could rank few users in full (ADR 0026)."""
    at_once = base.non_iterative(model) or base.two_tower(model)
    if not at_once or not _short(log):
        return "sampled"
    validated = int((np.diff(log.user_starts) > 2).sum())  # others have no validation item
    return "full" if validated >= MANY else "sampled"


def _drawn(log: Interactions, k: int) -> int:
    """Items that a softmax is estimated from; 0 for all."""
    return 0 if log.n_items < WIDE and len(log) * log.n_items * k < PRODUCTS else DRAWN


def static(model: str, log: Interactions) -> Config:
    """Histories without order, settings by the size of the log.

    COMET: from 350,000 rows on, the paper's setting. Below, K = 64 and batches of 2,048:
    on MovieLens-100K more steps an epoch count for more than fewer tower passes, and K = 64 makes
    an epoch short enough for that (docs/log.md, 2026-11-23).
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
    """Settings that figures are reported with.

    COMET: the paper's own, K 128, widths 1/8/32/128, 8 channels, N 50, dropout 0.3, Adam; batch,
    rate and averaging, which it leaves open, are ours (ADR 0010, 0028). The paper prints
    grids for the others, not what they chose: theirs are ours (ADR 0019).
    """
    size = "small" if len(log) < SMALL else "large"
    model_settings, train_settings = SEARCHED.get((model, size), ({}, {}))
    common = COMMON[size] | BATCHES.get(model, {})
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
    """Whether users and items are more than a batch of `WHOLE_TABLES` could hold."""
    return log.n_users + log.n_items > int(WHOLE_TABLES["batch_size"])


def paper_literal(model: str, log: Interactions) -> Config:
    """As `paper`, with the target kept in the history: the leak that the paper may have had.

    Raises
    ------
    ConfigError
        For models that are shown no history.
    """
    config = paper(model, log)
    settings = {field.name for field in fields(config.model)}
    if "exclude_target" not in settings:
        raise ConfigError(f"{model} is shown no history: paper-literal means nothing for it")
    kept: dict[str, Any] = {"exclude_target": False}
    if "history_dropout" in settings:
        kept["history_dropout"] = 0.0
    return replace(config, preset="paper-literal", model=replace(config.model, **kept))


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
"""COMET's variants (Tables IV, V, Figures 3, 4) and falsifications: `static` with one change."""


def _variant(name: str, model: str, log: Interactions) -> Config:
    if model != "comet":
        raise ConfigError(f"preset {name} is a variant of comet; {model} has none")
    config = static(model, log)
    return replace(config, preset=name, model=replace(config.model, **VARIANTS[name]))


def blend_config(config: Config, log: Interactions) -> Config | None:
    """Complete config of a blend's second model; None without a blend."""
    blend = config.blend
    if blend.model == "none":
        return None
    second = preset(blend.preset, blend.model, log)
    train = replace(
        second.train, refit=config.train.refit, selection_metric=config.train.selection_metric,
        full_epochs=blend.epochs or second.train.full_epochs,
    )  # fmt: skip
    model = replace(second.model, **blend.settings)
    return replace(second, model=model, train=train, seed=config.seed, protocol=config.protocol)


COMMON: dict[str, dict[str, Any]] = {
    "small": {"batch_size": 1024, "negatives": 8, "average": 0.99},
    "large": {"batch_size": 4096, "negatives": 8, "average": 0.998},
}
"""Training of the baselines by the size of the log: more negatives and averaged weights than the
paper names, since both helped MF (docs/log.md, 2026-11-24): opponents are tuned, not copied."""

MEDIUM = 350_000
"""Rows from which on COMET takes `WHOLE_TABLES`, whose batch is at most a tenth of the log, or
`LARGE_TABLES`."""

WHOLE_TABLES: dict[str, Any] = {
    "batch_size": 32_768, "learning_rate": 8e-3, "weight_decay": 1e-6, "warmup": 1.0,
    "average": 0.98, "full_epochs": 40, "patience": 8,
}  # fmt: skip
"""A batch in which nearly every user and item occurs: few tower passes a positive (ADR 0028)."""

LARGE_TABLES: dict[str, Any] = {
    **WHOLE_TABLES, "batch_size": 8192, "learning_rate": 4e-3, "average": 0.995,
    "negative_pool": 2048, "positives_per_user": 4, "patience": 4,
}  # fmt: skip
"""Where users and items are more than such a batch could hold: more steps, each of few tower
passes (ADR 0028)."""

BATCHES: dict[str, dict[str, Any]] = {
    # A whole history is summed once for all of a user's positives in a batch.
    "svdpp": {"positives_per_user": 16, "negatives": 4},
    "fism": {"positives_per_user": 16, "negatives": 4},
    # A pair costs 3 MFLOP and 130 KiB.
    "convncf": {"batch_size": 512, "negatives": 4},
}

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
"""Model and size of the log → settings of the model and of training; ADR 0019 says which come
out of a recorded search and which do not yet."""

PRESETS: dict[str, Callable[[str, Interactions], Config]] = {
    "auto": auto,
    "best": best,
    "static": static,
    "paper": paper,
    "paper-literal": paper_literal,
    **{name: partial(_variant, name) for name in VARIANTS},
}


def preset(name: str, model: str, log: Interactions) -> Config:
    """Complete config of a named preset for a model and a log.

    Raises
    ------
    ConfigError
        For an unknown name; the nearest one is named.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", str(name), list(PRESETS)))
    return PRESETS[name](model, log)


OF_A_SOLUTION = ("train.refit", "train.matmul_precision", "train.selection_metric")
"""Training settings of a model without epochs. A table gives all models one precision, and a search
looks at the selection metric."""


def bare(key: str) -> str:
    """Name of a dotted key as a keyword: ``epochs``, and ``blend_epochs`` of a blend."""
    room, _, name = key.partition(".")
    return f"blend_{name}" if room == "blend" else name


def dotted(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted keys; bare names are looked up in the model, then in training."""
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
    """Refuse protocol settings that the split at hand was not made with.

    Raises
    ------
    ConfigError
    """
    given_split = protocol.split == "given"
    maker = "given_test" if given_split else "leave_one_out"
    for key in dotted(config, settings):
        room, name = key.split(".", 1)
        if room != "protocol" or (given_split and name == "negatives"):  # a file's has its own
            continue
        if config.get(key) != getattr(protocol, name):
            todo = f"give it to {maker}, or to train --set"
            if name == "split":
                todo = "leave it out; --test and given_test take one of your own"
            raise ConfigError(
                f"{key} = {config.get(key)}: the split was made with {getattr(protocol, name)}; "
                f"{todo}"
            )


def applied(plain: Config, settings: Mapping[str, Any]) -> Config:
    """A preset with settings by their callers' names.

    Raises
    ------
    ConfigError
        For settings that are unknown, out of range or not for this model, such as another length
        of training for one that has none.
    """
    changes = dotted(plain, settings)
    config = plain.with_settings(changes)
    base.check(config)
    check_blend(config)
    if base.non_iterative(config.name):
        for key in changes:
            idle = key.startswith("train.") and key not in OF_A_SOLUTION
            if idle and config.get(key) != plain.get(key):
                raise ConfigError(f"{key}: {config.name} is not trained in epochs; leave it out")
    return config


def check_without_log(config_for: Callable[[Interactions], Config]) -> None:
    """Tell a setting that is wrong for every kind of log, before any data are read."""
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
_ORDERED = replace(_NO_LOG, times=np.empty(0, np.int64), time_scope="per_user")
_SHORT_HISTORIES = replace(_ORDERED, user_ids=Ids("int", np.zeros(1, np.int64)))
"""Presets look at a log's order, and at its rows a user."""

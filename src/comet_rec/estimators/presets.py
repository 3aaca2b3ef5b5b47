"""Presets: functions that return a complete frozen config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from comet_rec.config import Config, TrainConfig, unknown
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.models.comet import CometConfig

SMALL = 500_000
"""Rows below which `auto` takes the small setting."""


def auto(log: Interactions) -> Config:
    """By the size of the log.

    From half a million rows on, the paper's setting. Below, K = 64 and batches of 2,048: on
    MovieLens-100K more steps an epoch count for more than fewer tower passes, and K = 64 makes
    an epoch short enough for that (docs/log.md, 2026-11-23).
    """
    config = paper(log)
    train = replace(config.train, refit=False)
    if len(log) >= SMALL:
        return replace(config, preset="auto", train=train)
    return replace(
        config,
        preset="auto",
        model=replace(config.model, embedding_dim=64),
        train=replace(
            train, batch_size=2048, learning_rate=3e-3, epochs=60, full_epochs=30, patience=8
        ),
    )


def paper(log: Interactions) -> Config:
    """The paper's setting: K 128, widths 1/8/32/128, 8 channels, N 50, dropout 0.3, Adam."""
    train = TrainConfig(batch_size=8192, learning_rate=1e-3, refit=True)
    return Config(name="comet", preset="paper", model=CometConfig(), train=train)


def paper_literal(log: Interactions) -> Config:
    """As `paper`, with the target kept in the history: the leak that the paper may have had."""
    config = paper(log)
    model = replace(config.model, exclude_target=False, leave_out=0.0)
    return replace(config, preset="paper-literal", model=model)


PRESETS: dict[str, Callable[[Interactions], Config]] = {
    "auto": auto,
    "paper": paper,
    "paper-literal": paper_literal,
}


def preset(name: str, log: Interactions) -> Config:
    """Complete config of a named preset for this log.

    Raises
    ------
    ConfigError
        For an unknown name; the nearest one is named.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, list(PRESETS)))
    return PRESETS[name](log)

"""Presets: functions that return a complete frozen config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from comet_rec.config import Config, TrainConfig, unknown
from comet_rec.data.interactions import Interactions
from comet_rec.errors import ConfigError
from comet_rec.models.comet import CometConfig


def auto(log: Interactions) -> Config:
    """By the size of the log: small logs get a smaller K and hence fewer weights to fit."""
    config = paper(log)
    small = len(log) < 500_000
    return replace(
        config,
        preset="auto",
        model=replace(config.model, embedding_dim=64) if small else config.model,
        train=replace(config.train, refit=False),
    )


def paper(log: Interactions) -> Config:
    """The paper's setting: K 128, widths 1/8/32/128, 8 channels, N 50, dropout 0.3, Adam."""
    return Config(name="comet", preset="paper", model=CometConfig(), train=TrainConfig(refit=True))


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

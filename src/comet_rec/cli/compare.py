"""The command ``comet-rec compare``: train several models on one split and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from comet_rec.cli import options
from comet_rec.cli.tables import show_table
from comet_rec.cli.terminal import folded, say, show, width
from comet_rec.errors import ConfigError
from comet_rec.files import write_text_whole
from comet_rec.text import shortened


@options.reads_log
def compare(
    data: options.Data,
    models: Annotated[
        str,
        typer.Option(
            help="Model names, separated by commas; the others are tested against the first."
        ),
    ],
    preset: Annotated[str, typer.Option(help="Preset: auto, best, static or paper.")] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="MODEL:KEY=VALUE", help="Change a setting of one model; repeatable."
        ),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option(help="Train each model again with the validation rows, for a fair test."),
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of training.")] = 0,
    split_by: options.SplitBy = "leave-one-out",
    device: options.Device = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="JSON file for all figures.")
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Train several models on one split; print figures, intervals, paired tests and costs."""
    names = list(dict.fromkeys(options.names(models)))
    if len(names) < 2:
        raise ConfigError("--models: give at least two names, e.g. comet,mf")
    if out is not None:
        options.check_file(out)
    from comet_rec.config import ProtocolConfig
    from comet_rec.experiments import compare as study

    changes = _by_model(settings or [])
    starts = [part for name in names for part in study.PRETRAINED.get(name, ("", {}))[1]]
    for name in changes:
        if name not in (*names, *starts):
            raise ConfigError(f"--set {name}:…: {name} is not compared; add it to --models")
    log = options.read_data(data, reading)
    split = options.split_of(log, split_by, ProtocolConfig())
    options.say_notes([*log.notes, *split.notes], quiet)
    entries = study.compare(
        split,
        names,
        preset=preset,
        refit=refit,
        settings=changes,
        seed=seed,
        device=device,
        say=lambda line: None if quiet else say(line),
    )
    comparison = study.as_data(entries)
    if json_:
        show(json.dumps(comparison))
    elif width() is not None:
        shown = study.as_table(comparison)
        show_table(shown.columns, shown.texts)
        show("\n".join(["", *(folded(line, 0, width()) for line in study.caption(comparison))]))
    else:
        show(study.as_markdown(comparison))
    if out is not None:
        write_text_whole(out, json.dumps(comparison, indent=1) + "\n")


def _by_model(settings: list[str]) -> dict[str, dict[str, str]]:
    """Settings to change, by model, parsed from texts such as `mf:train.epochs=20`."""
    changes: dict[str, dict[str, str]] = {}
    for text in settings:
        model, colon, setting = text.partition(":")
        if not colon:
            raise ConfigError(
                f"--set {shortened(text)!r}: give MODEL:KEY=VALUE, e.g. mf:train.epochs=20"
            )
        changes.setdefault(model, {}).update(options.pairs([setting]))
    return changes

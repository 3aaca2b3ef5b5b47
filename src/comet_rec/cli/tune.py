"""``comet-rec tune DATA``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.terminal import folded, say, show


@options.reads_log
def tune(
    data: options.Data,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file of all trials, continued if there. Default: DATA's name, here.",
        ),
    ] = None,
    models: Annotated[
        str, typer.Option(help="Names, a comma between; each gets --seconds.")
    ] = "comet",
    seconds: Annotated[float, typer.Option(min=1, help="Wall time a model.")] = 600,
    preset: Annotated[str, typer.Option(help="What is not searched.")] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=VALUE,VALUE…",
            help="Values of a setting to try; repeat. Default: the model's own space.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of search and training.")] = 0,
    device: options.Device = "cpu",
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Search settings on the validation items, the same wall time for every model."""
    from comet_rec.data.split import leave_one_out
    from comet_rec.evaluation.ranking import caution
    from comet_rec.experiments import tuning

    journal = journal or Path(f"{Path(data).name}.journal")
    names = options.names(models)
    fixed = options.pairs(settings or [])
    space = {k: options.values(v) for k, v in options.pairs(search or [], "--search").items()}
    tuning.check(names, journal, space or None, device)
    log = options.read_data(data, reading)
    split = leave_one_out(log)
    options.say_notes([*log.notes, *split.notes, *caution(len(split.validation))], quiet)
    for name in names:  # a wrong setting of the last is told before the first is searched
        tuning.settled(split, name, preset, fixed, space or None, seed)
    found = []
    for name in names:
        best = tuning.tune(
            split, name, journal=journal, seconds=seconds, preset_name=preset, settings=fixed,
            search=space or None, seed=seed, device=device,
            say=lambda line: None if quiet else say(line),
        )  # fmt: skip
        found.append(best)
        if not json_:
            show(folded(_as_text(best), 2))
            show(_as_words(name, preset, {**fixed, **best["settings"]}))
    if json_:
        show(json.dumps({"journal": str(journal), "models": found}))


def _as_words(name: str, preset: str, settings: dict[str, Any]) -> str:
    """Settings as `--set` options for `train`; a list is one word."""
    words = [f"--set {key}={value}".replace(", ", ",") for key, value in settings.items()]
    return f"to train so: {' '.join([f'--model {name} --preset {preset}', *words])}"


def _as_text(best: dict[str, Any]) -> str:
    from comet_rec.training.validation import validation_text

    chosen = ", ".join(f"{key}={value}" for key, value in best["settings"].items())
    figures = validation_text(best["validation"] or {"NDCG@10": 0.0})
    return (
        f"{best['model']}: validation {figures} after {best['epochs']} epochs, {best['trials']} "
        f"trials, {best['seconds']:,.0f} s: {chosen}"
    )

"""The command ``comet-rec tune``: search for the best settings of models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from comet_rec.cli import options
from comet_rec.cli.tables import show_table
from comet_rec.cli.terminal import say, show


@options.reads_log
def tune(
    data: options.Data,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File that records all trials; continued if it exists. Default: named after "
            "DATA, in this folder.",
        ),
    ] = None,
    models: Annotated[str, typer.Option(help="Model names, separated by commas.")] = "comet",
    seconds: Annotated[float, typer.Option(min=1, help="Search time for each model.")] = 600,
    preset: Annotated[
        str, typer.Option(help="Preset for settings that are not searched.")
    ] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Fix a setting.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=VALUE,VALUE…",
            help="Values of a setting to try; repeatable. Default: the model's search space.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of search and training.")] = 0,
    split_by: options.SplitBy = "leave-one-out",
    device: options.Device = "cpu",
    json_: options.Json = False,
    quiet: options.Quiet = False,
    *,
    reading: options.Reading,
) -> None:
    """Search for the best settings on the validation items, for the same time per model."""
    from comet_rec.config import ProtocolConfig
    from comet_rec.evaluation.ranking import caution
    from comet_rec.experiments import tuning

    journal = journal or Path(f"{Path(data).name}.journal")
    names = options.names(models)
    fixed = options.pairs(settings or [])
    space = {k: options.values(v) for k, v in options.pairs(search or [], "--search").items()}
    tuning.check(names, journal, space or None, device)
    log = options.read_data(data, reading)
    split = options.split_of(log, split_by, ProtocolConfig())
    options.say_notes([*log.notes, *split.notes, *caution(len(split.validation))], quiet)
    for name in names:  # report a wrong setting of any model before the first search
        tuning.settled(split, name, preset, fixed, space or None, seed)
    results = []
    for name in names:
        best = tuning.tune(
            split, name, journal=journal, seconds=seconds, preset_name=preset, settings=fixed,
            search=space or None, seed=seed, device=device,
            say=lambda line: None if quiet else say(line),
        )  # fmt: skip
        results.append(best)
        if not quiet and len(names) > 1:
            say(_as_text(best))
    if json_:
        show(json.dumps({"journal": str(journal), "models": results}))
        return
    _show_results(results)
    for name, best in zip(names, results, strict=True):
        show(_as_words(name, preset, {**fixed, **best["settings"]}))


def _show_results(results: list[dict[str, Any]]) -> None:
    """Print a table with the best trial of each model: validation metrics and costs."""
    from comet_rec.training.fit import VALIDATION_METRICS

    validation = [best["validation"] or {"NDCG@10": 0.0} for best in results]
    metrics = [name for name in VALIDATION_METRICS if any(name in each for each in validation)]
    rows = []
    for best, figures in zip(results, validation, strict=True):
        cells = [f"{figures[name]:.4f}" if name in figures else "" for name in metrics]
        rows.append(
            [best["model"], *cells, best["epochs"], best["trials"], f"{best['seconds']:,.0f}"]
        )
    show("best trial of each model, on the validation items")
    show_table(["model", *metrics, "epochs", "trials", "seconds"], rows)


def _as_words(name: str, preset: str, settings: dict[str, Any]) -> str:
    """Line with the options that make `train` use these settings; lists are without blanks."""
    words = [f"--set {key}={value}".replace(", ", ",") for key, value in settings.items()]
    return f"to train with them: {' '.join([f'--model {name} --preset {preset}', *words])}"


def _as_text(best: dict[str, Any]) -> str:
    """One line about the best trial of a model's search."""
    from comet_rec.training.fit import validation_text

    chosen = ", ".join(f"{key}={value}" for key, value in best["settings"].items())
    figures = validation_text(best["validation"] or {"NDCG@10": 0.0})
    return (
        f"{best['model']}: validation {figures} after {best['epochs']} epochs, {best['trials']} "
        f"trials, {best['seconds']:,.0f} s: {chosen}"
    )

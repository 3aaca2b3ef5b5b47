"""The command ``comet-rec update``: learn new rows, and write the result as a new run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comet_rec.cli import options
from comet_rec.cli.evaluate import Run
from comet_rec.cli.interrupt import interruptible
from comet_rec.cli.terminal import show
from comet_rec.errors import InputError, TrainingInterrupted


@options.reads_log
def update(
    run: Run,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Log file of the new rows alone.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option(metavar="RUN2", help="Folder for the updated run.")],
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV or Parquet file with features of old and new items: a column item_id, and "
            "columns of categories, numbers or texts.",
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of training on new and old rows; 0 trains nothing.")
    ] = 0,
    device: options.Device = "cpu",
    quiet: options.Quiet = False,
    reading: options.Reading,
) -> None:
    """Learn new rows, users and items without a training from the start.

    NEW is read as the run's log was read; options given here replace those of the run. NEW may be
    left out with --items. The updated run knows all rows, and it keeps the figures of the first
    training.
    """
    from comet_rec.artefact.lock import locked

    if new is None and items is None:
        raise InputError("give a file of new rows, or --items FILE")
    options.check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: exists and is not empty; remove it or give another --out")
    with locked(out, "train"):
        from comet_rec.estimators.progress import training_progress
        from comet_rec.estimators.registry import load_model
        from comet_rec.estimators.rows import new_rows
        from comet_rec.training.checkpoints import Hooks

        model = load_model(run, device=device)
        options.set_threads(reading.threads)
        rows = new_rows(model.run, new, reading.changed())
        options.say_notes(rows.notes if new else (), quiet)
        before = model.run.interactions
        if "repeats" in reading.changed():  # it decides about pairs that the log has already, too
            stored = {**model.run.reading, "repeats": reading.changed()["repeats"]}
            model.describe(model.run.source, model.run.titles, stored)
        with training_progress(not quiet) as report, interruptible() as stop:
            try:
                model.update(
                    rows, items=items, epochs=epochs, hooks=Hooks(report=report, stop=stop)
                )
            except TrainingInterrupted as error:
                raise TrainingInterrupted(f"{error}; the run {run} is unchanged") from None
        model.save(out)
    if not quiet:
        log = model.run.interactions
        more = {
            "row": len(log) - len(before),
            "user": log.n_users - before.n_users,
            "item": log.n_items - before.n_items,
        }
        counts = [f"{count:,} {word}{'s' * (count != 1)}" for word, count in more.items()]
        again = len(rows) - more["row"] if new else 0
        known = f" ({again:,} known already)" if again else ""
        show(f"new: {', '.join(counts)}{known}")
        show(f"written to {out}")

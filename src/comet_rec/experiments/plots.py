"""Figures of reports and runs as PNG and SVG files, drawn with matplotlib (extra `plot`)."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from comet_rec.artefact.run import Run
from comet_rec.errors import CometWarning, ConfigError, argument
from comet_rec.experiments.tables import METRICS, Drawing

COLOURS = (
    "#3b6ea5", "#c8553d", "#588157", "#8a5a9e", "#d8a31a", "#4a9a9a", "#8c6d4f", "#6b7280",
    "#b5547c", "#2f3e6b", "#9aa33b",
)  # fmt: skip
"""Colours of models. Each model also has its own marks, which helps colour-blind readers."""
MARKS = "osD^vP*Xd<>"

Data = Mapping[str, Any]
"""Data to draw for one log; its form depends on the kind of drawing."""


def draw(drawing: Drawing, folder: Path) -> list[str]:
    """Write a drawing to `folder` as SVG and PNG, and return the names of the two files.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    figure = _figure(drawing)
    names = []
    for form in ("svg", "png"):
        name = f"{drawing.name}.{form}"
        _save(figure, form, folder / name)
        names.append(name)
    return names


def _figure(drawing: Drawing) -> Any:
    plt = pyplot()
    kind = KINDS[drawing.kind]
    sizes = [kind.size(data) for data in drawing.panels.values()]
    n_columns = min(len(sizes), kind.columns)
    n_rows = -(-len(sizes) // n_columns)
    width = n_columns * max(width for width, _ in sizes)
    height = n_rows * max(height for _, height in sizes)
    figure = plt.figure(figsize=(width, height), layout="constrained")
    places = figure.subfigures(n_rows, n_columns, squeeze=False).flat
    for place, (title, data) in zip(places, drawing.panels.items(), strict=False):
        place.suptitle(title)
        kind.fill(place, data, **drawing.options)
    plt.close(figure)  # pyplot forgets the figure, which can still be saved
    return figure


def _save(figure: Any, form: str, target: Path | BinaryIO) -> None:
    # No date inside, so that equal drawings give equal bytes.
    about = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(target, format=form, dpi=150, metadata=about)


def training_curves(run: Run) -> dict[str, bytes]:
    """Picture of the losses and validation metrics of a training, as file name → bytes.

    Empty without matplotlib, and for models that are not trained in epochs.
    """
    stages: dict[str, list[dict[str, Any]]] = {}
    for line in run.log:
        stages.setdefault(line["stage"], []).append(line)
    stages = {stage: lines for stage, lines in stages.items() if len(lines) > 1}
    if not stages or find_spec("matplotlib") is None:
        return {}
    panels = {"": {"stages": stages, "metric": run.config.train.selects}}
    picture = io.BytesIO()
    try:
        _save(_figure(Drawing("curves", "epochs", "", panels)), "png", picture)
    except Exception as error:  # a broken matplotlib must not cost the trained run
        warnings.warn(f"the curves could not be drawn: {error}", CometWarning, stacklevel=2)
        return {}
    return {"curves.png": picture.getvalue()}


def pyplot() -> Any:
    """matplotlib.pyplot with a backend that needs no screen.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ConfigError(
            "figures need matplotlib: pip install matplotlib, or leave them out with "
            f"{argument('figures', False)}"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.hashsalt": "comet-rec",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e5e7eb",
            "axes.axisbelow": True,
        }
    )
    return plt


def bars(figure: Any, models: Data) -> None:
    """Draw a panel for each metric, with a bar for each model ± 1.96 standard errors.

    `models` maps the label of a model to its metrics.
    """
    axes = figure.subplots(1, len(METRICS))
    for axis, metric in zip(axes, METRICS, strict=True):
        heights = [row["sampled"][metric] for row in models.values()]
        errors = [1.96 * row["sampled_se"][metric] for row in models.values()]
        places = range(len(models))
        colours = [COLOURS[place % len(COLOURS)] for place in places]
        axis.bar(places, heights, yerr=errors, color=colours, capsize=3, width=0.7)
        axis.set_xticks(list(places), list(models), rotation=30, ha="right")
        axis.set_ylim(0, None)
        axis.set_title(metric)
        axis.grid(axis="x", visible=False)


def curves(figure: Any, grids: Data) -> None:
    """Draw metrics over the values of settings, with bands of ± 1.96 standard errors.

    Each setting and metric has its own panel. `grids` maps the key of a setting to its points.
    """
    axes = figure.subplots(len(METRICS), len(grids), squeeze=False)
    for column, (key, points) in enumerate(grids.items()):
        places = list(range(len(points)))
        for row, metric in enumerate(METRICS):
            axis = axes[row][column]
            values = [point["sampled"][metric] for point in points]
            errors = [1.96 * point["sampled_se"][metric] for point in points]
            low = [v - e for v, e in zip(values, errors, strict=True)]
            high = [v + e for v, e in zip(values, errors, strict=True)]
            axis.fill_between(places, low, high, color=COLOURS[row], alpha=0.18)
            axis.plot(places, values, color=COLOURS[row], marker=MARKS[row])
            axis.set_xticks(places, [f"{point['value']:g}" for point in points])
            axis.set_xlabel(key)
            axis.set_ylabel(metric)


def epochs(figure: Any, training: Data) -> None:
    """Draw training loss and validation metric over the epochs, a row for each training stage.

    `training` holds the "stages", name → lines of the training log, and the "metric" that chose
    the best epoch, which a dashed line marks.
    """
    stages, metric = training["stages"], training["metric"]
    columns = 1 + any(line["validation"] for lines in stages.values() for line in lines)
    axes = figure.subplots(len(stages), columns, squeeze=False)
    for row, (stage, lines) in zip(axes, stages.items(), strict=True):
        numbers = [line["epoch"] for line in lines]
        losses = [math.nan if line["loss"] is None else line["loss"] for line in lines]
        row[0].plot(numbers, losses, color=COLOURS[0], marker=MARKS[0], markersize=3)
        row[0].set_title(stage)
        row[0].set_ylabel("training loss")
        measured = [line for line in lines if line["validation"]]
        for axis in row:
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
        if not measured:
            for axis in row[1:]:
                axis.set_visible(False)
            continue
        values = [line["validation"][metric] for line in measured]
        # The first epoch with the best metric, ties broken as in `TrainConfig.merit`.
        best = max(measured, key=lambda e: (e["validation"][metric], e["validation"]["NDCG@10"]))
        row[1].plot(
            [line["epoch"] for line in measured], values, color=COLOURS[1], marker=MARKS[1],
            markersize=3,
        )  # fmt: skip
        row[1].axvline(best["epoch"], color=COLOURS[7], linestyle="--", linewidth=1)
        row[1].set_title(f"best epoch: {best['epoch']}")
        row[1].set_ylabel(f"validation {metric}")


def kernels(figure: Any, weights: Data) -> None:
    """Draw a heat map for each kernel. Each map has its own scale, centred at zero."""
    axes = figure.subplots(1, len(weights), squeeze=False)[0]
    for axis, (name, rows) in zip(axes, weights.items(), strict=True):
        limit = max(abs(value) for row in rows for value in row) or 1.0
        image = axis.imshow(rows, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(name)
        for scale in (axis.xaxis, axis.yaxis):
            scale.get_major_locator().set_params(integer=True)
        axis.set_xlabel("embedding dimension")
        axis.set_ylabel("place in the history")
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis, shrink=0.8)


def lines(
    figure: Any, models: Mapping[str, Sequence[Sequence[float]]], *, x: str, y: str,
    scale: str = "linear", drawstyle: str = "default",
) -> None:  # fmt: skip
    """Draw a line for each model through its points (x, y).

    `x` and `y` are the labels of the axes, `scale` is the scale of both.
    """
    axis = figure.subplots()
    for place, (name, points) in enumerate(models.items()):
        axis.plot(
            [point[0] for point in points], [point[1] for point in points], label=name,
            color=COLOURS[place % len(COLOURS)], marker=MARKS[place % len(MARKS)],
            markersize=4, linewidth=1.3, drawstyle=drawstyle,
        )  # fmt: skip
    axis.set(xscale=scale, yscale=scale, xlabel=x, ylabel=y)
    axis.legend(fontsize=7, ncols=2)


def positions(
    figure: Any, widths: Mapping[str, Sequence[Sequence[float]]], *, x: str, y: str
) -> None:
    """Draw the weight of each history position, a line for each filter width."""
    lines(figure, widths, x=x, y=y)
    (axis,) = figure.axes
    axis.set_ylim(0, 1.25 * axis.dataLim.y1)  # with room for the legend


def similarities(figure: Any, items: Data) -> None:
    """Draw a heat map of the "cosines" between items, with their "names" on both axes."""
    axis = figure.subplots()
    names = items["names"]
    # The scale is symmetric, so that white is always "not alike". The diagonal is 1 by definition.
    others = [c for i, row in enumerate(items["cosines"]) for j, c in enumerate(row) if i != j]
    limit = max(map(abs, others)) or 1.0
    # Squares of a fixed aspect would push long names out of the picture.
    image = axis.imshow(items["cosines"], aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.grid(visible=False)
    figure.colorbar(image, ax=axis, shrink=0.6, label="cosine of item vectors")


def groups(figure: Any, grouped: Data) -> None:
    """Draw a panel for each metric and grouping, with a bar per group ± 1.96 standard errors.

    `grouped` holds the "ranking", a text for the title, and "panels": label of the grouping →
    groups of users.
    """
    panels = grouped["panels"]
    metrics = list(next(iter(panels.values()))[0]["means"])
    axes = figure.subplots(len(metrics), len(panels), squeeze=False, sharey="row")
    figure.suptitle(f"{grouped['ranking']}; error bars: ± 1.96 standard errors", fontsize=9)
    for column, (label, rows) in enumerate(panels.items()):
        ticks = [f"{row['label']}\n{row['users']:,} users" for row in rows]
        for place, metric in enumerate(metrics):
            axis = axes[place][column]
            heights = [row["means"][metric] for row in rows]
            errors = [1.96 * row["errors"][metric] for row in rows]
            axis.bar(range(len(rows)), heights, yerr=errors, color=COLOURS[place], capsize=3)
            axis.set_xticks(range(len(rows)), ticks, fontsize=8)
            axis.set_ylim(0, None)
            axis.set_xlabel(label)
            axis.set_ylabel(metric)
            axis.grid(axis="x", visible=False)


class Kind(NamedTuple):
    """A kind of drawing.

    `fill` draws the data of one log, `size` gives the width and height in inches for these data,
    and `columns` is the largest number of logs side by side.
    """

    fill: Callable[..., None]
    size: Callable[[Data], tuple[float, float]]
    columns: int = 1


KINDS = {
    "bars": Kind(bars, lambda models: (1.2 + 0.85 * len(models) * len(METRICS), 3.6)),
    "curves": Kind(curves, lambda grids: (3.1 * len(grids), 2.6 * len(METRICS))),
    "epochs": Kind(epochs, lambda training: (7.0, 2.4 * len(training["stages"]))),
    "groups": Kind(groups, lambda grouped: (3.8 * len(grouped["panels"]), 5.6)),
    "kernels": Kind(kernels, lambda weights: (2.6 * len(weights), 3.8)),
    "lines": Kind(lines, lambda models: (5.4, 3.6), columns=2),
    "positions": Kind(positions, lambda widths: (5.4, 3.6), columns=2),
    "similarities": Kind(similarities, lambda items: (9.0, 7.6)),
}

"""Drawings of a report, PNG and SVG, with matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comet_rec.errors import ConfigError, argument
from comet_rec.experiments.tables import Drawing

COLOURS = (
    "#3b6ea5", "#c8553d", "#588157", "#8a5a9e", "#d8a31a", "#4a9a9a", "#8c6d4f", "#6b7280",
    "#b5547c", "#2f3e6b", "#9aa33b",
)  # fmt: skip
"""Told apart in print and by most colour-blind readers when lines also differ in marks."""
MARKS = "osD^vP*Xd<>"


def draw(drawing: Drawing, folder: Path) -> list[str]:
    """Write a drawing's files and return their names.

    Raises
    ------
    ConfigError
        Without matplotlib.
    """
    plt = pyplot()
    kinds = {
        "bars": bars, "curves": curves, "kernels": kernels, "expected": expected, "steps": steps
    }  # fmt: skip
    figure = kinds[drawing.kind](plt, drawing.data)
    names = []
    for form in ("svg", "png"):
        name = f"{drawing.name}.{form}"
        # No date inside: the same figures give the same bytes.
        about = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(folder / name, dpi=150, metadata=about)
        names.append(name)
    plt.close(figure)
    return names


def pyplot() -> Any:
    """matplotlib.pyplot without a screen.

    Raises
    ------
    ConfigError
        Without matplotlib.
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


def bars(plt: Any, data: dict[str, Any]) -> Any:
    """A bar a model, with 1.96 standard errors; a panel for each metric."""
    models, metrics = data["models"], data["metrics"]
    size = (1.2 + 0.85 * len(models) * len(metrics), 3.4)
    figure, axes = plt.subplots(1, len(metrics), figsize=size, layout="constrained")
    for axis, metric in zip(axes, metrics, strict=True):
        heights = [row["sampled"][metric] for row in models.values()]
        errors = [1.96 * row["sampled_se"][metric] for row in models.values()]
        places = range(len(models))
        colours = [COLOURS[place % len(COLOURS)] for place in places]
        axis.bar(places, heights, yerr=errors, color=colours, capsize=3, width=0.7)
        axis.set_xticks(list(places), list(models), rotation=30, ha="right")
        axis.set_ylim(0, None)
        axis.set_title(metric)
        axis.grid(axis="x", visible=False)
    return figure


def curves(plt: Any, data: dict[str, Any]) -> Any:
    """A panel for each setting and metric, with bands of 1.96 standard errors."""
    grids = {key: points for key, points in data["curves"].items() if points}
    metrics = data["metrics"]
    size = (3.1 * len(grids), 2.5 * len(metrics))
    figure, axes = plt.subplots(
        len(metrics), len(grids), figsize=size, layout="constrained", squeeze=False
    )
    for column, (key, points) in enumerate(grids.items()):
        places = list(range(len(points)))
        for row, metric in enumerate(metrics):
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
    return figure


def kernels(plt: Any, data: dict[str, Any]) -> Any:
    """A heat map for each kernel, one scale each, centred at zero."""
    shown = data["kernels"]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(2.6 * len(shown), 3.6), layout="constrained", squeeze=False
    )
    for axis, (name, weights) in zip(axes[0], shown.items(), strict=True):
        most = max(abs(value) for row in weights for value in row) or 1.0
        image = axis.imshow(weights, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most)
        axis.set_title(name)
        for scale in (axis.xaxis, axis.yaxis):
            scale.get_major_locator().set_params(integer=True)
        axis.set_xlabel("embedding dimension")
        axis.set_ylabel("place in the history")
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def expected(plt: Any, data: dict[str, Any]) -> Any:
    """Expected figure over the number of negatives, a line for each model."""
    figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for place, (name, points) in enumerate(data["models"].items()):
        counts = [int(count) for count in points]
        values = [points[str(count)][data["metric"]] for count in counts]
        axis.plot(
            counts, values, label=name, color=COLOURS[place % len(COLOURS)],
            marker=MARKS[place % len(MARKS)], markersize=4, linewidth=1.3,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("negatives a positive is ranked among")
    axis.set_ylabel(f"expected {data['metric']}")
    axis.legend(fontsize=7, ncols=2)
    return figure


def steps(plt: Any, data: dict[str, Any]) -> Any:
    """A panel for each search, with a line for each model through points (x, best y so far)."""
    panels = data["panels"]
    n_columns = min(len(panels), 2)
    n_rows = -(-len(panels) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(5.2 * n_columns, 3.2 * n_rows), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, models) in zip(axes.flat, panels.items(), strict=False):
        for place, (name, points) in enumerate(models.items()):
            axis.step(
                [x for x, _ in points], [y for _, y in points], where="post", label=name,
                color=COLOURS[place % len(COLOURS)], marker=MARKS[place % len(MARKS)],
                markersize=4, linewidth=1.3,
            )  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel(data["x"])
        axis.set_ylabel(data["y"])
        axis.legend(fontsize=7, ncols=2)
    return figure

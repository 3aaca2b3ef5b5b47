"""Pictures of a trained run: filters, history positions, similar items, figures by groups.

Each function returns a drawing, or a line that says why the run has none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch.nn.functional as nnf
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from comet_rec.artefact.run import Run
from comet_rec.config import Config
from comet_rec.estimators.evaluate import measure
from comet_rec.estimators.similar import factors
from comet_rec.evaluation.metrics import standard_error
from comet_rec.experiments.jobs import kernels_of, position_weights
from comet_rec.experiments.tables import Drawing
from comet_rec.text import cropped, printable

ITEMS_SHOWN = 30
"""Number of items in the picture of similar items: the most popular ones."""
TITLE_WIDTH = 32
"""Largest width of an item's title in a picture, in characters."""
FIGURES = ("HR@10", "NDCG@10")
TOWERS = ("user", "item")


def pictures(run: Run, tower: str) -> Iterator[Drawing | str]:
    """All drawings of a run, and a line for each drawing that it cannot have.

    `tower` is the tower whose filters are drawn, "user" or "item".
    """
    yield filters(run, tower)
    yield positions(run)
    yield similar_items(run)
    yield figures_by_group(run)


def filters(run: Run, tower: str) -> Drawing | str:
    """Heat maps of some filters of a tower (Figure 5)."""
    kernels = kernels_of(run.state, f"{tower}_tower")
    if not kernels:
        return f"no filters: {_without_filters(run.config, tower)}"
    weights = {name: kernel.tolist() for name, kernel in kernels.items()}
    return Drawing(f"{tower}-kernels", "kernels", "", {"": weights})


def _without_filters(config: Config, tower: str) -> str:
    """Reason why a tower has no filters, and what to give instead."""
    if config.name != "comet":
        return f"the model {config.name} has no filters; give a trained COMET"
    if config.get("model.cross") != "cnn+mlp":
        cross = config.get("model.cross")
        return f"model.cross is {cross}, without filters over all rows; give a COMET with cnn+mlp"
    return f"this COMET has no {tower} tower; give the other --tower"


def positions(run: Run) -> Drawing | str:
    """Mean weight that the filters of each width give to each position of a history."""
    panels = {}
    for tower in TOWERS:
        weights = position_weights(run.state, f"{tower}_tower")
        if weights:
            # The last row of a map is the latest one, so it gets the position 1.
            panels[f"{tower} tower"] = {
                width: list(enumerate(values[::-1].tolist(), start=1))
                for width, values in weights.items()
            }
    if not panels:
        return "no weights of history positions: the model has no filters over histories"
    labels = {"x": "position in the history, 1 is the latest", "y": "RMS weight of the filters"}
    return Drawing("positions", "positions", "", panels, labels)


def similar_items(run: Run) -> Drawing | str:
    """Cosine similarity of the most popular items, with similar items side by side."""
    if run.item_vectors is None:
        return f"no similar items: scores of {run.config.name} are not inner products of vectors"
    log = run.interactions
    popularity = np.bincount(run.known.items, minlength=log.n_items)  # [I]
    shown = np.argsort(-popularity, kind="stable")[:ITEMS_SHOWN]
    if len(shown) < 2:
        return "no similar items: the log has one item"
    unit = nnf.normalize(factors(run, run.item_vectors, "item"), dim=1)[shown]  # [S, W]
    cosines = (unit @ unit.T).numpy().astype(np.float64)  # [S, S]
    # Average linkage on 1 − cosine: its leaves are in an order with like items side by side.
    distances = np.clip(1 - (cosines + cosines.T) / 2, 0, None)
    np.fill_diagonal(distances, 0)
    order = leaves_list(linkage(squareform(distances), "average", optimal_ordering=True))
    ids = log.item_ids.external(shown[order]).tolist()
    names = [cropped(printable(run.titles.get(str(i), i)), TITLE_WIDTH) for i in ids]
    cells = cosines[np.ix_(order, order)]
    panels = {"": {"names": names, "cosines": cells.tolist()}}
    return Drawing("similar-items", "similarities", "", panels)


def figures_by_group(run: Run) -> Drawing | str:
    """HR@10 and NDCG@10 of test users, by popularity of the test item and length of history."""
    if run.split is None:
        return "no figures by group: the model was trained on all rows, so nothing was held out"
    if run.final:
        return "no figures by group: the final weights know the test items; inspect a measured run"
    if run.split.test.queries is not None:
        return "no figures by group: a split by time has groups of its own (comet-rec evaluate)"
    report = measure(run, run.split)
    ranks, users = report.full_ranks, report.full_users
    assert ranks is not None
    assert users is not None
    held, known = run.split.test, run.known
    positives = held.positives[np.searchsorted(held.users, users)]  # [F]
    popularity = np.bincount(known.items, minlength=known.n_items)[positives]
    lengths = np.diff(known.user_starts)[users]
    groups = {
        "popularity of the test item (rows)": popularity,
        "length of the history (rows)": lengths,
    }
    figures = {name: ranks.figure(name, report.ties) for name in FIGURES}
    panels = {label: _quartiles(values, figures) for label, values in groups.items()}
    return Drawing("groups", "groups", "", {"": {"ranking": "full ranking", "panels": panels}})


def _quartiles(
    values: npt.NDArray[np.int64], figures: dict[str, npt.NDArray[np.float64]]
) -> list[dict[str, object]]:
    """Mean and standard error of figures [F] in each quarter of the users, by `values` [F].

    Equal values are in one group, so there may be fewer than four groups of unequal size.
    """
    bounds = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="lower"))
    group = np.searchsorted(bounds, values)  # 0 … 3: number of bounds below the value
    rows: list[dict[str, object]] = []
    for number in np.unique(group):
        inside = group == number
        low, high = values[inside].min(), values[inside].max()
        means = {name: float(figure[inside].mean()) for name, figure in figures.items()}
        errors = {name: standard_error(figure[inside]) for name, figure in figures.items()}
        label = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        rows.append({"label": label, "users": int(inside.sum()), "means": means, "errors": errors})
    return rows

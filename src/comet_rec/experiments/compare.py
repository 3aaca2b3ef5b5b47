"""Comparison of several models on one split: metrics, intervals, paired tests, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from comet_rec.config import unknown
from comet_rec.data.split import Split
from comet_rec.errors import ConfigError
from comet_rec.estimators.estimator import Estimator
from comet_rec.estimators.evaluate import measure
from comet_rec.estimators.presets import check_protocol
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.evaluation.paired import LEAST_P, holm, paired
from comet_rec.evaluation.ranking import Report, caution
from comet_rec.experiments.tables import Cell, Table, interval_text, markdown_table, p_text
from comet_rec.models.base import non_iterative

PRETRAINED: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "neumf-p": ("neumf", {"gmf": {}, "mlp": {}}),
    "convncf-p": ("convncf", {"mf": {"train.loss": "bpr", "model.biases": False}}),
}
"""Models that other models initialise, by name.

A value has the registered name, and the initialising models with their settings.
"""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity-days": ("popularity", {"model.days": 30}),
}
"""Models with other settings than their own name has. A value has the registered name, and these
settings."""

METRICS = ("HR@10", "NDCG@10")
"""Metrics that are tested."""


@dataclass(frozen=True, eq=False)
class Entry:
    """Results of one model in a comparison.

    Parameters
    ----------
    name : str
    report : Report
    seconds : float
        Wall time of training, refit and pre-training included.
    epochs : int
    select_by : {"sampled", "full", None}
        Selection metric; None for a non-iterative model.
    values : dict of float64 [T]
        Per-user values of each metric in `METRICS`.
    """

    name: str
    report: Report
    seconds: float
    epochs: int
    select_by: str | None
    values: dict[str, npt.NDArray[np.float64]]


def compare(
    split: Split,
    names: Sequence[str],
    *,
    preset: str = "auto",
    refit: bool = True,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Entry]:
    """Train and measure each model on the same split.

    Parameters
    ----------
    split : Split
    names : sequence of str
        Registered models, "neumf-p" and "convncf-p" (pre-trained), and "popularity-days", which
        counts the last 30 days.
    preset : str
    refit : bool
        Train each model again with the validation rows, unless its own settings say otherwise.
        Without a refit, only models with input histories can use these rows at the test.
    settings : mapping, optional
        Dotted settings by model name, e.g. ``{"convncf": {"train.epochs": 2}}``.
    seed : int
        Seed of training.
    device : str
    say : callable
        Called with a line after each model.

    Raises
    ------
    ConfigError
        For an unknown model or setting, before anything is trained.
    """
    changes = settings or {}
    known = [*ESTIMATORS, *PRETRAINED, *VARIANTS]
    for name in [*names, *changes]:
        if name not in known:
            raise ConfigError(unknown("model", name, known))
    study = _Study(split, preset, refit, changes, seed, device)
    for name in [*names, *changes]:
        model = study.estimator(name)  # a wrong setting fails before an hour of training
        check_protocol(model.config_for(split.interactions), model.settings, split.protocol)
    entries = []
    for name in names:
        model, spent = study.trained(name)
        entries.append(_entry(name, model, split, spent))
        say(_line(entries[-1]))
    return entries


@dataclass
class _Study:
    """Trains the models of one comparison, each of them once."""

    split: Split
    preset: str
    refit: bool
    changes: Mapping[str, Mapping[str, Any]]
    seed: int
    device: str
    done: dict[str, tuple[Estimator, float]] = field(default_factory=dict)

    def estimator(self, name: str, **more: Any) -> Estimator:
        """Untrained model with its settings in this comparison, overridden by `more`."""
        registered, _ = PRETRAINED.get(name, (name, {}))
        registered, fixed = VARIANTS.get(name, (registered, {}))
        settings = {**fixed, **self.changes.get(name, {}), **more}
        return ESTIMATORS[registered](
            preset=self.preset, seed=self.seed, device=self.device, **settings
        )

    def trained(self, name: str) -> tuple[Estimator, float]:
        """The trained model, and the seconds of its training and pre-training."""
        model, starts, before = self.estimator(name), [], 0.0
        sizes = model.config_for(self.split.interactions).model
        _, sources = PRETRAINED.get(name, (name, {}))
        for source, fixed in sources.items():
            plain = self.estimator(source, **fixed)
            plain_sizes = plain.config_for(self.split.interactions).model
            # The source model gets the sizes and the refit of the model that it initialises.
            more = {**fixed, **shared_sizes(sizes, plain_sizes)}
            if self._refits(plain) != self._refits(model):
                more["train.refit"] = self._refits(model)
            key = f"{name}:{source}" if more else source
            trained, seconds = self._fit(key, self.estimator(source, **more), [])
            starts.append(trained)
            before += seconds
        fitted, seconds = self._fit(name, model, starts)
        return fitted, before + seconds

    def _fit(self, key: str, model: Estimator, start: list[Estimator]) -> tuple[Estimator, float]:
        """Train a model, initialised from the models in `start`; return it and the seconds.

        If a model with this `key` was trained before, it is returned instead.
        """
        if key not in self.done:
            began = time.perf_counter()
            refit = self._refits(model)
            model.fit(self.split, refit=refit, init_from=start, progress=False)
            self.done[key] = model, time.perf_counter() - began
        return self.done[key]

    def _refits(self, model: Estimator) -> bool:
        """Whether the model is trained again with the validation rows."""
        if {"refit", "train.refit"} & set(model.settings):  # the model's setting wins
            return model.config_for(self.split.interactions).train.refit
        return self.refit


def shared_sizes(target: Any, source: Any) -> dict[str, Any]:
    """Settings that give a model with the settings `source` the sizes of the settings `target`.

    The first model can then initialise the second. Sizes that are equal already are left out.
    """
    both = {field.name for field in fields(target)} & {field.name for field in fields(source)}
    shared = [name for name in ("embedding_dim", "hidden") if name in both]
    return {
        f"model.{name}": getattr(target, name)
        for name in shared
        if getattr(target, name) != getattr(source, name)
    }


def _entry(name: str, model: Estimator, split: Split, seconds: float) -> Entry:
    report = measure(model.run, split)
    values = {metric: report.of_users(metric) for metric in METRICS}
    config = model.run.config
    select_by = None if non_iterative(config.name) else config.train.selection_metric
    return Entry(name, report, seconds, model.run.epochs, select_by, values)


def _line(entry: Entry) -> str:
    figures = entry.report.sampled
    return (
        f"{entry.name}: HR@10 {figures['HR@10']:.4f} NDCG@10 {figures['NDCG@10']:.4f} "
        f"in {entry.seconds:,.0f} s"
    )


def as_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """A comparison as plain data, with a paired test of each model against the first.

    Holm's method corrects the p-values for the number of models, separately for each metric and
    test.
    """
    first, *others = entries
    tests: dict[str, dict[str, dict[str, float]]] = {entry.name: {} for entry in others}
    for metric in METRICS:
        results = [paired(entry.values[metric], first.values[metric]) for entry in others]
        for test in ("wilcoxon", "bootstrap"):
            corrected = holm([getattr(result, test) for result in results])
            for entry, result, value in zip(others, results, corrected, strict=True):
                row = tests[entry.name].setdefault(metric, asdict(result))
                row[f"{test}_holm"] = value
    return {
        "reference": first.name,
        "protocol": first.report.protocol,
        "models": [
            {
                "model": entry.name,
                "epochs": entry.epochs,
                "select_by": entry.select_by,
                "seconds": round(entry.seconds, 1),
                **_figures(entry.report),
                "against_reference": tests.get(entry.name),
            }
            for entry in entries
        ],
    }


def _figures(report: Report) -> dict[str, Any]:
    return {k: v for k, v in report.to_dict().items() if k not in ("model", "protocol")}


def as_markdown(data: Mapping[str, Any]) -> str:
    """A comparison, as `as_data` returns it, as a Markdown table with a caption.

    The table has sampled metrics ± standard errors, full NDCG@10, tests and seconds.
    """
    return f"{markdown_table(as_table(data))}\n\n{' '.join(caption(data))}"


def as_table(data: Mapping[str, Any]) -> Table:
    """Table of a comparison that `as_data` returned: metrics, tests and seconds of each model."""
    columns = [
        "model", "HR@5", "NDCG@5", "HR@10", "NDCG@10", "full NDCG@10",
        f"NDCG@10 against {data['reference']} (95 %)", "p (Wilcoxon)", "p (bootstrap)", "seconds",
    ]  # fmt: skip
    by_time = data["protocol"]["split"] == "time"
    if by_time:
        columns[6:6] = ["full HR@10", "coverage", "popularity"]
    shown = Table("", columns, [])
    for row in data["models"]:
        sampled = [
            Cell(row["sampled"][name], row["sampled_se"][name], digits=4)
            for name in ("HR@5", "NDCG@5", "HR@10", "NDCG@10")
        ]
        full = "" if row["full"] is None else f"{row['full']['NDCG@10']:.4f}"
        if row["full"] is not None and row["n_users_full"] != row["n_users"]:
            full += f" ({row['n_users_full']:,} users)"
        tested = ["", "", ""]
        if row["against_reference"] is not None:
            test = row["against_reference"]["NDCG@10"]
            tested = [
                interval_text(test["difference"], test["low"], test["high"]),
                p_text(test["wilcoxon_holm"]),
                p_text(test["bootstrap_holm"], none_seen=test["bootstrap"] <= LEAST_P),
            ]
        lists = []
        if by_time:
            found = row["time_split"]
            hits = "" if row["full"] is None else f"{row['full']['HR@10']:.4f}"
            covered = ["", ""]
            if found["coverage@10"] is not None:
                covered = [f"{found['coverage@10']:.1%}", f"{found['popularity@10']:,.0f}"]
            lists = [hits, *covered]
        shown.rows.append([row["model"], *sampled, full, *lists, *tested, f"{row['seconds']:,.0f}"])
    return shown


def caption(data: Mapping[str, Any]) -> list[str]:
    """Sentences below the table of a comparison."""
    sentences = [
        "± is one standard error over users. p-values are corrected for the number of models "
        "(Holm) and reflect chance in the choice of users only, not in training. Seconds include "
        "pre-training and, if there is one, the refit.",
    ]
    chosen = [
        f"{metric} NDCG@10 for {', '.join(names)}"
        for metric in ("sampled", "full")
        if (names := [row["model"] for row in data["models"] if row["select_by"] == metric])
    ]
    if chosen:
        sentences.append(f"Validation chose the epochs, by {' and by '.join(chosen)}.")
    if data["protocol"]["split"] == "time":
        found = data["models"][0]["time_split"]
        sentences.append(
            f"{found['future_share']:.1%} of the test rows are of items from the future and are "
            "not ranked. Coverage is the share of the items in some list of 10; popularity is the "
            "mean number of earlier rows of the lists' items."
        )
    few = caution(min(row["n_users"] for row in data["models"]))
    return [*sentences, *(f"{line[0].upper()}{line[1:]}." for line in few)]

"""Sections of a report on sampled against full metrics, and on orders of equal times."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from comet_rec.data.split import Split
from comet_rec.evaluation.reliability import (
    STRATA,
    agreement,
    agreement_interval,
    expected_figures,
    unseen_others,
)
from comet_rec.experiments.jobs import Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.plans import BEST
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import sampled_cell, titled
from comet_rec.experiments.tables import (
    NOT_RUN,
    Cell,
    Section,
    Table,
    number,
)

NEGATIVES = (10, 30, 99, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Numbers of negatives for which the section gives expected sampled metrics."""

Gain = tuple[float, float]
"""Mean over users of a difference in NDCG@10, and its standard error."""


def reliability(logs: Sequence[tuple[StudyLog, list[Job]]], runner: Runner) -> Section:
    """Section on how far sampled metrics can be trusted.

    It compares sampled with full metrics, shows how sampled metrics vary between samples of
    candidates, and gives HR@10 by item popularity.
    """
    section = titled("reliability")
    panels = {}
    for log, jobs in logs:
        if log.split is None:
            continue
        by_label = {job.label: runner.record(job) for job in jobs}
        records = {label: r for label, r in by_label.items() if isinstance(r, Record)}
        if len(records) < 2:
            continue
        expected = {label: _expected(log.split, record) for label, record in records.items()}
        # Models with full ranks of all users.
        ranked = {label: figures for label, figures in expected.items() if figures}
        section.tables.append(_orders(log, records, ranked))
        agreements = _agreements([records[label] for label in ranked])
        if agreements:
            listed = ", ".join(
                f"{metric} {tau['tau']:.2f} [{tau['low']:.2f}, {tau['high']:.2f}]"
                for metric, tau in agreements.items()
            )
            section.text.append(
                f"{log.title}: τ between sampled and full metrics of {len(ranked)} models: "
                f"{listed}. Brackets hold the 95 % bootstrap interval over users. Resampling adds "
                "noise to the order of close models, so the interval lies low."
            )
        kept = ("sampled", "full", "draws", "by_popularity")
        section.data[log.name] = {
            "agreement": agreements,
            "models": {
                label: {name: record.values[name] for name in kept} | {"expected": expected[label]}
                for label, record in records.items()
            },
        }
        if ranked:
            panels[log.title] = {
                label: [(int(negatives), figures["NDCG@10"]) for negatives, figures in row.items()]
                for label, row in ranked.items()
            }
    section.draw(
        "lines", f"Expected NDCG@10 over the number of negatives, {', '.join(panels)}", panels,
        x="negatives a positive is ranked among", y="expected NDCG@10", scale="log",
    )  # fmt: skip
    return section


def _expected(split: Split, record: Record) -> dict[str, dict[str, float]] | None:
    """Expected sampled metrics by number of negatives, computed from full ranks.

    The result is None unless all users have full ranks.
    """
    ranks = record.full_ranks(len(split.test))
    if ranks is None:
        return None
    others = unseen_others(split.test, split.known)
    most = int(others.max())
    figures = {}
    for negatives in (*(n for n in NEGATIVES if n < most), most):
        hr, gain = expected_figures(ranks, others, negatives, 10)
        figures[str(negatives)] = {"HR@10": hr, "NDCG@10": gain}
    return figures


def _agreements(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """For each metric, Kendall's τ between the models' order by sampled and by full values."""
    if len(records) < 2:  # no order to agree on
        return {}
    agreements = {}
    for metric in ("NDCG@10", "HR@10"):
        sampled = np.array([record.user_values(metric) for record in records])  # [models, T]
        full = np.array([record.user_values(metric, full=True) for record in records])
        if any(len(set(values.mean(axis=1).tolist())) == 1 for values in (sampled, full)):
            continue  # all models are equal: no order
        low, high = agreement_interval(sampled, full)
        tau = agreement(sampled.mean(axis=1).tolist(), full.mean(axis=1).tolist())
        agreements[metric] = {"tau": tau, "low": low, "high": high}
    return agreements


def _orders(log: StudyLog, records: Mapping[str, Record], ranked: Collection[str]) -> Table:
    """Table of each model's position by sampled and by full metric.

    `ranked` has the labels of models with full ranks of all users.
    """
    columns = ["model", "NDCG@10", "rank", "full NDCG@10", "rank", "scatter over draws"]
    columns += [f"HR@10 {name}" for name in STRATA]
    table = Table(log.title, columns, [], log=log.title)
    full = {label: records[label].values["full"]["NDCG@10"] for label in ranked}
    sampled = {label: record.values["sampled"]["NDCG@10"] for label, record in records.items()}
    for label, record in records.items():
        row = [label, number(sampled[label]), _rank(sampled, label)]
        row += [f"{full[label]:.4f}", _rank(full, label)] if label in full else ["", ""]
        draws = [draw["NDCG@10"] for draw in record.values["draws"] or []]
        row.append(f"{mean(draws):.4f} ± {stdev(draws):.4f}" if draws else "")
        strata = record.values["by_popularity"]
        row += [number(strata[name]["HR@10"]) if name in strata else "" for name in STRATA]
        table.rows.append([*row])
    return table


def _rank(figures: Mapping[str, float], label: str) -> str:
    """Position of a model among all models in `figures`, 1 for the best."""
    return str(1 + sum(value > figures[label] for value in figures.values()))


def ties(logs: Sequence[tuple[StudyLog, float, dict[str, list[Job]]]], runner: Runner) -> Section:
    """Section that compares models under several orders of rows with equal times.

    Parameters
    ----------
    logs : sequence of (StudyLog, float, dict)
        Each log, the share of a user's consecutive rows with equal times, and the jobs by order.
    runner : Runner
    """
    section = titled("ties")
    if not logs:
        section.text.append("Not run: none of the logs has real times with ties.")
    for log, share, orders in logs:
        records = {order: [runner.record(job) for job in jobs] for order, jobs in orders.items()}
        labels = [job.label for job in orders["file"]]
        columns = ["model", *(f"NDCG@10, {order} order" for order in orders)]
        table = Table(f"{log.title}: {share:.1%} of a user's steps are ties", columns, [])
        data: dict[str, dict[str, Any]] = {}
        for place, label in enumerate(labels):
            row: list[Cell | str] = [label]
            for order, of_order in records.items():
                record = of_order[place]
                if not isinstance(record, Record):
                    row.append(Cell(None, status=NOT_RUN, note=record))
                    continue
                row.append(sampled_cell([record], "NDCG@10"))
                kept = {name: record.values[name] for name in ("sampled", "sampled_se")}
                data.setdefault(label, {})[order] = kept
            table.rows.append(row)
        section.tables.append(table)
        section.data[log.name] = {"tied_share": share, "models": data}
        gains = _gains(records, labels)
        if gains:
            cells = (f"{gain:+.3f} ± {error:.3f}" for gain, error in gains.values())
            table.rows.append([f"gain of {BEST}", *cells])
            section.data[log.name]["gains"] = {order: gain for order, (gain, _) in gains.items()}
            section.data[log.name]["gains_se"] = {order: e for order, (_, e) in gains.items()}
            section.text.append(_compared_gains(log.title, gains))
    return section


def _gains(records: Mapping[str, Sequence[Record | str]], labels: Sequence[str]) -> dict[str, Gain]:
    """Lead of the model `BEST` over the best other model in NDCG@10, by order.

    An order is that of rows with equal times. The result is empty if a record is missing.
    """
    gains = {}
    for order, of_order in records.items():
        by_label = {k: r for k, r in zip(labels, of_order, strict=True) if isinstance(r, Record)}
        if len(by_label) < len(labels):
            return {}
        others = [record for label, record in by_label.items() if label != BEST]
        rival = max(others, key=lambda record: record.values["sampled"]["NDCG@10"])
        gain = by_label[BEST].user_values("NDCG@10") - rival.user_values("NDCG@10")  # [T]
        gains[order] = float(gain.mean()), float(gain.std(ddof=1) / len(gain) ** 0.5)
    return gains


def _compared_gains(title: str, gains: Mapping[str, Gain]) -> str:
    """Sentences that compare the leads under other orders of equal times with the first."""
    (first, (first_gain, first_error)), *rest = gains.items()
    others = ", ".join(
        f"{gain:+.3f} ± {error:.3f} under {order} order ({gain - first_gain:+.3f} ± "
        f"{(error**2 + first_error**2) ** 0.5:.3f})"
        for order, (gain, error) in rest
    )
    return (
        f"{title}: NDCG@10 of {BEST} minus that of the best other model: {first_gain:+.3f} ± "
        f"{first_error:.3f} under {first} order, {others}. Brackets hold the change from {first} "
        "order, ± one standard error over users as if the two orders were independent. Each "
        "model was trained once."
    )

"""Sections on what figures are worth: kernels, curves, draws, numbers of negatives, tie orders."""

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
from comet_rec.experiments.cells import epochs_told, number
from comet_rec.experiments.jobs import RECORDS, Job
from comet_rec.experiments.logs import StudyLog
from comet_rec.experiments.records import Record
from comet_rec.experiments.runner import Runner
from comet_rec.experiments.sections import Drawing, Section, Table
from comet_rec.experiments.studies import BEST

NEGATIVES = (10, 30, 99, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Numbers of negatives for which the sampled figure is expected from the full ranks."""

Gain = tuple[float, float]
"""A mean over users, and its standard error."""


def figure_5(logs: Sequence[tuple[StudyLog, list[Job]]], runner: Runner) -> Section:
    """Heat maps of learned kernels."""
    section = Section("figure5", "Figure 5: learned kernels")
    section.text.append(
        "Weights of filters of the user tower: a row for each place in the history (the newest "
        "last), a column for each embedding dimension that the filter covers."
    )
    for log, jobs in logs:
        record = runner.record(jobs[0]) if log.split is not None else log.why
        kernels = record.kernels if isinstance(record, Record) else {}
        if not kernels:
            if isinstance(record, Record):
                record = (
                    f"its record {record.key} has no kernels; take it out of "
                    f"{RECORDS}/{log.name}.zip to train it anew"
                )
            section.leave_out(log, {"COMET": record})
            continue
        caption = f"Kernels of COMET on {log.title}"
        drawn = {"kernels": {name: w.tolist() for name, w in kernels.items()}}
        section.drawings.append(Drawing(f"figure5-{log.name}", "kernels", caption, drawn))
        section.data[log.name] = {
            name: {"rows": len(w), "width": len(w[0])} for name, w in kernels.items()
        }
    return section


def figure_6(logs: Sequence[tuple[StudyLog, dict[str, list[Job]]]], runner: Runner) -> Section:
    """HR@10 and NDCG@10 over embedding size, regularisation and channels."""
    section = Section("figure6", "Figure 6: embedding size, regularisation, channels")
    section.text.append(
        "Bands and ± are 1.96 and one standard error over users; one seed. A training whose epoch "
        "is near the last there was may have been cut off."
    )
    for log, grids in logs:
        if why := log.why or runner.why_none([job for jobs in grids.values() for job in jobs]):
            labels = [job.label for jobs in grids.values() for job in jobs]
            section.leave_out(log, dict.fromkeys(labels, why))
            continue
        curves: dict[str, Any] = {}
        for key, jobs in grids.items():
            columns = [key, "HR@10", "NDCG@10", "epochs", "seconds"]
            table = Table(f"{log.title}: {key}", columns, [], log=log.title)
            points = []
            for job in jobs:
                record = runner.record(job)
                value = dict(job.settings)[key]
                if not isinstance(record, Record):
                    table.rows.append([f"{value:g}", f"not run: {record}", "", "", ""])
                    continue
                sampled, errors = record.values["sampled"], record.values["sampled_se"]
                cells = [
                    f"{number(sampled[m])} ± {number(errors[m])}" for m in ("HR@10", "NDCG@10")
                ]
                cells.append(epochs_told(job, log, [record]))
                seconds = f"{record.values['train_seconds']:,.0f}"
                table.rows.append([f"{value:g}", *cells, seconds])
                points.append({"value": value, "sampled": sampled, "sampled_se": errors})
            section.tables.append(table)
            curves[key] = points
        section.data[log.name] = curves
        if any(len(points) > 1 for points in curves.values()):
            caption = f"Figure 6 on {log.title}"
            drawn = {"curves": curves, "metrics": ["HR@10", "NDCG@10"]}
            section.drawings.append(Drawing(f"figure6-{log.name}", "curves", caption, drawn))
    return section


def reliability(logs: Sequence[tuple[StudyLog, list[Job]]], runner: Runner) -> Section:
    """Sampled against full ranking, draws of candidates, popularity of the hits."""
    section = Section("reliability", "How far the sampled figures can be trusted")
    section.text += [
        "τ is Kendall's rank correlation of the models' order: 1 means that two measures order "
        "them alike. The scatter is the standard deviation over ten other draws of the candidates. "
        "Head, middle and tail: test items among the most popular ones that hold a third of the "
        "training rows, the next third, the rest. Figures of this section are of seed 0 alone.",
        "From full ranks the expectation of the sampled figure follows for any number of negatives "
        "(hypergeometric). Where the curves cross, the number of negatives decides which model "
        "seems better (Krichene & Rendle, KDD 2020).",
    ]
    for log, jobs in logs:
        if log.split is None:
            continue
        found = {job.label: runner.record(job) for job in jobs}
        records = {label: r for label, r in found.items() if isinstance(r, Record)}
        if len(records) < 2:
            continue
        expected = {label: _expected(log.split, record) for label, record in records.items()}
        whole = {label: of for label, of in expected.items() if of}
        section.tables.append(_scatter(log, {k: r.values for k, r in records.items()}, whole))
        orders = _orders([records[label] for label in whole])
        if orders:
            said = [
                f"{m} {of['tau']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
                for m, of in orders.items()
            ]
            section.text.append(
                f"{log.title}: τ between sampled and full {', '.join(said)} over {len(whole)} "
                "models; in brackets 95 % of what resampled users give. A resample adds noise to "
                "orders that are close, so the bracket lies low."
            )
        section.data[log.name] = {
            "agreement": orders,
            "models": {
                k: {n: r.values[n] for n in ("sampled", "full", "draws", "by_popularity")}
                | {"expected": expected[k]}
                for k, r in records.items()
            },
        }
        if whole:
            caption = f"Expected NDCG@10 over the number of negatives, {log.title}"
            drawn = {"models": whole, "metric": "NDCG@10"}
            section.drawings.append(Drawing(f"negatives-{log.name}", "expected", caption, drawn))
    return section


def _expected(split: Split, record: Record) -> dict[str, dict[str, float]] | None:
    """Figures over numbers of negatives, where all users were ranked over the whole catalogue."""
    whole = record.full_ranks(len(split.test))
    if whole is None:
        return None
    others = unseen_others(split.test, split.known)
    most = int(others.max())
    found = {m: expected_figures(whole, others, m, 10) for m in NEGATIVES if m < most}
    found[most] = expected_figures(whole, others, most, 10)
    return {str(m): {"HR@10": hr, "NDCG@10": gain} for m, (hr, gain) in found.items()}


def _orders(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """By metric, over models that were ranked over the whole catalogue for all users."""
    if len(records) < 2:  # no order to agree on
        return {}
    found = {}
    for metric in ("NDCG@10", "HR@10"):
        sampled = np.array([record.user_values(metric) for record in records])
        full = np.array([record.user_values(metric, full=True) for record in records])
        if any(len(set(of.mean(axis=1).tolist())) == 1 for of in (sampled, full)):
            continue  # all alike: no order
        low, high = agreement_interval(sampled, full)
        tau = agreement(sampled.mean(axis=1).tolist(), full.mean(axis=1).tolist())
        found[metric] = {"tau": tau, "low": low, "high": high}
    return found


def _scatter(
    log: StudyLog, records: Mapping[str, Mapping[str, Any]], whole: Collection[str]
) -> Table:
    """Both ranks of each model; `whole` were ranked over the whole catalogue for all users."""
    columns = ["model", "NDCG@10", "rank", "full NDCG@10", "rank", "scatter over draws"]
    columns += [f"HR@10 {name}" for name in STRATA]
    table = Table(log.title, columns, [], log=log.title)
    full = {k: records[k]["full"]["NDCG@10"] for k in whole}
    sampled = {k: v["sampled"]["NDCG@10"] for k, v in records.items()}
    for label, values in records.items():
        draws = [draw["NDCG@10"] for draw in values["draws"] or []]
        strata = values["by_popularity"]
        table.rows.append(
            [
                label, number(sampled[label]), str(_place(sampled, label)),
                f"{full[label]:.4f}" if label in full else "",
                str(_place(full, label)) if label in full else "",
                f"{mean(draws):.4f} ± {stdev(draws):.4f}" if draws else "",
                *(number(strata[name]["HR@10"]) if name in strata else "" for name in STRATA),
            ]
        )  # fmt: skip
    return table


def _place(figures: Mapping[str, float], label: str) -> int:
    return 1 + sum(value > figures[label] for value in figures.values())


def ties(logs: Sequence[tuple[StudyLog, float, dict[str, list[Job]]]], runner: Runner) -> Section:
    """The same models under several orders of equal times."""
    section = Section("ties", "Orders of equal times")
    section.text.append(
        "Rows of a user with equal times have no order of their own: the file's order, a random "
        "one, and the order of item ids each give another split and another sequence. What a model "
        "gains under one order only, it owes to that order."
    )
    if not logs:
        section.text.append("Not run: none of the logs has real times with ties.")
    for log, share, orders in logs:
        columns = ["model", *(f"NDCG@10, {order} order" for order in orders)]
        table = Table(f"{log.title}: {share:.1%} of a user's steps are ties", columns, [])
        data: dict[str, dict[str, Any]] = {}
        records: dict[str, dict[str, Record]] = {order: {} for order in orders}
        for place, job in enumerate(orders["file"]):
            row = [job.label]
            for order, jobs in orders.items():
                record = runner.record(jobs[place])
                if not isinstance(record, Record):
                    row.append(f"not run: {record}")
                    continue
                figures, errors = record.values["sampled"], record.values["sampled_se"]
                row.append(f"{number(figures['NDCG@10'])} ± {number(errors['NDCG@10'])}")
                data.setdefault(job.label, {})[order] = {"sampled": figures, "sampled_se": errors}
                records[order][job.label] = record
            table.rows.append(row)
        section.tables.append(table)
        section.data[log.name] = {"tied_share": share, "models": data}
        labels = [job.label for job in orders["file"]]
        gains = _gains(records, labels)
        if gains:
            shown = (f"{gain:+.3f} ± {error:.3f}" for gain, error in gains.values())
            table.rows.append([f"gain of {BEST}", *shown])
            section.data[log.name]["gains"] = {order: gain for order, (gain, _) in gains.items()}
            section.data[log.name]["gains_se"] = {order: e for order, (_, e) in gains.items()}
            section.text.append(_what_stays(log.title, gains))
    return section


def _gains(found: Mapping[str, Mapping[str, Record]], labels: Sequence[str]) -> dict[str, Gain]:
    """NDCG@10 of `BEST` above the best of the others, by order; nothing where any is missing."""
    if any(set(of) != set(labels) for of in found.values()):
        return {}
    gains = {}
    for order, records in found.items():
        others = [label for label in labels if label != BEST]
        best = max(others, key=lambda label: records[label].values["sampled"]["NDCG@10"])
        of_users = records[BEST].user_values("NDCG@10") - records[best].user_values("NDCG@10")
        gains[order] = float(of_users.mean()), float(of_users.std(ddof=1) / len(of_users) ** 0.5)
    return gains


def _what_stays(title: str, gains: Mapping[str, Gain]) -> str:
    (first, (whole, error)), *rest = gains.items()
    said = [
        f"{gain:+.3f} ± {own:.3f} under {order} order ({gain - whole:+.3f} ± "
        f"{(own**2 + error**2) ** 0.5:.3f})"
        for order, (gain, own) in rest
    ]
    return (
        f"{title}: above the best of the others {BEST} has {whole:+.3f} ± {error:.3f} NDCG@10 "
        f"under {first} order, {', '.join(said)}; in brackets what changes, ± one standard error "
        "over users as if the two orders were independent; one training each."
    )

"""Audit of a trained run: checks of its data, and of its parameters, metrics and scores.

It is not part of `evaluation.audit`, because it evaluates the run again with `measure`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comet_rec.artefact.folder import MANIFEST
from comet_rec.artefact.run import Run, load_run
from comet_rec.data.split import HeldOut, Split
from comet_rec.errors import ArtefactError, DamagedError, NonFiniteError
from comet_rec.estimators.evaluate import measure
from comet_rec.estimators.surroundings import undisturbed
from comet_rec.evaluation.audit import Finding, audit, ordered
from comet_rec.evaluation.audit.findings import Severity
from comet_rec.evaluation.ranking import Ranks, sampled_ranks
from comet_rec.evaluation.scoring import run_scores
from comet_rec.random import generator

EQUAL = 1e-9
"""Largest difference between two measurements of a metric that counts as equal."""

MANY_TIES = 0.1
"""Share of candidates with the same score as the test item above which ties are a warning.

Fewer ties are a note.
"""

SAMPLED_USERS = 500
"""Largest number of test users that are scored again, for models whose scores are slow."""


def audit_folder(folder: Path) -> list[Finding]:
    """Audit a run on disk; returns findings, errors first.

    A damaged run gives a finding instead of an error.

    Raises
    ------
    ArtefactError
        When the folder holds no finished run.
    """
    try:
        run = load_run(folder)
    except ArtefactError as error:
        if not (folder / MANIFEST).is_file():
            raise
        # DamagedError: a file was changed. Any other error: files contradict each other.
        damaged = isinstance(error, DamagedError)
        check = "artefact-digests" if damaged else "artefact-consistency"
        return [Finding(check, "error", 1, 1, str(error))]
    # A saved run must have metrics. Without them, {} makes every metric a missing one.
    return audit_run(run if run.metrics is not None else replace(run, metrics={}))


@undisturbed
def audit_run(run: Run) -> list[Finding]:
    """Audit a run in memory; returns findings, errors first.

    The audit checks the log and split, training batches sampled with the run's config, and the
    parameters and vectors. It evaluates two-tower models again and compares the metrics with the
    stored ones. It also looks for candidates with equal scores.
    """
    findings = audit(run.interactions if run.split is None else run.split, run.config)
    broken = list(_not_finite(run))
    findings += broken
    if run.split is not None:
        findings += _protocol(run, run.split)
        if not broken and not run.final:  # a final run has other weights than its metrics
            findings += _figures(run, run.split)
    return ordered(findings)


def _not_finite(run: Run) -> Iterator[Finding]:
    tensors = {f"parameter {name}": value for name, value in run.tensors.items()}
    if run.user_vectors is not None and run.item_vectors is not None:
        tensors |= {"user vectors": run.user_vectors, "item vectors": run.item_vectors}
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        message = f"{len(bad)} of the run's tensors hold NaN or infinity: {', '.join(bad)}"
        yield Finding("not-finite", "error", len(bad), len(tensors), message)


def _protocol(run: Run, split: Split) -> Iterator[Finding]:
    stored = (run.metrics or {}).get("protocol", {}).get("hash")
    if stored is not None and stored != split.hash:
        message = (
            f"metrics.json was measured under protocol {stored[:12]}, but the run holds "
            f"protocol {split.hash[:12]}"
        )
        yield Finding("protocol-hash", "error", 1, 1, message)


def _figures(run: Run, split: Split) -> Iterator[Finding]:
    """Check the stored metrics, and look for equal scores; scores of NaN are a finding too."""
    cheap = run.user_vectors is not None and run.item_vectors is not None
    try:
        if cheap:
            report = measure(run, split)
            if run.metrics is not None:  # a run in memory may have no metrics yet
                yield from _differing(run.metrics, report.to_dict(), len(split.test))
            yield from _tied(split.test, report.sampled_ranks, run)
        else:
            held = _sampled_users(split.test)
            yield from _tied(held, sampled_ranks(run_scores(run, held), held), run)
    except NonFiniteError as error:
        yield Finding("not-finite", "error", 1, 1, str(error))


def _differing(
    stored: Mapping[str, Any], again: Mapping[str, Any], users: int
) -> Iterator[Finding]:
    """Finding about `stored` metrics that differ from the new measurement `again`.

    `users` is the number of test users. Another processor can round sums differently and swap
    two nearly equal scores. One swap moves a mean by at most 1 / users, so such a difference is
    only a note.
    """
    pairs: dict[str, tuple[float, float]] = {}
    for room in ("sampled", "sampled_se", "full", "full_se"):
        figures = stored.get(room)
        if figures is None and room.startswith("full"):  # the run has no full ranking
            continue
        for name, value in (again[room] or {}).items():
            pairs[f"{room} {name}"] = float((figures or {}).get(name, np.nan)), value
    off = {name: pair for name, pair in pairs.items() if not abs(pair[0] - pair[1]) <= EQUAL}
    if off:
        largest = max(abs(a - b) if np.isfinite(a) else np.inf for a, b in off.values())
        severity: Severity = "note" if largest <= 1.0 / users and users >= 100 else "error"
        message = (
            f"{len(off)} of {len(pairs)} metrics in metrics.json differ from a new measurement, "
            f"by up to {largest:.2g}"
        )
        name, (before, now) = next(iter(off.items()))
        example = {"figure": name, "stored": before, "again": now}
        yield Finding("metrics-differ", severity, len(off), len(pairs), message, example)


def _sampled_users(held: HeldOut) -> HeldOut:
    if len(held) <= SAMPLED_USERS:
        return held
    rows = np.sort(generator(0, "audit.users").permutation(len(held))[:SAMPLED_USERS])
    return held.take(rows)


def _tied(held: HeldOut, ranks: Ranks, run: Run) -> Iterator[Finding]:
    """Finding about sampled candidates with the same score as the test item of their user."""
    counts = (held.candidates < run.interactions.n_items).sum(axis=1)  # [T], without padding
    constant = (ranks.tied == counts) & (counts > 0)  # all candidates tie with the positive
    total, tied = int(counts.sum()), int(ranks.tied.sum())
    if constant.mean() > 0.5:
        count = int(constant.sum())
        message = (
            f"{count:,} of {len(held):,} test users have one score for all candidates: the tie "
            "rule alone decides their metrics"
        )
        example = {"user": _user_id(run, held.users[np.argmax(constant)])}
        yield Finding("constant-scores", "error", count, len(held), message, example)
    elif tied:
        share = tied / total
        severity: Severity = "warning" if share > MANY_TIES else "note"
        message = (
            f"{tied:,} of {total:,} candidates ({share:.1%}) have the same score as their "
            "positive: the tie rule decides their ranks"
        )
        example = {"user": _user_id(run, held.users[np.argmax(ranks.tied)])}
        yield Finding("tied-scores", severity, tied, total, message, example)


def _user_id(run: Run, user: int) -> int | str:
    """External id of the user with index `user`."""
    value = run.interactions.user_ids.external([user]).tolist()[0]
    return value if isinstance(value, int) else str(value)

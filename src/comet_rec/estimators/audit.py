"""The audit of a trained run.

Here and not in `evaluation.audit`: measuring again takes what turns a run into scores, which is
this room's.
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
"""Largest difference between figures that were measured from the same vectors."""

MANY_TIES = 0.1
"""Share of candidates tied with the positive above which a tie rule makes the figures."""

SAMPLED_USERS = 500
"""Test users whose candidates are scored again by a model that is no inner product."""


def audit_folder(folder: Path) -> list[Finding]:
    """Findings about a run on disk, errors first; a damaged one is a finding.

    Raises
    ------
    ArtefactError
        When there is no finished run.
    """
    try:
        run = load_run(folder)
    except ArtefactError as error:
        if not (folder / MANIFEST).is_file():
            raise
        # A file was changed, or parts contradict each other.
        damaged = isinstance(error, DamagedError)
        check = "artefact-digests" if damaged else "artefact-consistency"
        return [Finding(check, "error", 1, 1, str(error))]
    # A run on disk has figures: where there are none, all of them are missing.
    return audit_run(run if run.metrics is not None else replace(run, metrics={}))


@undisturbed
def audit_run(run: Run) -> list[Finding]:
    """Findings about a run, errors first.

    Its split and log, training batches drawn with its config, its parameters and vectors; its
    stored figures against the same ones measured again where that is cheap (two-tower models);
    and ties among the candidates' scores.
    """
    findings = audit(run.interactions if run.split is None else run.split, run.config)
    broken = list(_not_finite(run))
    findings += broken
    if run.split is not None:
        findings += _protocol(run, run.split)
        if not broken:
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
            f"the figures were measured under protocol {stored[:12]}, the run holds "
            f"{split.hash[:12]}"
        )
        yield Finding("protocol-hash", "error", 1, 1, message)


def _figures(run: Run, split: Split) -> Iterator[Finding]:
    """Stored figures and scores; a model that scores NaN is told as one that is not finite."""
    cheap = run.user_vectors is not None and run.item_vectors is not None
    try:
        if cheap:
            report = measure(run, split)
            if run.metrics is not None:  # a run in memory may not be measured yet
                yield from _differing(run.metrics, report.to_dict(), len(split.test))
            yield from _tied(split.test, report.sampled_ranks, run)
        else:
            held = _sampled_users(split.test)
            yield from _tied(held, sampled_ranks(run_scores(run), held), run)
    except NonFiniteError as error:
        yield Finding("not-finite", "error", 1, 1, str(error))


def _differing(
    stored: Mapping[str, Any], again: Mapping[str, Any], users: int
) -> Iterator[Finding]:
    """Figures that are not what measuring again gives.

    One flipped pair of nearly equal scores, as another processor's sums can give, moves a mean by
    at most one user's share; that is worth a note.
    """
    pairs: dict[str, tuple[float, float]] = {}
    for room in ("sampled", "sampled_se", "full", "full_se"):
        figures = stored.get(room)
        if figures is None and room.startswith("full"):  # it was not ranked in full
            continue
        for name, value in (again[room] or {}).items():
            pairs[f"{room} {name}"] = float((figures or {}).get(name, np.nan)), value
    off = {name: pair for name, pair in pairs.items() if not abs(pair[0] - pair[1]) <= EQUAL}
    if off:
        largest = max(abs(a - b) if np.isfinite(a) else np.inf for a, b in off.values())
        severity: Severity = "note" if largest <= 1.0 / users and users >= 100 else "error"
        message = (
            f"{len(off)} of {len(pairs)} figures of metrics.json are not what measuring again "
            f"gives, by up to {largest:.2g}"
        )
        name, (before, now) = next(iter(off.items()))
        example = {"figure": name, "stored": before, "again": now}
        yield Finding("metrics-differ", severity, len(off), len(pairs), message, example)


def _sampled_users(held: HeldOut) -> HeldOut:
    if len(held) <= SAMPLED_USERS:
        return held
    rows = np.sort(generator(0, "audit.users").permutation(len(held))[:SAMPLED_USERS])
    return HeldOut(held.users[rows], held.positives[rows], held.candidates[rows])


def _tied(held: HeldOut, ranks: Ranks, run: Run) -> Iterator[Finding]:
    """Scores that do not tell candidates apart."""
    numbers = (held.candidates < run.interactions.n_items).sum(axis=1)
    constant = (ranks.tied == numbers) & (numbers > 0)
    total, tied = int(numbers.sum()), int(ranks.tied.sum())
    if constant.mean() > 0.5:
        count = int(constant.sum())
        message = (
            f"{count:,} of {len(held):,} test users have one score for all candidates: the "
            "figures are the tie rule's"
        )
        example = {"user": _user_id(run, held.users[np.argmax(constant)])}
        yield Finding("constant-scores", "error", count, len(held), message, example)
    elif tied:
        share = tied / total
        severity: Severity = "warning" if share > MANY_TIES else "note"
        message = (
            f"{tied:,} of {total:,} candidates ({share:.1%}) have the score of their positive: "
            "the tie rule decides there"
        )
        example = {"user": _user_id(run, held.users[np.argmax(ranks.tied)])}
        yield Finding("tied-scores", severity, tied, total, message, example)


def _user_id(run: Run, user: int) -> int | str:
    """External id of a user, as JSON can hold it."""
    value = run.interactions.user_ids.external([user]).tolist()[0]
    return value if isinstance(value, int) else str(value)

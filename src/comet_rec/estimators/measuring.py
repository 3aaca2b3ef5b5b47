"""Figures of a finished run."""

from __future__ import annotations

import numpy as np

from comet_rec.artefact.run import Run, protocol_entry
from comet_rec.data.randomness import generator
from comet_rec.data.split import HeldOut, Split
from comet_rec.estimators.scoring import run_scores
from comet_rec.evaluation.ranking import Report, full_ranks, sampled_ranks
from comet_rec.models import base


def measure(run: Run, split: Split, *, full: bool = True) -> Report:
    """Figures of the test items.

    Parameters
    ----------
    run : Run
    split : Split
        Of the log that the run was trained on.
    full : bool
        Also rank the whole catalogue, seen items left out; for models whose pairs are dear, for
        a sample of the test users.
    """
    scores = run_scores(run)
    entry = protocol_entry(split)
    return Report(
        run.config.name,
        {"hash": entry["hash"], **entry["settings"]},
        split.test.users,
        sampled_ranks(scores, split.test),
        full_ranks(scores, _full_sample(run, split.test), split.known) if full else None,
        split.protocol.ties,
    )


def _full_sample(run: Run, held: HeldOut) -> HeldOut:
    """Test users whose full ranking is made: all, or the model's number of them, one draw."""
    most = getattr(base.model_class(run.config.name), "full_users", None)
    if most is None or most >= len(held):
        return held
    rows = np.sort(generator(0, "full.users").permutation(len(held))[:most])
    return HeldOut(held.users[rows], held.positives[rows], held.candidates[rows])

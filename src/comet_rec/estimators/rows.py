"""New rows for the update of a model, read as its log was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from comet_rec.artefact.run import Run
from comet_rec.data.interactions import Interactions
from comet_rec.reading.columns import ROLES
from comet_rec.reading.given import first_named
from comet_rec.reading.readers import read

OF_A_FIRST_LOG = ("min_user_interactions", "min_item_interactions", "skip_bad")
"""Options of `read` that suit the first log alone: a day's rows are too few for them."""


def new_rows(run: Run, source: Any, options: Mapping[str, Any] | None = None) -> Interactions:
    """Read new rows with the options that the run's log was read with.

    Rows that lack the log's columns are read by common column names.

    Parameters
    ----------
    run : Run
    source
        A log, which is returned as it is; what `read` accepts; or None for no rows.
    options : mapping, optional
        Options of `read` that replace those of the run.

    Raises
    ------
    DataError
        When the rows cannot be read.
    """
    log = run.interactions
    if source is None:
        return log.select(np.zeros(len(log), dtype=bool))
    if isinstance(source, Interactions):
        return source
    stored = {name: value for name, value in run.reading.items() if name not in OF_A_FIRST_LOG}
    stored["time_scope"] = log.time_scope
    named: dict[str, Any] = {role: stored.pop(role) for role in ROLES if role in stored}
    given = options or {}
    return first_named(
        lambda **columns: read(source, **{**stored, **columns, **given}), [named, {}]
    )

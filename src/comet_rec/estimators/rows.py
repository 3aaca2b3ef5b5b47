"""New rows for the update of a model: read as its log was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comet_rec.artefact.run import Run
from comet_rec.data.interactions import Interactions
from comet_rec.reading.readers import read

OF_A_WHOLE_LOG = ("min_user_interactions", "min_item_interactions", "skip_bad")
"""Options of `read` that were meant for the first log, and do not fit a few new rows."""


def new_rows(run: Run, source: Any, options: Mapping[str, Any] | None = None) -> Interactions:
    """Read new rows with the options that the run's log was read with.

    Parameters
    ----------
    run : Run
    source
        A log, which is returned as it is, or what `read` accepts.
    options : mapping, optional
        Options of `read` that replace those of the run.

    Raises
    ------
    DataError
        When the rows cannot be read.
    """
    if isinstance(source, Interactions):
        return source
    stored = {name: value for name, value in run.reading.items() if name not in OF_A_WHOLE_LOG}
    return read(source, **{**stored, "time_scope": run.interactions.time_scope, **(options or {})})

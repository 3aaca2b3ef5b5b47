"""The audit: what in a split, its candidates, its times or its training makes figures mean less.

`audit` looks at a split as the library holds it, `audit_files` at the files of a given split before
anything in them is fixed. The table of all checks is in `checks`. A trained run is audited by
`comet_rec.estimators.audit`, since measuring again needs a room that this one must not import.
"""

from __future__ import annotations

from comet_rec.config import Config
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.evaluation.audit.checks import CHECKS, Check, run_checks, run_training_checks
from comet_rec.evaluation.audit.files import audit_files
from comet_rec.evaluation.audit.findings import Finding, as_data, as_text, ordered, passed
from comet_rec.evaluation.audit.material import of_log, of_split
from comet_rec.evaluation.audit.rows import shown_by

__all__ = [
    "CHECKS", "Check", "Finding", "as_data", "as_text", "audit", "audit_files", "audit_shown",
    "ordered", "passed", "shown_by",
]  # fmt: skip


def audit(data: Split | Interactions, config: Config | None = None) -> list[Finding]:
    """Findings about a split, errors first; about a bare log, those that need no held-out items.

    Parameters
    ----------
    data : Split or Interactions
    config : Config, optional
        Config of a model that is trained on the training part: training batches are drawn with its
        settings, and looked into for the target.

    Returns
    -------
    list of Finding
        Empty where all is well.
    """
    material = of_split(data) if isinstance(data, Split) else of_log(data)
    found = run_checks(material)
    if config is not None:
        found += run_training_checks(material, config)
    return ordered(found)


def audit_shown(split: Split, config: Config) -> list[Finding]:
    """Findings about the training batches of a model with this config alone."""
    return ordered(run_training_checks(of_split(split), config))

"""The audit: checks for faults that make the metrics of a split or a model meaningless.

`CHECKS` lists all checks; docs/audit.md describes each of them. `audit` checks a split as the
library holds it. `audit_files` checks the files of a given split, that is, a split that another
tool made, before the library corrects anything in them. `comet_rec.estimators.audit` checks a
trained run by evaluating it again, which needs packages that this package must not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from comet_rec.config import Config
from comet_rec.data.given_split import Pairs
from comet_rec.data.interactions import Interactions
from comet_rec.data.split import Split
from comet_rec.errors import DataError
from comet_rec.evaluation.audit import rows, times
from comet_rec.evaluation.audit.findings import (
    Finding,
    Hit,
    Severity,
    as_data,
    as_text,
    counted,
    ordered,
    passed,
)
from comet_rec.evaluation.audit.material import Material, of_files, of_log, of_split
from comet_rec.evaluation.audit.rows import shown_by

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "as_data",
    "as_text",
    "audit",
    "audit_files",
    "audit_shown",
    "counted",
    "ordered",
    "passed",
    "shown_by",
]  # fmt: skip

Scope = Literal["held-out", "log", "training", "files", "run"]


@dataclass(frozen=True)
class Check:
    """One check of the audit.

    Parameters
    ----------
    name : str
        Name of the check; ``{part}`` in it stands for test or validation.
    severity : {"error", "warning", "note"}
    scope : {"held-out", "log", "training", "files", "run"}
        Scope of the check, which decides the arguments of `function`. The first is always the
        `Material`, a log with its held-out items. "held-out" adds the test or validation part,
        "training" adds a config. Checks of scope "files" and "run" have no function here.
        `material.of_files` and `comet_rec.estimators.audit` make them.
    function : callable, optional
        Returns a `Hit`, or None if there is no fault.
    """

    name: str
    severity: Severity
    scope: Scope
    function: Callable[..., Hit | None] | None = None

    def finding(self, hit: Hit, part: str = "test") -> Finding:
        """Finding with the name and the severity of this check, made from the hit of its function.

        `part` replaces ``{part}`` in the name.
        """
        name = self.name.format(part=part)
        return Finding(name, self.severity, hit.count, hit.of, hit.message, hit.example)

    def run(self, *arguments: Any, part: str = "test") -> Iterator[Finding]:
        """Call `function` with these arguments, and yield a finding if it returns a hit."""
        hit = self.function(*arguments) if self.function else None
        if hit is not None:
            yield self.finding(hit, part)


CHECKS: tuple[Check, ...] = (
    Check("{part}-in-training", "error", "held-out", rows.in_training),
    Check("{part}-rated-zero", "error", "held-out", rows.rated_zero),
    Check("{part}-candidates-outside", "error", "held-out", rows.candidates_outside),
    Check("{part}-positive-among-candidates", "error", "held-out", rows.positive_among_candidates),
    Check("{part}-candidates-touched", "error", "held-out", rows.candidates_interacted),
    Check("{part}-candidates-repeated", "error", "held-out", rows.candidates_repeated),
    Check("{part}-without-candidates", "error", "held-out", rows.without_candidates),
    Check("{part}-few-candidates", "warning", "held-out", rows.few_candidates),
    Check("{part}-users-cold", "warning", "held-out", rows.cold_users),
    Check("{part}-items-cold", "warning", "held-out", rows.cold_items),
    Check("{part}-candidates-outside", "warning", "held-out", rows.foreign_candidates),
    Check("{part}-candidates-future", "error", "held-out", rows.future_candidates),
    Check("{part}-candidates-cold", "note", "held-out", rows.cold_candidates),
    Check("test-users-repeated", "error", "files"),
    Check("candidates-without-test", "warning", "files"),
    Check("repeated-rows", "warning", "log", rows.repeated_rows),
    Check("repeated-rows", "warning", "log", rows.rows_removed_by_reading),
    Check("no-times", "note", "log", times.no_times),
    Check("times-equal", "warning", "log", times.all_equal),
    Check("{part}-ties", "warning", "held-out", times.held_out_ties),
    Check("tied-steps", "note", "log", times.tied_steps),
    Check("times-truncated", "warning", "log", times.truncated),
    Check("times-units", "warning", "log", times.several_units),
    Check("times-future", "warning", "log", times.far_ahead),
    Check("times-past", "warning", "log", times.long_past),
    Check("order-follows-ids", "warning", "log", times.order_of_ids),
    Check("times-per-user", "note", "log", times.per_user_times),
    Check("rows-in-the-wrong-part", "error", "log", times.rows_in_the_wrong_part),
    Check("future-rows", "note", "log", times.rows_after_the_test),
    Check("future-users", "note", "log", times.users_before_others),
    Check("test-future-items", "warning", "log", times.items_from_the_future),
    Check("target-in-history", "error", "training", rows.target_in_history),
    Check("artefact-digests", "error", "run"),
    Check("artefact-consistency", "error", "run"),
    Check("not-finite", "error", "run"),
    Check("protocol-hash", "error", "run"),
    Check("metrics-differ", "error", "run"),
    Check("constant-scores", "error", "run"),
    Check("tied-scores", "warning", "run"),
)


def audit(data: Split | Interactions, config: Config | None = None) -> list[Finding]:
    """Run all checks on a split, or on a log without held-out items.

    Findings are sorted by severity: errors, warnings, notes.

    Parameters
    ----------
    data : Split or Interactions
    config : Config, optional
        Config of a model. If given, the audit also draws training batches with its settings, and
        searches their input histories for the item or user that the model predicts.

    Returns
    -------
    list of Finding
        Empty if there is no fault.
    """
    material = of_split(data) if isinstance(data, Split) else of_log(data)
    findings = _run_checks(material)
    if config is not None:
        findings += _run_training_checks(material, config)
    return ordered(findings)


def audit_shown(split: Split, config: Config) -> list[Finding]:
    """Check only the training batches of a model with this config.

    An input history in such a batch must not contain the item or user that the model predicts.
    """
    return ordered(_run_training_checks(of_split(split), config))


def audit_files(
    log: Interactions,
    test: Pairs,
    candidates: Pairs | None = None,
    times: Mapping[tuple[Any, Any], int] | None = None,
) -> list[Finding]:
    """Run all checks on the files of a given split, before the library corrects anything in them.

    A given split is one that another tool made. Findings are sorted by severity: errors, warnings,
    notes.

    Parameters
    ----------
    log : Interactions
        The training file.
    test, candidates : Pairs
        (user, item) pairs of the test file and of the candidates file, by external id. Without
        `candidates`, the checks of candidates are skipped.
    times : mapping of (user, item) to int, optional
        Times of the test rows, in the unit of the log. Without them, the checks of ties and of
        rows from the future are skipped.

    Raises
    ------
    DataError
        If the test file has no row, or if ids in the files differ in type from ids in the log.
    """
    if len(test.users) == 0:
        raise DataError("the test file has no row; give one row for each user")
    material, hits = of_files(log, test, candidates, times)
    findings = []
    for check in CHECKS:
        hit = hits.get(check.name)
        if hit is not None:
            findings.append(check.finding(hit))
    return ordered(findings + _run_checks(material))


def _run_checks(material: Material) -> list[Finding]:
    """Run the checks of scope "log" and "held-out", in the order of `CHECKS`.

    Consecutive checks of scope "held-out" run for the test part first, then for validation.
    """
    findings: list[Finding] = []
    for scope, group in groupby(CHECKS, key=lambda check: check.scope):
        checks = list(group)
        if scope == "log":
            for check in checks:
                findings += check.run(material)
        elif scope == "held-out":
            for held in material.held:
                for check in checks:
                    findings += check.run(material, held, part=held.name)
    return findings


def _run_training_checks(material: Material, config: Config) -> list[Finding]:
    """Run the checks of scope "training" for a model with this config."""
    findings: list[Finding] = []
    for check in CHECKS:
        if check.scope == "training":
            findings += check.run(material, config)
    return findings

"""The table of checks: one row a check, from which the docs' table is made.

A check of held-out items runs for the test and for the validation part; ``{part}`` in its name
stands for the one or the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from comet_rec.config import Config
from comet_rec.evaluation.audit import held, rows, times
from comet_rec.evaluation.audit.findings import Finding, Hit, Severity
from comet_rec.evaluation.audit.material import Held, Material

Scope = Literal["held-out", "log", "training", "files", "run"]


@dataclass(frozen=True)
class Check:
    """One thing that the audit looks for.

    Parameters
    ----------
    name : str
    severity : {"error", "warning", "note"}
    scope : {"held-out", "log", "training", "files", "run"}
        Arguments of `function`: the material and a held-out part; the material; the material and a
        config. Checks of files and runs have no function here: they are a part of joining the
        files (`audit.files`) and of measuring again (`comet_rec.estimators.audit`).
    looks_at : str
        For the docs' table.
    function : callable, optional
        Returns a `Hit`, or None where all is well.
    """

    name: str
    severity: Severity
    scope: Scope
    looks_at: str
    function: Callable[..., Hit | None] | None = None

    def finding(self, hit: Hit, part: str = "test") -> Finding:
        """The finding of a hit."""
        name = self.name.format(part=part)
        return Finding(name, self.severity, hit.count, hit.of, hit.message, hit.example)


CHECKS: tuple[Check, ...] = (
    Check(
        "{part}-in-training", "error", "held-out",
        "held-out items that the same user has in an earlier part",
        held.in_training,
    ),
    Check(
        "{part}-rated-zero", "error", "held-out",
        "held-out items that their user rated 0: a file of sampled negatives, or a scale with a "
        "zero, read without `min_rating`",
        held.rated_zero,
    ),
    Check(
        "{part}-candidates-outside", "error", "held-out",
        "candidates that are no index of the catalogue",
        held.outside_the_catalogue,
    ),
    Check(
        "{part}-positive-among-candidates", "error", "held-out",
        "users whose own positive is among their negatives",
        held.positive_among_candidates,
    ),
    Check(
        "{part}-candidates-touched", "error", "held-out",
        "candidates that the user interacted with anywhere in the raw log, rows that a rating "
        "filter dropped included",
        held.interacted,
    ),
    Check(
        "{part}-candidates-repeated", "error", "held-out",
        "users with a candidate more than once",
        held.repeated,
    ),
    Check(
        "{part}-without-candidates", "error", "held-out",
        "users with nothing to be ranked against",
        held.none_at_all,
    ),
    Check(
        "{part}-few-candidates", "warning", "held-out",
        "users with fewer candidates than the protocol says; in a file: than its longest row has",
        held.too_few,
    ),
    Check(
        "{part}-users-cold", "warning", "held-out",
        "held-out users without a training row",
        held.cold_users,
    ),
    Check(
        "{part}-items-cold", "warning", "held-out",
        "held-out items without a training row",
        held.cold_items,
    ),
    Check(
        "{part}-candidates-outside", "warning", "held-out",
        "candidates in no row of the log",
        held.foreign_candidates,
    ),
    Check(
        "{part}-candidates-cold", "note", "held-out",
        "candidates without a training row: easy to rank low",
        held.cold_candidates,
    ),
    Check(
        "test-users-repeated", "error", "files",
        "users with several rows in a test file",
    ),
    Check(
        "candidates-without-test", "warning", "files",
        "candidates of users without a test row",
    ),
    Check(
        "repeated-rows", "warning", "log",
        "training rows that repeat a (user, item) pair",
        rows.repeated,
    ),
    Check(
        "repeated-rows", "warning", "log",
        "rows of a repeated pair that reading removed; it keeps the earliest of each",
        rows.repeated_in_reading,
    ),
    Check(
        "no-times", "note", "log",
        "logs without times: the order of the file decides",
        times.no_times,
    ),
    Check(
        "times-equal", "warning", "log",
        "logs whose times are all one: the order of the file decides",
        times.all_equal,
    ),
    Check(
        "{part}-ties", "warning", "held-out",
        "users whose held-out item has the time of the row before it: the order of the file chose "
        "it. Needs times",
        times.held_out_ties,
    ),
    Check(
        "tied-steps", "note", "log",
        "steps within users between equal times",
        times.tied_steps,
    ),
    Check(
        "times-truncated", "warning", "log",
        "times that all survive 32-bit floats, which at today's Unix times are 128 seconds apart; "
        "whole hours and days are not meant",
        times.truncated,
    ),
    Check(
        "times-units", "warning", "log",
        "times of more than one unit: seconds beside milli-, micro- or nanoseconds",
        times.several_units,
    ),
    Check(
        "times-future", "warning", "log",
        "rows with a time more than a year ahead",
        times.far_ahead,
    ),
    Check(
        "times-past", "warning", "log",
        "rows with a time before 1973",
        times.long_past,
    ),
    Check(
        "order-follows-ids", "warning", "log",
        "95 % of the steps within users, or of those between equal times, in the order of item "
        "ids: a pattern that a sequence model learns and that nobody's choices have",
        times.order_of_ids,
    ),
    Check(
        "times-per-user", "note", "log",
        "times that order the rows of one user only: nothing is said of the future",
        times.per_user_times,
    ),
    Check(
        "future-rows", "note", "log",
        "training rows later than the median test time, which leave-one-out has by nature. Needs "
        "times that compare across users",
        times.rows_after_the_test,
    ),
    Check(
        "future-users", "note", "log",
        "users tested at a time before some training row of others. Needs times that compare "
        "across users",
        times.users_before_others,
    ),
    Check(
        "test-future-items", "warning", "log",
        "users whose test item first occurs in training after the test moment. Needs times that "
        "compare across users",
        times.items_from_the_future,
    ),
    Check(
        "target-in-history", "error", "training",
        "training positives that stand in their user's input history, or their user in the item's: "
        "some batches are drawn with the run's settings and looked into. For FISM and SVD++, which "
        "see whole histories, the setting `model.exclude_target` counts. Needs a run",
        rows.target_in_history,
    ),
    Check(
        "artefact-digests", "error", "run",
        "a file of the run is not the one that was written",
    ),
    Check(
        "artefact-consistency", "error", "run",
        "parts of the run are at odds: interactions or protocol do not match their hash",
    ),
    Check(
        "not-finite", "error", "run",
        "NaN or infinity among parameters, vectors or scores",
    ),
    Check(
        "protocol-hash", "error", "run",
        "the figures were measured under another protocol than the run holds",
    ),
    Check(
        "metrics-differ", "error", "run",
        "stored figures that measuring again does not give, to 1e-9. For models whose score is an "
        "inner product. A note where the difference is at most one user's share of at least 100, "
        "as sums on another processor can make it",
    ),
    Check(
        "constant-scores", "error", "run",
        "more than half of the test users have one score for all candidates",
    ),
    Check(
        "tied-scores", "warning", "run",
        "candidates with the score of their positive; a note up to 10 %",
    ),
)  # fmt: skip


def run_checks(material: Material) -> list[Finding]:
    """Findings of all checks of the log and of its held-out parts, in the table's order.

    Neighbouring checks of held-out items run for the test part first, then for validation.
    """
    found = []
    for scope, group in groupby(CHECKS, key=lambda check: check.scope):
        checks = list(group)
        parts: Iterable[Held | None] = material.held if scope == "held-out" else (None,)
        if scope not in ("held-out", "log"):
            continue
        for part in parts:
            for check in checks:
                assert check.function is not None
                hit = check.function(material, part) if part else check.function(material)
                if hit is not None:
                    found.append(check.finding(hit, part.name if part else "test"))
    return found


def run_training_checks(material: Material, config: Config) -> list[Finding]:
    """Findings about the training batches of a model with this config."""
    found = []
    for check in CHECKS:
        if check.scope == "training" and check.function is not None:
            hit = check.function(material, config)
            if hit is not None:
                found.append(check.finding(hit))
    return found


def finding(name: str, hit: Hit | None) -> Finding:
    """Finding of a check by its name, with the severity that the table has for it."""
    assert hit is not None
    check = next(check for check in CHECKS if check.name == name)
    return check.finding(hit)


def as_markdown() -> str:
    """The docs' table of all checks."""
    lines = ["| check | severity | what it looks at |", "|---|---|---|"]
    lines += [
        f"| `{check.name.format(part='test')}` | {check.severity} | {check.looks_at} |"
        for check in CHECKS
    ]
    return "\n".join(lines)

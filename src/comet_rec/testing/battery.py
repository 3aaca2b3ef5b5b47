"""The battery of checks: run on a recommender, compared with the failures that it declares."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from comet_rec.artefact.untrusted import one_line
from comet_rec.data.tables import Table
from comet_rec.errors import InputError, did_you_mean
from comet_rec.estimators.registry import load_model
from comet_rec.testing import files, lists, new_users, training
from comet_rec.testing.subject import FUNCTIONS, NotOffered, Subject

CHECKS = {
    function.__name__: function
    for room in (training, lists, new_users, files)
    for function in FUNCTIONS
    if function.__module__ == room.__name__
}
"""Name of each check → its function, which raises an error if the check fails."""

Outcome = Literal["passed", "failed", "failed as declared", "not offered"]


@dataclass(frozen=True)
class Check:
    """One check of one recommender. Calling it raises an `AssertionError` if the check fails.

    Parameters
    ----------
    name : str
    about : str
        What the check asks, in one sentence.
    subject : Subject
        The recommender; shared by all of its checks, so that it is trained a few times only.
    declared : str or None
        Why the check is known to fail; None if it should pass.
    """

    name: str
    about: str
    subject: Subject
    declared: str | None = None

    def __str__(self) -> str:
        return self.name

    def result(self) -> tuple[Outcome, str]:
        """Outcome, and the reason for a failure."""
        try:
            CHECKS[self.name](self.subject)
        except (NotOffered, NotImplementedError) as refusal:
            if self.declared is not None:
                return "failed", "not offered, although it is declared to fail; remove it"
            return "not offered", one_line(str(refusal))
        except Exception as error:
            return ("failed" if self.declared is None else "failed as declared"), _reason(error)
        if self.declared is not None:
            return "failed", "passes, although it is declared to fail; remove it from the list"
        return "passed", ""

    def __call__(self) -> None:
        """Raise an `AssertionError` if the check fails."""
        outcome, reason = self.result()
        assert outcome != "failed", f"{self.name}: {reason}"


def checks(
    model: Any,
    *,
    expected_failed: Mapping[str, str] | None = None,
    load: Callable[[Any], Any] = load_model,
) -> list[Check]:
    """All checks of a recommender, for example for `pytest.mark.parametrize`.

    The arguments are those of `check_recommender`.

    Raises
    ------
    InputError
        When `expected_failed` names a check that does not exist.

    Examples
    --------
    >>> import comet_rec as cr
    >>> len(checks(cr.EASE())) >= 60
    True
    """
    declared = dict(expected_failed or {})
    for name in declared:
        if name not in CHECKS:
            raise InputError(f"expected_failed: no check {name!r}; {did_you_mean(name, CHECKS)}")
    subject = Subject(model, load)
    return [
        Check(name, one_line(str(function.__doc__), 200), subject, declared.get(name))
        for name, function in CHECKS.items()
    ]


def check_recommender(
    model: Any,
    *,
    expected_failed: Mapping[str, str] | None = None,
    load: Callable[[Any], Any] = load_model,
) -> Table:
    """Run all checks on a recommender.

    The recommender need not be one of this library. A check calls the methods that it needs:
    ``fit(log)``, ``recommend(users, k, …)``, ``recommend_for_history(histories, k)``,
    ``score(users, items)`` and ``save(folder)``, as `Estimator` documents them. A method that is
    missing fails the checks that need it. A method that raises `NotImplementedError` is not offered
    by the recommender; a `ConfigError` of an optional method says the same. Wrong arguments must be
    refused by a ValueError, TypeError, KeyError or IndexError whose text is one line.

    Some checks start new processes, which import the caller's main module: guard a script by ``if
    __name__ == "__main__":``, and give a `load` that can be imported.

    Parameters
    ----------
    model : object
        An unfitted recommender. It is copied before each training and never fitted itself. Choose
        settings that train fast and still learn: the planted log has 48 users and 32 items, of two
        kinds each.
    expected_failed : mapping of str to str, optional
        Names of checks that are known to fail, each with the reason. Such a check must fail.
    load : callable
        Loads what ``save`` wrote.

    Returns
    -------
    Table
        Columns check, outcome and reason, one row a check. The outcome is "passed", "failed as
        declared" or "not offered".

    Raises
    ------
    AssertionError
        When a check fails and is not declared, or is declared and passes. The message names all of
        them.
    InputError
        When `expected_failed` names a check that does not exist.
    """
    battery = checks(model, expected_failed=expected_failed, load=load)
    results = [check.result() for check in battery]
    failed = [
        f"{check.name}: {reason}"
        for check, (outcome, reason) in zip(battery, results, strict=True)
        if outcome == "failed"
    ]
    if failed:
        count = f"{len(failed)} of {len(battery)} checks failed"
        raise AssertionError("\n".join([f"{type(model).__name__}: {count}", *failed]))
    return Table(
        {
            "check": np.array([check.name for check in battery]),
            "outcome": np.array([outcome for outcome, _ in results]),
            "reason": np.array([reason for _, reason in results]),
        }
    )


def _reason(error: Exception) -> str:
    """The text of an error in one line; the source of the assertion if it has no text."""
    text = " ".join(str(error).split())
    if not text:
        text = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return one_line(f"{type(error).__name__}: {text}", 300)

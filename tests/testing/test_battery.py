"""The battery of checks, on every registered model and on recommenders that are wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.errors import InputError
from comet_rec.models import base
from comet_rec.testing import check_recommender, checks
from comet_rec.testing.battery import CHECKS
from tests.processes import run_program
from tests.testing.battery_of import DECLARED

pytestmark = [
    # The planted logs are odd on purpose: ids with blanks, times in 1970, no times.
    pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning"),
]

FAST = ["mf"]  # and EASE, check by check


def battery(name: str) -> dict[str, int]:
    """Number of checks with each outcome."""
    done = run_program("tests.testing.battery_of", name)
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("name", FAST)
def test_models_pass_all_checks_but_those_declared(name):
    outcomes = battery(name)
    assert outcomes["passed"] >= 60
    assert outcomes.get("failed as declared", 0) == len(DECLARED.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(set(base.names()) - set(FAST)), "default"])
def test_slower_models_pass_all_checks_but_those_declared(name):
    assert battery(name)["passed"] >= 60


FORKING = "a_forked_process_recommends_the_same"  # a test process with threads must not be forked


@pytest.mark.parametrize(
    "check", [check for check in checks(cr.EASE()) if check.name != FORKING], ids=str
)
def test_checks_are_parameters_of_a_test(check):
    check()


class Wrong(cr.EASE):
    """EASE with a fault in its lists."""

    def recommend(self, users=None, k=10, **rules):
        table = super().recommend(users, k, **rules)
        return self.faulty({name: np.array(table[name]) for name in table.keys()})  # noqa: SIM118


class Backwards(Wrong):
    """Lists in the wrong order."""

    def faulty(self, table):
        return table | {"item_id": table["item_id"][::-1], "score": table["score"][::-1]}


class Repeating(Wrong):
    """Lists whose items are all the first one."""

    def faulty(self, table):
        return table | {"item_id": np.repeat(table["item_id"][:1], len(table["item_id"]))}


class Drifting(Wrong):
    """Scores that grow from call to call."""

    calls = 0

    def faulty(self, table):
        self.calls += 1
        return table | {"score": table["score"] + self.calls}


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Backwards, "scores_fall"),
        (Repeating, "no_item_twice"),
        (Repeating, "k_above_the_catalogue"),
        (Drifting, "asking_twice_gives_the_same"),
    ],
)
def test_faults_are_found(fault, check):
    found = {each.name: each for each in checks(fault())}[check].result()
    assert found[0] == "failed"
    assert found[1]


def test_all_faults_are_named_at_once(monkeypatch):
    for name in [name for name in CHECKS if "process" in name]:  # they start one each
        monkeypatch.delitem(CHECKS, name)
    with pytest.raises(AssertionError, match=r"(?s)Repeating: .* checks failed.*no_item_twice: "):
        check_recommender(Repeating())


def test_a_declared_failure_that_passes_is_a_failure():
    found = {each.name: each for each in checks(cr.EASE(), expected_failed={"one_user": "why"})}
    assert found["one_user"].result()[0] == "failed"
    with pytest.raises(AssertionError, match="declared"):
        found["one_user"]()


def test_a_missing_method_fails_and_a_refusal_is_not_offered():
    class Bare:
        def fit(self, log):
            return self

        def score(self, users, items):
            raise NotImplementedError("no scores of pairs")

    found = {each.name: each for each in checks(Bare())}
    assert found["scores_fall"].result()[0] == "failed"
    assert found["unknown_items_are_refused"].result() == ("not offered", "no scores of pairs")


def test_unknown_names_of_checks_are_refused():
    with pytest.raises(InputError, match="did you mean 'no_item_twice'"):
        checks(cr.EASE(), expected_failed={"no_item_twic": "why"})

"""The battery of checks, on every registered model and on recommenders that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.errors import InputError
from comet_rec.estimators.registry import ESTIMATORS
from comet_rec.models import base
from comet_rec.testing import check_recommender, checks
from tests.models.test_contract import SMALL

pytestmark = [
    # The planted logs are odd on purpose: ids with blanks, times in 1970, no times.
    pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning"),
    # A process is forked while threads of this one exist: that is what the check is about.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

CHANCE = "it knows nothing of its users"
OWN_PARAMETERS = "a user of the log has parameters of its own beside its history"
DECLARED = {
    "random": {"it_learns_the_planted_kinds": CHANCE},
    "popularity": {"it_learns_the_planted_kinds": CHANCE, "a_history_gets_its_own_kind": CHANCE},
    "comet": {"a_known_history_gets_the_list_of_its_user": OWN_PARAMETERS},
    "fism": {"a_known_history_gets_the_list_of_its_user": OWN_PARAMETERS},
    "svdpp": {"a_known_history_gets_the_list_of_its_user": OWN_PARAMETERS},
}
FAST = ["mf", "popularity"]  # and EASE, check by check


def subject(name: str) -> cr.COMET:
    """Model that learns the planted kinds in a second."""
    if base.non_iterative(name):
        return ESTIMATORS[name]()
    common = {"preset": "static", "epochs": 8, "full_epochs": 8, "batch_size": 64}
    rates = {"mlp": 5e-3, "sasrec": 5e-3}
    return ESTIMATORS[name](
        **SMALL.get(name, {}), **common, learning_rate=rates.get(name, 3e-2)
    )  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_models_pass_all_checks_but_those_declared(name):
    table = check_recommender(subject(name), expected_failed=DECLARED.get(name))
    outcomes = list(table["outcome"])
    assert len(outcomes) >= 60
    assert outcomes.count("failed as declared") == len(DECLARED.get(name, {}))
    assert outcomes.count("passed") >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(base.names()) - set(FAST)))
def test_slower_models_pass_all_checks_but_those_declared(name):
    check_recommender(subject(name), expected_failed=DECLARED.get(name))


@pytest.mark.slow
def test_the_default_comet_passes_all_checks():
    check_recommender(cr.COMET(embedding_dim=16, epochs=8, full_epochs=8))


@pytest.mark.parametrize("check", checks(cr.EASE()), ids=str)
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


def test_all_faults_are_named_at_once():
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

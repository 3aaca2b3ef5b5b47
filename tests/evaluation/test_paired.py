"""Paired tests against scipy and numpy done the long way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from comet_rec.evaluation import paired as module
from comet_rec.evaluation.paired import SILENT, Difference, Noise, holm, over_trainings, paired


def test_equal_models_do_not_differ():
    values = np.random.default_rng(0).random(200)
    found = paired(values, values)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.wilcoxon, found.bootstrap) == (1, 1)


def test_a_difference_is_found_with_its_interval():
    rng = np.random.default_rng(1)
    reference = rng.random(2000)
    values = reference + rng.normal(0.05, 0.3, 2000)
    found = paired(values, reference)
    differences = values - reference
    error = differences.std(ddof=1) / np.sqrt(2000)
    assert found.difference == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(differences).pvalue, rel=1e-6)
    assert found.bootstrap < 0.001


def test_tests_hold_their_level_on_models_that_do_not_differ(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 1000)
    rng = np.random.default_rng(2)
    found = [paired(rng.random(150), rng.random(150), seed) for seed in range(200)]
    for name in ("wilcoxon", "bootstrap"):
        share = np.mean([getattr(p, name) < 0.05 for p in found])
        assert abs(share - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 200)


def test_holm_equals_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (3, 1), (2, 2), (1, 1)])
def test_differences_over_trainings_hold_their_level(ours, theirs):
    """Models that differ by luck alone, of users and of trainings; one training is lent noise."""
    rng = np.random.default_rng(0)
    users, tries, spread = 300, 600, 0.02

    def trained(n, taste):
        luck = rng.normal(0, spread, (n, 1))
        return taste + luck + rng.normal(0, 0.3, (n, users))

    found = []
    for _ in range(tries):
        taste = rng.normal(0.4, 0.3, users)
        others = [trained(3, rng.normal(0.4, 0.3, users)) for _ in range(4)]
        lent = Noise.largest(others)
        found.append(over_trainings(trained(ours, taste), trained(theirs, taste), (lent, lent)))
    share = np.mean([one.p < 0.05 for one in found])
    assert share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / tries)
    inside = np.mean([one.low <= 0 <= one.high for one in found])
    assert inside == pytest.approx(1 - share, abs=1e-9)


def test_the_error_has_a_part_of_users_and_one_of_each_models_trainings():
    rng = np.random.default_rng(5)
    ours, theirs, third = rng.random((3, 80)), rng.random((2, 80)), rng.random((1, 80))
    noise = Noise(0.0007, 4.0)

    def of_users(a, b):
        return (a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / 80

    def of_trainings(a):
        return a.mean(axis=1).var(ddof=1) / len(a)

    both = of_trainings(ours) + of_trainings(theirs)
    for a, b, more in (
        (ours, theirs, both),
        (ours, third, of_trainings(ours) + 0.0007),  # lent to one
        (third, third + rng.random((1, 80)), 2 * 0.0007),  # to both
    ):
        found = over_trainings(a, b, (noise, noise))
        assert found.error**2 == pytest.approx(of_users(a, b) + more)


def test_zeros_take_part_in_the_ranks():
    """Most users gain nothing under either model: NDCG@10 of both is 0."""
    rng = np.random.default_rng(6)
    values, reference = (rng.random((2, 300)) < 0.4) * rng.random((2, 300))
    wanted = stats.wilcoxon(values - reference, zero_method="pratt", method="approx").pvalue
    found = paired(values, reference).wilcoxon
    assert found == pytest.approx(wanted)
    assert found != stats.wilcoxon(values - reference, method="approx").pvalue


def test_the_noise_lent_is_that_of_the_noisiest():
    rng = np.random.default_rng(1)
    models = [rng.random((3, 50)), rng.random((2, 50)), rng.random((1, 50))]
    a, b = (of.mean(axis=1).var(ddof=1) for of in models[:2])
    assert Noise.largest(models) == Noise(pytest.approx(max(a, b)), 3)
    assert Noise.largest(models[2:]) is None


@pytest.mark.parametrize("users", [1, 2, 5])
def test_a_few_users_of_one_sign_prove_nothing(users):
    found = paired(np.linspace(0.5, 1, users), np.zeros(users))
    assert found.bootstrap == 2.0 ** (1 - users)
    same = over_trainings(np.ones((1, users)), np.zeros((1, users)), (SILENT, SILENT))
    assert same == Difference(1.0, 1.0, 1.0, 0.0, np.inf, None)


def test_a_training_of_unknown_noise_gives_no_p():
    rng = np.random.default_rng(3)
    values, reference = rng.random((2, 1, 80))
    found = over_trainings(values, reference)
    assert found.p is None
    low, high = stats.ttest_rel(values[0], reference[0]).confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))  # of users alone
    assert over_trainings(values, np.concatenate([reference, reference])).p is None


def test_one_user_proves_nothing():
    assert over_trainings(np.array([[1.0]]), np.array([[0.0]]), (SILENT, SILENT)).p is None


def test_models_that_draw_nothing_are_compared_by_a_paired_t_test():
    rng = np.random.default_rng(3)
    values, reference = rng.random((2, 1, 80))
    silent = SILENT, SILENT
    found = over_trainings(values, reference, silent)
    assert found.p == pytest.approx(stats.ttest_rel(values[0], reference[0]).pvalue)
    assert over_trainings(values, values, silent).p == 1
    # Users who all differ alike tell nothing of how users vary.
    assert over_trainings(np.ones((1, 9)), np.zeros((1, 9)), silent).p is None

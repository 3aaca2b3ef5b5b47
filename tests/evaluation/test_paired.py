"""Paired tests against scipy and numpy done the long way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from comet_rec.evaluation import paired as module
from comet_rec.evaluation.paired import holm, paired


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
        assert share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_holm_equals_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []

"""The golden run: its losses change only on purpose (CHANGELOG.md, "Numbers changed").

python -m tests.training.test_golden    writes golden.json anew
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import comet_rec as cr
from tests.conftest import make_log, random_pairs

FILE = Path(__file__).with_name("golden.json")


def measure() -> dict[str, list[float]]:
    """Losses and validation NDCG@10 of three epochs, for each history policy and kind of loss."""
    log = make_log(random_pairs(np.random.default_rng(0), 60, 50, 12))
    split = cr.leave_one_out(log, negatives=20)
    found = {}
    softmax = {
        "loss": "softmax",
        "mask_known_positives": True,
        "schedule": "cosine",
        "towers": "user",
    }
    ways: dict[str, dict[str, Any]] = {
        "sampled": {"history": "sampled"},
        "recent": {"history": "recent"},
        "bpr": {"loss": "bpr"},
        "popular negatives": {"sampling": "popularity"},
        "causal, softmax": {"history": "causal", **softmax},
        "causal, drawn softmax": {"history": "causal", **softmax, "softmax_items": 20},
    }
    small: dict[str, Any] = {"average": 0.99, "embedding_dim": 16, "epochs": 3, "patience": 0}
    for name, settings in ways.items():
        shape: dict[str, Any] = {"history_length": 8, "hidden": (16,), "preset": "static"}
        model: Any = cr.COMET(**small, **shape, **settings).fit(split)
        found |= _figures(name, model)
    return found | _figures(
        "fism, softmax", cr.FISM(preset="best", **small).fit(split, refit=False)
    )


def _figures(name: str, model: Any) -> dict[str, list[float]]:
    lines = model.run.log
    return {
        f"{name} loss": [line["loss"] for line in lines],
        f"{name} NDCG@10": [line["validation"]["NDCG@10"] for line in lines],
    }


def test_the_golden_run_is_what_it_was():
    expected = json.loads(FILE.read_text())
    found = measure()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # Another processor adds products in another order: losses move in their last digits, and
        # a rank among 60 users moves their mean NDCG by up to .006.
        tolerance = {"abs": 0.02} if "NDCG" in name else {"rel": 1e-5}
        assert found[name] == pytest.approx(values, **tolerance), name


if __name__ == "__main__":
    FILE.write_text(json.dumps(measure(), indent=1) + "\n")

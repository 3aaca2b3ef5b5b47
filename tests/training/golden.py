"""The golden run: its losses change only on purpose (CHANGELOG.md, "Numbers changed").

python -m tests.training.golden    writes golden.json anew
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import comet_rec as cr
from tests.conftest import make_log, random_pairs

FILE = Path(__file__).with_name("golden.json")


def measure() -> dict[str, list[float]]:
    """Losses and validation NDCG@10 of three epochs, for each history policy."""
    log = make_log(random_pairs(np.random.default_rng(0), 60, 50, 12))
    split = cr.leave_one_out(log, negatives=20)
    found = {}
    for policy in ("sampled", "recent"):
        model = cr.COMET(
            preset="static",
            average=0.99,
            embedding_dim=16,
            history_length=8,
            history=policy,
            hidden=(16,),
            epochs=3,
            patience=0,
        ).fit(split)
        found[f"{policy} loss"] = [line["loss"] for line in model.run.log]
        found[f"{policy} NDCG@10"] = [line["validation"]["NDCG@10"] for line in model.run.log]
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(measure(), indent=1) + "\n")

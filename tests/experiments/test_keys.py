"""Keys of records: the plans of today find the committed records, and no default changes unseen.

A key leaves out settings at their defaults, so another default would take old records for its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from comet_rec.config import BlendConfig, ProtocolConfig, TrainConfig
from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions
from comet_rec.experiments import records
from comet_rec.experiments.jobs import with_seed
from comet_rec.experiments.plans import FULL, ONE_SEED, SEVERAL_SEEDS, Planner
from comet_rec.experiments.tuning import searched_on
from comet_rec.models import base

DEFAULTS = Path(__file__).parent / "defaults.json"
RESULTS = Path(__file__).parents[2] / "results"

# Users, items, rows, fingerprint and protocol hash of the logs. A key needs no more of them.
LOGS = {
    "ml-1m": (
        6_040, 3_706, 1_000_209,
        "8121161690b608207e5bd20430882dc14628afd8925d8af287a45dc387440a79",
        "adcc18c208a6d2244d863322bca2ca2d5dcbb7ad26c19c6c6a57fd9258ac0be8",
    ),
    "amazon-beauty": (
        22_363, 12_101, 198_502,
        "1ef8fb40dda6887d1ee491f01837a9e0e71356391041505270c65f1b98fde5e7",
        "608f647d85bdf2eca1599e6637888af798c1d6eccaa78b1dc76ba29ac3da1697",
    ),
    "amazon-cds": (
        17_052, 35_118, 472_265,
        "c5eeee189f026035c92fe923a0be90c2d3f8dca0f736d237a7de2bee8c430cbf",
        "6e97da0f04b830f97d6fd651a41b6effa3ce70e28744586b4fa9255d8d488703",
    ),
}  # fmt: skip


def split_like(name):
    """A log of the same counts, with the fingerprint and the protocol hash of the real one."""
    n_users, n_items, rows, fingerprint, protocol = LOGS[name]
    users = np.arange(rows) * n_users // rows
    log = Interactions(
        users=users.astype(np.int32),
        items=(np.arange(rows) % n_items).astype(np.int32),
        times=np.arange(rows),
        time_scope="per_user",
        user_ids=Ids("int", np.arange(n_users)),
        item_ids=Ids("int", np.arange(n_items)),
    )
    vars(log)["fingerprint"] = fingerprint
    return SimpleNamespace(interactions=log, hash=protocol)


@pytest.mark.parametrize(
    ("name", "found"), [("ml-1m", 55), ("amazon-beauty", 60), ("amazon-cds", 39)]
)
def test_plans_find_the_committed_records_by_their_keys(name, found):
    """As many as the report shows; the others are of settings that were tried before."""
    pytest.importorskip("optuna")
    split = split_like(name)
    journals = sorted((RESULTS / "search").glob(f"{name}*.journal"))
    searched = [searched_on(journals, split, "paper", by) for by in ("sampled", "full")]
    planner = Planner(name, split.interactions, FULL, *searched)
    keys = set()
    for jobs_of in {**SEVERAL_SEEDS, **ONE_SEED}.values():
        for job in jobs_of(planner):
            seeded = [with_seed(job, seed) for seed in range(FULL.seeds)]
            keys |= {each.key(split) for one in seeded for each in (*one.starts, one)}
    kept = records.keys(RESULTS / "reproduce" / "records" / f"{name}.zip")
    assert len(keys & set(kept)) == found


def defaults() -> dict[str, dict[str, object]]:
    found = {f"model of {name}": asdict(base.config_class(name)()) for name in base.names()}
    found |= {
        "train": asdict(TrainConfig()),
        "blend": asdict(BlendConfig()),
        "protocol": asdict(ProtocolConfig()),
    }
    return json.loads(json.dumps(found))


def test_no_default_changed():
    """A new setting is added to the file.

    Then put the old value into the presets, or make the records under results/ anew. Write the
    file with ``python -m tests.experiments.test_keys``.
    """
    assert defaults() == json.loads(DEFAULTS.read_text())


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps(defaults(), indent=1, sort_keys=True) + "\n")

"""Small trained runs that several tests of exports share."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

import comet_rec as cr
from tests.conftest import checkerboard_log

BLEND = {
    "embedding_dim": 8, "history_length": 6, "hidden": (16,), "history": "causal",
    "blend_model": "fism", "blend_embedding_dim": 4, "blend_weight": 0.5, "towers": "user",
}  # fmt: skip
TEXTS = ["a,b", 'say "x"', "Zoë", "名前", "back\\slash", "a blank", "emoji 🚲", "new\nline", "<b>"]
"""Text ids that a careless writer would break."""


@pytest.fixture(scope="session")
def blend(tmp_path_factory) -> Path:
    """Run of a COMET with a blended FISM, trained on all rows of the checkerboard."""
    folder = tmp_path_factory.mktemp("blend") / "run"
    model = cr.COMET(preset="static", epochs=2, batch_size=256, **BLEND)
    model.fit(cr.leave_one_out(checkerboard_log(), negatives=20)).save(folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """Run of an MF whose users have odd texts as ids, and whose items have UUIDs."""
    rng = np.random.default_rng(0)
    ids = [uuid.UUID(int=i << 64 | 7) for i in range(12)]
    rows = [(user, ids[i]) for user in TEXTS for i in rng.permutation(12)[:5]]
    folder = tmp_path_factory.mktemp("texts") / "run"
    users, items = zip(*rows, strict=True)
    log = cr.read({"user": list(users), "item": list(items)})
    cr.MF(embedding_dim=4, epochs=1).fit(log).save(folder)
    return folder

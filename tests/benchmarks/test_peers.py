"""MF's lists equal implicit's and NeuMF's scores Cornac's, from the same parameters."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.evaluation.scoring import run_scores

PYTHON = Path(
    os.environ.get("COMET_REC_PEERS", Path(__file__).parents[2] / ".venv-peers/bin/python")
)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.is_file(), reason="peers are not installed: `make bench-peers` does")
def test_lists_and_scores_equal_other_libraries(checkerboard, tmp_path):
    split = cr.leave_one_out(checkerboard, negatives=30)
    shape = {"embedding_dim": 8, "epochs": 20, "batch_size": 256, "learning_rate": 1e-2}
    mf = cr.MF(**shape).fit(split).run
    neumf = cr.NeuMF(**shape, hidden=(16, 8)).fit(split).run
    assert mf.user_vectors is not None
    seen = split.known.matrix
    given = {
        "mf.users": mf.user_vectors.numpy(), "mf.items": mf.item_vectors.numpy(),
        "seen.data": seen.data, "seen.indices": seen.indices, "seen.indptr": seen.indptr,
        **{f"neumf.{name}": value.numpy() for name, value in neumf.state.items()},
    }  # fmt: skip
    np.savez(tmp_path / "given.npz", **given)
    script = Path(__file__).with_name("peer_scores.py")
    command = [PYTHON, script, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(command, check=True, capture_output=True)
    found = np.load(tmp_path / "found.npz")

    n_users, n_items = checkerboard.n_users, checkerboard.n_items
    model = cr.MF()
    model._run = mf
    table = model.recommend(k=10)
    assert np.array_equal(table["item_id"].reshape(n_users, 10), found["ids"])
    np.testing.assert_allclose(table["score"].reshape(n_users, 10), found["scores"], atol=1e-5)
    ours = run_scores(neumf).score_all(np.arange(n_users))
    assert ours.shape == (n_users, n_items)
    np.testing.assert_allclose(ours, found["neumf"], atol=2e-4)

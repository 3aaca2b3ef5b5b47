"""A small log that several tests of the command line train on; test files may replace it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import random_pairs


@pytest.fixture(scope="module")
def log_file(tmp_path_factory) -> Path:
    pairs = random_pairs(np.random.default_rng(0), 25, 40, 8)
    rows = [f"u{u},{i + 100},{t}" for t, (u, i) in enumerate(pairs.tolist())]
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    return path

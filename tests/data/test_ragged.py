"""Ragged rows: chosen rows, neighbouring rows, empty rows, all without a loop."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from comet_rec.data.batches import Batches
from comet_rec.data.histories import HistorySettings
from comet_rec.data.ragged import Ragged

ROWS = [[3, 1, 4], [], [1, 5], [9], []]


@pytest.fixture
def ragged() -> Ragged:
    return Ragged.of_rows([np.array(row, dtype=np.int64) for row in ROWS])


def lists(ragged: Ragged) -> list[list[int]]:
    bounds = itertools.pairwise(ragged.starts.tolist())
    return [ragged.values[start:stop].tolist() for start, stop in bounds]


def test_rows_come_back_as_they_were_given(ragged):
    assert lists(ragged) == ROWS
    assert len(ragged) == 5
    assert ragged.counts.tolist() == [3, 0, 2, 1, 0]
    assert ragged.rows.tolist() == [0, 0, 0, 2, 2, 3]
    assert ragged.values.dtype == ragged.starts.dtype == torch.int64


@pytest.mark.parametrize("chosen", [[2, 0, 2], [1], [4, 3, 1, 0], []])
def test_chosen_rows_stand_in_the_order_asked_for(ragged, chosen):
    found = ragged[torch.tensor(chosen, dtype=torch.int64)]
    assert lists(found) == [ROWS[row] for row in chosen]


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (1, 4), (2, 2), (4, 5)])
def test_neighbouring_rows_are_a_slice(ragged, start, stop):
    assert lists(ragged[start:stop]) == ROWS[start:stop]


def test_no_rows_at_all():
    empty = Ragged.of_rows([])
    assert len(empty) == 0
    assert lists(empty) == []


def test_a_batch_moves_all_its_tensors_and_keeps_what_is_missing(random_log):
    log = random_log(20, 30, 10)
    settings = HistorySettings(length=4, policy="causal", exclude_target=True, dropout=0.1)
    source = Batches(
        log, batch_size=8, negatives=1, histories=settings, seed=0, softmax_items=5,
        mask_known_positives=True,
    )  # fmt: skip
    batch = next(source.epoch(0))
    moved = batch.to(torch.device("meta"))
    tensors = [moved.users, moved.user_histories, moved.labels, moved.shared.columns]
    tensors += [moved.shared.log_weights, moved.masked.values, moved.masked.starts]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.pair_items.shape == batch.pair_items.shape
    plain = next(Batches(log, batch_size=8, negatives=1, histories=None, seed=0).epoch(0))
    assert plain.to(torch.device("meta")).shared is None
    assert batch.positives == 8


def test_a_log_is_read_and_split_without_importing_torch(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user,item,time\n" + "".join(f"{u},{i},{i}\n" for u in range(4) for i in range(u, u + 4))
    )
    code = (
        "import sys, comet_rec as cr; split = cr.leave_one_out(cr.read(sys.argv[1])); "
        "assert len(split.test) == 4, split; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log.csv")], check=True)

"""Presets by the size of the log."""

from __future__ import annotations

import pytest

from comet_rec.estimators.presets import MEDIUM, SMALL, WHOLE_TABLES, paper, static


class Sized:
    """What a preset asks of a log."""

    n_items = 1000
    time_scope = "none"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows


@pytest.mark.parametrize("rows", [1_000, MEDIUM - 1, MEDIUM, SMALL - 1])
def test_static_on_small_logs_is_one_setting(rows):
    small = static("comet", Sized(1_000))  # type: ignore[arg-type]
    assert static("comet", Sized(rows)) == small  # type: ignore[arg-type]
    assert small.train.warmup == 0
    assert small.train.average == 0


@pytest.mark.parametrize(
    ("name", "rows"), [(paper, MEDIUM), (paper, SMALL), (static, SMALL), (static, 10 * SMALL)]
)
def test_large_logs_take_batches_of_whole_tables(name, rows):
    train = name("comet", Sized(rows)).train  # type: ignore[arg-type]
    assert {key: getattr(train, key) for key in WHOLE_TABLES} == WHOLE_TABLES
    assert rows >= 10 * train.batch_size  # else it would be cut to a tenth of the log
    assert name("mf", Sized(rows)).train.batch_size < 32_768  # type: ignore[arg-type]

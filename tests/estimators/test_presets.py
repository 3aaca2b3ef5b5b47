"""Presets by the size of the log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import comet_rec as cr
from comet_rec.config import BlendConfig
from comet_rec.errors import ConfigError
from comet_rec.estimators.presets import (
    LARGE_TABLES,
    MANY,
    MEDIUM,
    ROUGH,
    SMALL,
    WHOLE_TABLES,
    auto,
    best,
    blend_config,
    paper,
    paper_literal,
    preset,
    static,
)
from comet_rec.models import base


class Sized:
    """What a preset asks of a log."""

    n_users = 20_000
    rows_a_user = 3
    time_scope = "none"

    def __init__(self, rows: int, n_items: int = 1000) -> None:
        self.rows, self.n_items = rows, n_items

    @property
    def user_starts(self) -> np.ndarray:
        return np.arange(self.n_users + 1) * self.rows_a_user

    def __len__(self) -> int:
        return self.rows


@pytest.mark.parametrize("model", base.names())
@pytest.mark.parametrize("scope", ["none", "global"])
def test_auto_is_best_without_a_refit(model, scope):
    log = Sized(50_000)
    log.time_scope = scope
    found, refitted = auto(model, log), best(model, log)  # type: ignore[arg-type]
    assert refitted.train.refit
    assert not found.train.refit
    assert found == replace(refitted, preset="auto", train=replace(refitted.train, refit=False))


@pytest.mark.parametrize("model", ["comet", "fism", "svdpp"])
def test_paper_literal_hides_nothing(model):
    literal = paper_literal(model, Sized(50_000)).model  # type: ignore[arg-type]
    assert not literal.exclude_target
    assert getattr(literal, "history_dropout", 0.0) == 0


@pytest.mark.parametrize("rows", [1_000, MEDIUM - 1])
def test_static_on_small_logs_is_one_setting(rows):
    small = static("comet", Sized(1_000))  # type: ignore[arg-type]
    assert static("comet", Sized(rows)) == small  # type: ignore[arg-type]
    assert small.train.warmup == 0
    assert small.train.average == 0


@pytest.mark.parametrize(
    ("name", "rows"), [(paper, MEDIUM), (paper, SMALL), (static, MEDIUM), (static, 10 * SMALL)]
)
def test_large_logs_take_batches_of_whole_tables(name, rows):
    train = name("comet", Sized(rows)).train  # type: ignore[arg-type]
    assert {key: getattr(train, key) for key in WHOLE_TABLES} == WHOLE_TABLES
    assert rows >= 10 * train.batch_size  # else it would be cut to a tenth of the log
    assert name("mf", Sized(rows)).train.batch_size < 32_768  # type: ignore[arg-type]


def test_larger_tables_take_batches_of_few_passes():
    most = WHOLE_TABLES["batch_size"] - Sized.n_users
    fits, larger = (paper("comet", Sized(MEDIUM, n)).train for n in (most, most + 1))  # type: ignore[arg-type]
    assert fits.batch_size == WHOLE_TABLES["batch_size"]
    assert {key: getattr(larger, key) for key in LARGE_TABLES} == LARGE_TABLES
    assert larger.batch_size < fits.batch_size


def test_a_softmax_takes_no_pool_from_a_preset():
    config = paper("comet", Sized(MEDIUM, 100_000))  # type: ignore[arg-type]
    assert config.train.negative_pool > 0
    assert config.with_settings({"train.loss": "softmax"}).train.negative_pool == 0
    with pytest.raises(ConfigError, match="samples no negatives"):
        config.with_settings({"train.loss": "softmax", "train.negative_pool": 5})


@pytest.mark.parametrize(
    ("rows", "users", "length", "dropout", "loss"),
    [
        (SMALL, 20_000, 100, 0.2, "bce"),
        (SMALL - 1, 20_000, 50, 0.5, "softmax"),
        (40_000, 1_000, 50, 0.3, "bce"),
        (39_999, 1_000, 50, 0.5, "softmax"),
    ],
)
def test_best_follows_the_length_of_histories(rows, users, length, dropout, loss):
    log = Sized(rows)
    log.time_scope, log.n_users = "per_user", users
    config = best("comet", log)  # type: ignore[arg-type]
    assert (config.model.history_length, config.model.dropout) == (length, dropout)
    assert config.model.layers == 1
    assert config.blend.model == ("fism" if loss == "softmax" else "none")
    assert config.train.selection_metric == "full"
    assert best("fism", log).train.loss == loss  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "rows", "users", "k", "epochs"),
    [
        ("comet", 1_000_209, 6_040, 256, 5), ("comet", 100_000, 943, 64, 16),
        ("comet", 198_502, 22_363, 128, 12), ("sasrec", 1_000_209, 6_040, 128, 10),
        ("sasrec", 100_000, 943, 64, 16), ("sasrec", 198_502, 22_363, 128, 20),
    ],
)  # fmt: skip
def test_best_chooses_k_and_epochs_by_the_size_of_the_log(model, rows, users, k, epochs):
    log = Sized(rows)
    log.time_scope, log.n_users = "per_user", users
    config = best(model, log)  # type: ignore[arg-type]
    assert (config.model.embedding_dim, config.train.epochs) == (k, epochs)
    assert config.train.matmul_precision == "medium"
    fism = BlendConfig(model="fism", preset="best", embedding_dim=128, epochs=6)
    assert config.blend == (fism if (model, k) == ("comet", 128) else BlendConfig())


def test_small_logs_train_in_float32():
    log = Sized(ROUGH - 1)
    log.time_scope, log.n_users = "per_user", 5_000
    assert best("comet", log).train.matmul_precision == "highest"  # type: ignore[arg-type]


def test_the_second_model_has_the_precision_of_the_first_but_in_blended():
    log = Sized(198_502)
    log.time_scope, log.n_users = "per_user", 22_363
    rough = {"train.matmul_precision": "medium"}
    for name, precision in (("best", "medium"), ("blended", "highest")):
        config = preset(name, "comet", log).with_settings(rough)  # type: ignore[arg-type]
        second = blend_config(config, log)  # type: ignore[arg-type]
        assert second is not None
        assert second.train.matmul_precision == precision


def test_full_metrics_choose_where_many_short_histories_tell():
    for rows, users, metric in (
        (SMALL, 20_000, "sampled"), (40_000, 1_000, "sampled"), (80_000, MANY - 1, "sampled"),
        (80_000, MANY, "full"),
    ):  # fmt: skip
        log = Sized(rows)
        log.time_scope, log.n_users = "per_user", users
        found = {best(name, log).train.selection_metric for name in ("fism", "mf", "ease")}  # type: ignore[arg-type]
        assert found == {metric}
        assert best("mlp", log).train.selection_metric == "sampled"  # type: ignore[arg-type]  # it scores pairs
        assert paper("comet", log).train.selection_metric == "sampled"  # type: ignore[arg-type]


def test_users_without_a_validation_item_are_none_of_those_that_choose():
    log = Sized(80_000)
    assert best("mf", log).train.selection_metric == "full"  # type: ignore[arg-type]
    log.rows_a_user = 2
    assert best("mf", log).train.selection_metric == "sampled"  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["comet", "fism", "sasrec"])
def test_the_softmax_draws_items_on_amazon_cds_and_not_on_amazon_beauty(model):
    for rows, users, items, drawn in (
        (472_265, 17_052, 35_118, 8_192), (198_502, 22_363, 12_101, 0),
    ):  # fmt: skip
        log = Sized(rows, items)
        log.time_scope, log.n_users = "per_user", users
        assert best(model, log).train.softmax_items == drawn  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [cr.COMET, cr.FISM])
def test_settings_are_checked_against_the_preset_of_any_kind_of_log(random_log, model):
    softmax = {"softmax_items": 10}  # of best with an order, and of FISM with short histories
    wanted = model(preset="best", **softmax).config_for(random_log(20, 30, 6))
    assert wanted.train.softmax_items == 10
    for name in ("static", "paper"):
        with pytest.raises(ConfigError, match="the loss is bce"):
            model(preset=name, **softmax)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        model(preset="best", epoch=3)


@pytest.mark.parametrize(
    ("rows", "items", "epochs", "drawn"),
    [
        (100_000, 1_700, 12, 0),
        (472_265, 35_118, 12, 8_192),  # Amazon CDs
        (1_000_209, 3_706, 5, 0),  # MovieLens-1M
        (4_000_000, 3_706, 5, 0),
        (20_000_263, 26_744, 2, 8_192),
        (200_000, 60_000, 12, 8_192),
    ],
)
def test_best_takes_fewer_epochs_and_draws_items_where_all_would_take_days(
    rows, items, epochs, drawn
):
    log = Sized(rows, items)
    log.time_scope = "global"
    train = best("comet", log).train  # type: ignore[arg-type]
    assert (train.epochs, train.full_epochs, train.softmax_items) == (epochs, epochs, drawn)


@pytest.mark.parametrize(("rows_a_user", "length", "dropout"), [(9, 50, 0.5), (100, 200, 0.2)])
def test_sasrec_reads_long_histories_where_there_are_any(rows_a_user, length, dropout):
    log = Sized(20_000 * rows_a_user)
    config = best("sasrec", log)  # type: ignore[arg-type]
    assert (config.model.history_length, config.model.dropout) == (length, dropout)
    assert config.train.loss == "softmax"
    assert config.train.softmax_items == 0
    original = paper("sasrec", log).train  # type: ignore[arg-type]
    assert (original.loss, original.negatives) == ("bce", 1)


def test_sasrec_samples_the_softmax_among_many_items():
    assert best("sasrec", Sized(50_000, n_items=200_000)).train.softmax_items > 0  # type: ignore[arg-type]

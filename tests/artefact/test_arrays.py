"""Declarations of stored arrays equal the arrays that models, ids, logs and splits hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.artefact.untrusted import check_form, one_line, parsed
from comet_rec.config import Config
from comet_rec.data.arrays import Array, Form, check_forms, check_values, indices, starts
from comet_rec.errors import ConfigError
from comet_rec.models import base
from comet_rec.models.comet_config import CometConfig
from comet_rec.training.checkpoints import checkpoint_arrays
from comet_rec.training.trainer import parameter_groups
from tests.artefact.test_strangers import SMALL

COMETS = [
    {"cross": cross, "towers": towers, "permute_dimensions": cross == "mlp"}
    for cross in ("cnn+mlp", "cnn", "mlp", "matched-mlp")
    for towers in ("both", "user")
] + [
    {"gate": "squeeze"}, {"enrich": "original"}, {"enrich": "interaction"},
    {"user_embedding": False, "towers": "user"},
    {"user_embedding": False}, {"hidden": ()}, {"widths": (1, 200)},
]  # fmt: skip
CONFIGS = [(name, SMALL.get(name, {})) for name in base.names()]
CONFIGS += [("mf", {"biases": False}), ("convncf", {"embedding_dim": 32, "channels": 3})]
SIZES = {"embedding_dim": 16, "history_length": 15, "channels": 2}
CONFIGS += [("comet", SIZES | settings) for settings in COMETS]


def config_of(name: str, settings: dict) -> Config:
    return Config(name=name, preset="x", model=base.config_class(name)(**settings))


@pytest.mark.parametrize(("name", "settings"), CONFIGS)
def test_every_model_declares_the_arrays_that_it_has(name, settings, random_log):
    log = random_log(7, 9, 4)
    config = config_of(name, settings)
    model = base.build(name, config.model, 7, 9, 0)
    if base.non_iterative(name):
        model.fit(log)
    declared = base.state_arrays(config, 7, 9)
    state = {key: value.numpy(force=True) for key, value in model.state_dict().items()}
    sizes: dict[str, int] = {}
    forms = {key: Form(value.dtype.name, value.shape) for key, value in state.items()}
    check_forms(forms, declared, sizes)
    check_values(state, declared, sizes)
    vectors = base.vector_arrays(config, 7, 9)
    assert bool(vectors) == base.two_tower(name)
    if vectors:
        assert vectors["users"].shape == (7, len(model.weight))


@pytest.mark.parametrize(("name", "settings"), [c for c in CONFIGS if not base.non_iterative(c[0])])
def test_the_optimizer_of_a_checkpoint_is_declared_in_its_own_order(name, settings):
    config = config_of(name, settings)
    declared = checkpoint_arrays(config, 7, 9)
    model = base.build(name, config.model, 7, 9, 1)
    parameters = [p for group in parameter_groups(model) for p in group]
    found = [declared[f"optimizer.{i}.exp_avg"].shape for i in range(len(parameters))]
    assert found == [tuple(p.shape) for p in parameters]
    assert f"optimizer.{len(parameters)}.step" not in declared


FORMS = {"a": Array(shape=(2, "k")), "b": indices(("k",), 5, order="increasing")}


@pytest.mark.parametrize(
    ("forms", "fault"),
    [
        ({"a": Form("float32", (2, 3))}, "b is missing"),
        ({"a": Form("float32", (2, 3)), "b": Form("int64", (4,))}, r"b has shape \[4\], not"),
        ({"a": Form("float64", (2, 3)), "b": Form("int64", (3,))}, "a has type float64"),
        ({"a": Form("float32", (3, 3)), "b": Form("int64", (3,))}, r"a has shape \[3, 3\]"),
        ({"a": Form("float32", (2, 3, 1)), "b": Form("int64", (3,))}, "a has shape"),
        ({**{n: Form("float32", (2, 3)) for n in "abc"}}, "c is not expected"),
    ],
)
def test_arrays_of_another_form_are_told_by_name(forms, fault):
    with pytest.raises(ValueError, match=fault):
        check_forms(forms, FORMS, {})


@pytest.mark.parametrize(
    ("declared", "values", "fault"),
    [
        (Array(shape=(3,)), [0, np.nan, 0], "NaN, infinite or above 1e"),
        (Array(shape=(3,)), [0, 1e16, 0], "NaN, infinite or above 1e"),
        (indices((3,), 5), [0, 5, 1], "holds 5, but the largest allowed value is 4"),
        (indices((3,), 5), [0, -1, 1], "holds -1, but the smallest allowed value is 0"),
        (indices((3,), 5, order="increasing"), [0, 1, 1], "not in increasing order"),
        (indices((3,), 5, order="ascending"), [0, 2, 1], "not in ascending order"),
        (starts(2, "k"), [0, 4, 3], "does not ascend from 0 to 3"),
        (starts(2, "k"), [1, 2, 3], "does not ascend from 0 to 3"),
        (starts(2, "k"), [0, 2, 4], "does not ascend from 0 to 3"),
        (starts(2, "none"), [0, 2, 4], "starts of rows that are missing"),
    ],
)
def test_values_that_are_not_as_declared_are_told(declared, values, fault):
    array = np.array(values, dtype=declared.dtype)
    with pytest.raises(ValueError, match=fault):
        check_values({"x": array}, {"x": declared}, {"k": 3})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, "9" * 5000, "[NaN]", "[Infinity]", "", "\xff", "{} x",
        "[" + "[]," * 250_001 + "0]", "[" + "0," * 5_000_001 + "0]",
    ],
)  # fmt: skip
def test_json_that_costs_more_than_a_run_has_is_refused(text):
    with pytest.raises((ValueError, RecursionError)):
        parsed(text.encode("latin-1"))


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (-1, int), (1.0, int), (True, int), ("1", int), (float("inf"), float), (True, float),
        (None, str), ({}, {"a": int}), ({"a": None}, {"a?": int}), ([1, "x"], [int]),
        ({"x?": "y"}, {str: int}), ([], {str: object}), ("x", ([int], None)),
    ],
)  # fmt: skip
def test_plain_data_of_another_form_are_told(value, form):
    with pytest.raises(ValueError, match=r"^it"):
        check_form(value, form)


def test_an_error_is_one_printable_line_of_bounded_length():
    assert one_line("a\x1b[31m\nb") == "a\\x1b[31m"
    assert len(one_line("é" * 10_000)) == 300


def test_a_history_length_that_nothing_bounds_is_bounded():
    with pytest.raises(ConfigError, match="history_length"):
        CometConfig(history_length=2**16 + 1)


def test_memory_for_arrays_is_aligned_as_pytorch_aligns_its_own(before):
    model = cr.load_model(before / "comet")
    tensors = [*model.run.state.values(), model.run.user_vectors, model.run.item_vectors]
    assert [t.data_ptr() % 64 for t in tensors] == [0] * len(tensors)


def test_a_loaded_module_takes_its_state_over_without_a_copy(before):
    run = cr.load_model(before / "comet").run
    for name, value in run.model.state_dict().items():
        assert value.data_ptr() == run.state[name].data_ptr(), name


def test_a_log_that_repeats_pairs_has_ranks_all_the_same(random_log):
    """A stranger's log may hold a pair twice; ranks stay numbers from 0 on."""
    from comet_rec.evaluation.ranking import full_ranks
    from comet_rec.evaluation.scoring import VectorScores

    log = random_log(5, 8, 4)
    split = cr.leave_one_out(log, negatives=3)
    twice = replace(log, users=np.repeat(log.users, 3), items=np.repeat(log.items, 3), times=None)
    scores = VectorScores(torch.ones(5, 1), torch.ones(8, 1))
    ranks = full_ranks(scores, split.test, twice)
    assert (ranks.tied >= 0).all()
    assert (ranks.better >= 0).all()

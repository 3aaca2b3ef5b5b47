"""The caller's settings and processes: they change no bit, and come out as they went in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import comet_rec as cr
from comet_rec.errors import InputError
from comet_rec.estimators import surroundings
from comet_rec.estimators.surroundings import own_settings
from comet_rec.models import base

SMALL = {"epochs": 1, "embedding_dim": 8}
MODELS = {
    "COMET": {
        "preset": "best", "blend_model": "fism", "blend_embedding_dim": 4, "history_length": 8,
        **SMALL,
    },
    "ConvNCF": SMALL, "EASE": {}, "NeuMF": {"epochs": 1}, "SVDpp": SMALL, "ItemKNN": {},
}  # fmt: skip


def results(split) -> dict[str, object]:
    """Bits of all that public calls give."""
    found: dict[str, object] = {}
    for name, settings in MODELS.items():
        model = getattr(cr, name)(**settings).fit(split, refit=name == "COMET")
        found |= {
            f"{name} {key}": (value.dtype, value.contiguous().numpy().tobytes())
            for key, value in model.run.state.items()
        }
        tables = [model.recommend(k=3), model.recommend([5, 999], k=3, unknown="popular")]
        if name in ("COMET", "EASE", "ItemKNN"):
            tables.append(model.recommend_for_history([[2, 4], []], k=3))
        for place, table in enumerate(tables):
            found[f"{name} table {place}"] = table["item_id"].tolist(), table["score"].tobytes()
        found[f"{name} pairs"] = model.score([3, 5], [2, 9]).tobytes()
        found[f"{name} report"] = cr.evaluate(model).to_dict()
    return found


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def other_seeds() -> Iterator[None]:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the caller's global state
    yield


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "device": lambda: torch.device("meta"),
    "default device": default_device,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "errstate": lambda: np.errstate(all="raise"),
    "seeds": other_seeds,
}
# One of each kind; the slow suite has each alone, which says whose fault a difference is.
AT_ONCE = (
    "float16", "no_grad", "inference_mode", "default device", "autocast", "errstate", "seeds",
)  # fmt: skip


def of_the_caller() -> tuple[object, ...]:
    states = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002
    return (
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
        torch.get_default_device(), torch.is_autocast_enabled("cpu"), torch.get_num_threads(),
        np.geterr(), states,
    )  # fmt: skip


@pytest.fixture(scope="module")
def split():
    from tests.conftest import checkerboard_log

    return cr.leave_one_out(checkerboard_log(), negatives=20)


@pytest.fixture(scope="module")
def plain(split):
    return results(split)


@pytest.mark.parametrize(
    "names",
    [AT_ONCE, *(pytest.param((name,), marks=pytest.mark.slow) for name in SETTINGS)],
    ids=", ".join,
)
def test_the_callers_settings_change_no_bit_and_are_left_as_they_were(split, plain, names):
    with contextlib.ExitStack() as settings:
        for name in names:
            settings.enter_context(SETTINGS[name]())
        before = of_the_caller()
        found = results(split)
        assert of_the_caller() == before
    assert found.keys() == plain.keys()
    assert [key for key in found if found[key] != plain[key]] == []


def test_numpy_reports_errors_as_it_does_by_default():
    default = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    with np.errstate(all="raise"), own_settings():
        assert np.geterr() == default


def test_settings_are_put_back_after_an_error(split):
    with default_dtype(torch.float64), np.errstate(all="raise"):
        before = of_the_caller()
        with pytest.raises(InputError):
            cr.EASE().fit(split).recommend("4")
        assert of_the_caller() == before


def test_a_run_is_saved_and_read_alike_under_other_settings(split, tmp_path):
    model = cr.MF(**SMALL).fit(split)
    with torch.inference_mode(), default_dtype(torch.float64):
        model.save(tmp_path / "run")
        again = cr.load_model(tmp_path / "run")
    assert again.recommend(k=3)["score"].tobytes() == model.recommend(k=3)["score"].tobytes()
    assert again.run.metrics == cr.evaluate(model).to_dict()
    assert not again.run.item_vectors.is_inference()


def test_a_function_that_is_measured_runs_under_the_callers_settings(split):
    seen = []

    def scores(user, items):
        seen.append((torch.get_default_dtype(), torch.is_grad_enabled()))
        return torch.zeros(len(items))

    with default_dtype(torch.float64), torch.no_grad():
        cr.evaluate(scores, split)
    assert set(seen) == {(torch.float64, False)}


def test_calls_in_several_threads_put_the_settings_back_once():
    """The first that ends must not put them back while the other one computes."""
    entered, may_leave, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with own_settings():
            entered.set()
            may_leave.wait(10)
            seen.append(torch.get_default_dtype())

    with default_dtype(torch.float64):
        thread = threading.Thread(target=other)
        with own_settings():
            thread.start()
            assert entered.wait(10)
        assert torch.get_default_dtype() == torch.float32
        may_leave.set()
        thread.join(10)
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64


def test_a_forked_process_computes_with_one_thread_and_puts_the_number_back(monkeypatch):
    monkeypatch.setattr(surroundings, "_process", surroundings._Process(forked=True))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with own_settings():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


HASHES = """
import hashlib
import pandas as pd
import comet_rec as cr
from tests.conftest import checkerboard_log

log = checkerboard_log()
frame = pd.DataFrame({"user": [f"u{u}" for u in log.users], "item": [f"i{i}" for i in log.items],
                      "time": log.times})
split = cr.leave_one_out(cr.read(frame), negatives=20)
blend = {"blend_model": "fism", "blend_embedding_dim": 4}
model = cr.COMET(preset="best", embedding_dim=8, epochs=1, **blend)
model.fit(split, refit=True)
digest = hashlib.sha256(split.hash.encode())
for name, value in sorted(model.run.state.items()):
    digest.update(name.encode() + value.contiguous().numpy().tobytes())
table = model.recommend(k=3, block={"i1", "i2", "i3"}, include_seen=True)
digest.update(repr((table["item_id"].tolist(), table["score"].tolist())).encode())
digest.update(repr(cr.evaluate(model).to_dict()).encode())
print(digest.hexdigest())
"""


def run_alone(script: str, **environment: str) -> str:
    """Output of a script in a process of its own; a process that hangs fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, timeout=100,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_the_hash_seed_changes_no_bit():
    first, second = (run_alone(HASHES, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert first == second


FORKS = """
import multiprocessing
import sys
import numpy as np
import torch
import comet_rec as cr
from tests.conftest import checkerboard_log

split = cr.leave_one_out(checkerboard_log(), negatives=20)
histories = [[2, 4, 6]] * 600


def comet():
    return cr.COMET(preset="static", embedding_dim=16, history_length=8, epochs=1)


model = comet().fit(split)
if sys.argv[1] == "fold-in":
    model.recommend_for_history(histories)
assert torch.get_num_threads() == 2


def work(call):
    if call == "history":
        return len(model.recommend_for_history(histories, k=3))
    if call == "recommend":
        return len(model.recommend(k=3))
    if call == "score":
        return len(model.score([3] * 5, range(5)))
    if call == "evaluate":
        return len(cr.evaluate(model, split))
    if call == "ease":
        return cr.EASE().fit(split).run.epochs
    return comet().fit(split).run.epochs


with multiprocessing.get_context("fork").Pool(2) as pool:
    calls = ["history", "fit", "recommend", "score", "evaluate", "ease"]
    print(pool.map_async(work, calls, chunksize=1).get(timeout=60))
assert len(model.recommend_for_history(histories, k=3)) == 1800  # and the parent goes on
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("first", [pytest.param("fit", marks=pytest.mark.slow), "fold-in"])
def test_a_forked_pool_computes_after_the_parent_has(first):
    script = FORKS.replace("sys.argv[1]", repr(first))
    assert run_alone(script, OMP_NUM_THREADS="2") == "[1800, 1, 360, 5, 4, 1]"


def test_the_number_of_threads_changes_the_last_bits_only(split):
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            model = cr.COMET(preset="static", **SMALL).fit(split)
            found.append((model.item_vectors()[1], cr.evaluate(model)))
        finally:
            torch.set_num_threads(before)
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-3, atol=1e-5)
    for name, value in found[0][1].items():
        assert found[1][1][name] == pytest.approx(value, abs=0.02)


def test_building_a_model_draws_nothing_from_the_global_generator(split):
    before = torch.get_rng_state()
    log = split.interactions
    for name in base.names():
        base.build(name, base.config_class(name)(), log.n_users, log.n_items, 0)
    assert torch.equal(torch.get_rng_state(), before)

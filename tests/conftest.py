"""Logs with known answers, and run-time checks of the shapes that signatures state."""

from __future__ import annotations

import atexit
import gc
import os
import zipfile
from collections.abc import Callable, Generator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does, for shared machines

import jaxtyping
import numpy as np
import pytest

fast_form = pytest.mark.skipif(
    os.environ.get("COMET_SLOW", "") not in ("", "0"),
    reason="is about a fast form, and COMET_SLOW=1 uses none",
)


def _checked_if_shaped(typechecker: Callable) -> Callable:
    """Decorator that checks the calls of functions whose signatures state shapes."""

    def decorated(function: Any) -> Any:
        inner = getattr(function, "__func__", getattr(function, "fget", function))
        stated = " ".join(map(str, getattr(inner, "__annotations__", {}).values()))
        return checked(typechecker=typechecker)(function) if "[Tensor, " in stated else function

    return decorated


# The import hook decorates each function and class of these packages with `jaxtyping.jaxtyped`.
# Checking all their types, which mypy knows, would double the time of a training.
checked, jaxtyping.jaxtyped = jaxtyping.jaxtyped, _checked_if_shaped
jaxtyping.install_import_hook(["comet_rec.models", "comet_rec.training"], "beartype.beartype")

from comet_rec.data.ids import Ids
from comet_rec.data.interactions import Interactions

LONG_TESTS = Path(__file__).parent / "long_tests.txt"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Switch the garbage collector off while pytest collects the tests.

    Their million objects stay, so the garbage collector leaves them out during the tests too: each
    full pass would go through all of them. They are given back to it at the very end, or DuckDB
    would report its classes as never freed.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        atexit.register(gc.unfreeze)
        gc.enable()


def pytest_sessionfinish() -> None:
    """End the server of `tests/processes.py` and wait for it: its time is that of the tests."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)  # before pytest leaves the slow tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `long_tests.txt` lists as slow."""
    listed = set(LONG_TESTS.read_text().splitlines())
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)


def make_log(
    pairs: np.ndarray, times: bool = True, scope: str = "global", n_items: int = 0
) -> Interactions:
    """Interactions of distinct (user, item) rows in time order; ids are the indices."""
    users, items = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    order = np.argsort(users, kind="stable")
    clock = np.arange(len(pairs), dtype=np.int64)
    return Interactions(
        users=users[order].astype(np.int32),
        items=items[order].astype(np.int32),
        times=clock[order] if times else None,
        time_scope=scope if times else "none",  # type: ignore[arg-type]
        user_ids=Ids("int", np.arange(users.max() + 1)),
        item_ids=Ids("int", np.arange(max(items.max() + 1, n_items))),
    )


def random_pairs(rng: np.random.Generator, n_users: int, n_items: int, per_user: int) -> np.ndarray:
    """Distinct items for each user, uniformly drawn: a log without structure."""
    keys = rng.random((n_users, n_items)).argsort(axis=1)[:, :per_user]
    pairs = np.stack([np.repeat(np.arange(n_users), per_user), keys.ravel()], axis=1)
    return pairs[rng.permutation(len(pairs))]


@pytest.fixture(scope="session")
def before(tmp_path_factory) -> Path:
    """Folder with two runs, `comet` and `itemknn`, and `checkpoints`, as version 0.1.0.dev0 wrote.

    No test writes there. The zip file holds those folders in the order of their names, each file as
    ``archive.writestr(zipfile.ZipInfo(name), content)`` stores it: uncompressed, dated 1980-01-01.
    """
    folder = tmp_path_factory.mktemp("before")
    with zipfile.ZipFile(Path(__file__).parent / "artefact" / "before.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def random_log() -> Callable[..., Interactions]:
    """A log without structure: `random_log(n_users, n_items, per_user, seed=0)`."""

    def build(n_users: int, n_items: int, per_user: int, seed: int = 0) -> Interactions:
        pairs = random_pairs(np.random.default_rng(seed), n_users, n_items, per_user)
        return make_log(pairs, n_items=n_items)

    return build


def checkerboard_log() -> Interactions:
    """Even users like even items, odd users odd ones; the item 2u or 2u + 1 comes last.

    Whoever has learnt the pattern ranks the held-out item of the user's own colour first.
    """
    rng = np.random.default_rng(1)
    n_users, n_items, per_user = 120, 80, 16
    rows = []
    for user in range(n_users):
        own = np.arange(user % 2, n_items, 2)
        rows += [(user, item) for item in rng.permutation(own)[:per_user]]
    return make_log(np.array(rows))


@pytest.fixture
def checkerboard() -> Interactions:
    """See `checkerboard_log`."""
    return checkerboard_log()


@pytest.fixture
def two_threads():
    """Let torch compute with two threads, whatever the machine has."""
    import torch  # not above: the process that hands the tests out does without it

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)

"""docs/add-a-model.md: its blocks make a model that keeps every contract."""

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import comet_rec as cr
from tests.docs.test_readme import blocks
from tests.docs.test_readme import commands as commands_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-model.md").read_text(encoding="utf-8")
_FILE = re.compile(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^<!-- line: (\S+) after (\S+) -->\n```python\n(.+\n)```$", re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the sources and the contract tests, changed as the page says."""
    copy = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", copy / "src", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "models", copy / "tests" / "models", ignore=ignored)
    for name in ("pyproject.toml", "tests/conftest.py", "tests/long_tests.txt"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "examples").symlink_to(ROOT / "examples")

    (file,), (line,) = _FILE.findall(PAGE), _LINE.findall(PAGE)
    assert not (ROOT / file[0]).exists()
    (copy / file[0]).write_text(file[1], encoding="utf-8")
    lines = (copy / line[0]).read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = [n for n, text in enumerate(lines) if text.strip().startswith(line[1])]
    lines.insert(place + 1, line[2])
    (copy / line[0]).write_text("".join(lines), encoding="utf-8")
    return copy


def run(copy: Path, *command: str) -> str:
    """Output of a command of the environment that must succeed on the changed sources."""
    tool = str(Path(sys.executable).parent / command[0])
    done = subprocess.run(
        [tool, *command[1:]],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_model_of_the_page_passes_the_contract_tests(copy):
    printed = run(copy, "pytest", "tests/models/test_contract.py", "-k", "rp3beta")
    assert int(re.findall(r"(\d+) passed", printed)[-1]) >= 5


@pytest.mark.slow
def test_commands_of_the_page_run(copy):
    shell = [command for block in blocks(PAGE, "console") for command, _ in commands_of(block)]
    commands = [command for command in shell if command.startswith("comet-rec ")]
    assert [command.split()[1] for command in commands] == ["train", "recommend", "compare"]
    printed = [run(copy, *command.split()) for command in commands]
    assert "user ada" in printed[1]
    assert "rp3beta" in printed[2]


def test_file_of_the_page_is_formatted_as_the_project_is(copy):
    ((name, _),) = _FILE.findall(PAGE)
    run(copy, "ruff", "check", name)
    run(copy, "ruff", "format", "--check", name)


def test_weights_are_those_of_the_loop(copy):
    ((name, _),) = _FILE.findall(PAGE)
    spec = importlib.util.spec_from_file_location("rp3beta", copy / name)
    page = importlib.util.module_from_spec(spec)
    sys.modules["rp3beta"] = page  # dataclasses look their module up
    spec.loader.exec_module(page)

    drawn = np.random.default_rng(0).random((6, 5)) < 0.5
    log = cr.read(list(zip(*np.nonzero(drawn), strict=True)))
    x = log.matrix.toarray()  # [U, I]
    model = page.RP3beta(page.RP3betaConfig(beta=0.3), *x.shape, torch.Generator())
    model.fit(log)

    expected = np.zeros((log.n_items, log.n_items))
    for j, i, v in itertools.product(range(log.n_items), range(log.n_items), range(log.n_users)):
        walks = x[:, j].sum() * x[v].sum() * x[:, i].sum() ** 0.3
        expected[j, i] += x[v, j] * x[v, i] / walks
    np.testing.assert_allclose(model.weights, expected, rtol=1e-5)

"""docs/paper-to-code.md says what the docstrings say."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "paper_to_code.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_to_code", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_page_is_up_to_date():
    done = run("--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Prediction (Eq. 8).", {("Eq.", 8)}),
        ("From Eqs. 2–4 and Eq. 9", {("Eq.", 2), ("Eq.", 3), ("Eq.", 4), ("Eq.", 9)}),
        ("(Eq. 4, 5), 7 rows", {("Eq.", 4), ("Eq.", 5)}),
        ("Eqs. 6\n    and 7", {("Eq.", 6), ("Eq.", 7)}),
        ("Tables II and III, Figure 6", {("Table", 2), ("Table", 3), ("Figure", 6)}),
        ("Section 3 says", {("Section", 3)}),
        ("Figure of the validation items; Table Items; a table 3 wide", set()),
    ],
)
def test_mentions(script, text, parts):
    assert script.mentions(text) == parts


def test_check_notices_a_changed_docstring(tmp_path):
    source, page = tmp_path / "src", tmp_path / "page.md"
    source.mkdir()
    module = source / "toy.py"
    module.write_text('class Toy:\n    """Loss (Eq. 9)."""\n', encoding="utf-8")
    places = ("--source", source, "--page", page)
    assert run("--check", *places).returncode == 1
    assert run(*places).returncode == 0
    assert run("--check", *places).returncode == 0
    assert "| Eq. 9 | `Toy` | `src/toy.py` |" in page.read_text(encoding="utf-8")
    assert "| Eq. 1 | not yet | |" in page.read_text(encoding="utf-8")
    module.write_text('class Toy:\n    """Loss (Eq. 8)."""\n', encoding="utf-8")
    done = run("--check", *places)
    assert done.returncode == 1
    assert "python docs/paper_to_code.py" in done.stderr


def test_choices_and_defaults_belong_to_their_field(script, tmp_path):
    (tmp_path / "toy.py").write_text(
        "class Toy:\n"
        '    """A toy.\n\n'
        "    Parameters\n    ----------\n"
        "    size : int\n        How many.\n"
        "    rule : str\n        Choice: as Eq. 9\n        prints it. Else nothing.\n"
        '    """\n\n'
        "    size: int = 3\n"
        '    rule: str = "sum"\n',
        encoding="utf-8",
    )
    assert "| `Toy.rule` | `'sum'` | as Eq. 9 prints it |" in script.page(tmp_path)
    assert script.defaults(tmp_path) == {"Toy.size": "3", "Toy.rule": "'sum'"}


def test_equations_of_other_papers_are_left_out_and_comet_comes_first(script, tmp_path):
    source = tmp_path / "src"
    (source / "models").mkdir(parents=True)
    (source / "a.py").write_text('"""Weights (Eq. 8)."""\n', encoding="utf-8")
    (source / "models" / "comet.py").write_text('"""Score (Eq. 8)."""\n', encoding="utf-8")
    other = '"""EASE (Steck, WWW 2019)."""\n\n\ndef fit():\n    """Solve Eq. 8."""\n'
    (source / "models" / "ease.py").write_text(other, encoding="utf-8")
    rows = [line for line in script.page(source).splitlines() if line.startswith("| Eq. 8")]
    assert [row.split("`")[3] for row in rows] == ["src/models/comet.py", "src/a.py"]

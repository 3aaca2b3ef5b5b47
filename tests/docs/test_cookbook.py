"""Every recipe of docs/cookbook.md runs, on its own, and prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.docs.test_readme import ROOT, assert_alike, blocks, commands, run, run_alone

PAGE = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
START, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
RECIPES = {section.split("\n", 1)[0]: section for section in SECTIONS}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Folder with the clone's examples, and the names that the page's first block defines."""
    folder = tmp_path_factory.mktemp("cookbook")
    (folder / "examples").symlink_to(ROOT / "examples")
    (block,) = blocks(START, "python")
    names: dict[str, object] = {}
    with contextlib.chdir(folder):
        exec(block, names)
    return folder, names


@pytest.fixture(scope="module")
def shell_run(start):
    """The run that the page's first command trains, for the commands after it."""
    folder, _ = start
    console = [each for block in blocks(PAGE, "console") for each in commands(block)]
    train = next(command for command, _ in console if " train " in command)
    run_alone(train, folder)
    return Path("runs") / "cookbook"


def test_the_page_has_ten_recipes_or_more():
    assert len(RECIPES) == len(SECTIONS) >= 10
    assert all(blocks(section, "python", "console") for section in SECTIONS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_python_of_a_recipe_prints_what_is_shown(start, recipe):
    folder, names = start
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec("\n".join(blocks(RECIPES[recipe], "python")), dict(names))
    shown = "".join(blocks(RECIPES[recipe], "text")).splitlines()
    if shown:
        assert_alike(shown, printed.getvalue().splitlines())


@pytest.mark.parametrize(
    "recipe", [name for name, section in RECIPES.items() if blocks(section, "console")]
)
def test_commands_of_a_recipe_run(start, shell_run, recipe):
    folder, _ = start
    for block in blocks(RECIPES[recipe], "console"):
        for command, _ in commands(block):
            if " train " not in command:
                assert str(shell_run) in command
                assert run(["bash", "-c", command], folder) or " --out " in command

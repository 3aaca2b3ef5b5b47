"""The commands and the Python of README.md run as they stand.

A block after a line ``<!-- not run: reason -->`` is left out. Blocks of one kind run in the order
of the page, in one empty directory; the named data sets are looked for where they always are, so a
copy that was fetched before is used (COMET_REC_DATA names another place).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
MINUTES = 30
_BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[str]:
    """Bodies of the fenced blocks in these languages that are to be run."""
    return [
        body for skip, language, body in _BLOCK.findall(text) if language in languages and not skip
    ]


def commands(block: str) -> list[str]:
    """Lines of a shell block; in a console block, those after the prompt."""
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    if any(line.startswith("$ ") for line in lines):
        return [line[2:] for line in lines if line.startswith("$ ")]
    return lines


def run(command: list[str], where: Path) -> str:
    """Standard output of a command that must succeed, the environment's own programs first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=where,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_readme_has_what_is_run():
    text = README.read_text(encoding="utf-8")
    python, shell = blocks(text, "python"), blocks(text, "console", "bash")
    assert len(python) == 1
    assert len(python[0].splitlines()) <= 25
    compile(python[0], "README.md", "exec")
    assert [len(commands(block)) for block in shell] == [5]
    assert all(line.startswith("comet-rec ") for block in shell for line in commands(block))


def test_blocks_and_commands():
    left_out = "<!-- not run: why -->\n```bash\nb\n```\n"
    text = f"```bash\na 1\n# no\n```\n\n{left_out}\n```console\n$ c\nd\n```\n"
    found = blocks(text, "console", "bash")
    assert [commands(block) for block in found] == [["a 1"], ["c"]]


def test_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [target for target in targets if not (README.parent / target).exists()] == []


@pytest.mark.slow
def test_python_runs(tmp_path):
    (block,) = blocks(README.read_text(encoding="utf-8"), "python")
    (tmp_path / "readme.py").write_text(block, encoding="utf-8")
    assert "HR@10" in run([sys.executable, "-W", "error", "readme.py"], tmp_path)
    assert (tmp_path / "runs" / "mine" / "manifest.json").is_file()


@pytest.mark.slow
def test_shell_runs(tmp_path):
    for block in blocks(README.read_text(encoding="utf-8"), "console", "bash"):
        for command in commands(block):
            run(["bash", "-c", command], tmp_path)
    assert (tmp_path / "runs" / "first" / "manifest.json").is_file()

"""README.md runs as it stands, and its commands print what it shows.

A block after a line ``<!-- not run: reason -->`` is left out. All other blocks run in the order of
the page, in one directory that holds the clone's `examples`. Named data sets are looked for where
they always are, so a copy that was fetched before is used.

Processors differ in the last bits of a float, and a training lets such differences grow. So figures
and scores may differ a little, and at most half of a list may consist of other items.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.processes import run_program

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MINUTES = 30
TOLERANCE = 0.05
"""Tolerance of figures, which lie between 0 and 1; a share for scores."""
_BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"±?\d+\.\d+")
_LISTED = re.compile(r"(?:\S+ )?\s*\d+\s+(\S+)\s")


def blocks(text: str, *languages: str) -> list[str]:
    """Bodies of the fenced blocks in these languages that are to be run."""
    return [body for skip, kind, body in _BLOCK.findall(text) if kind in languages and not skip]


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Commands of a console block, each with the lines that follow it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0].removesuffix("\\") + line.lstrip(), [])
        else:
            found[-1][1].append(line)
    return found


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


def run_alone(command: str, where: Path) -> str:
    """Standard output of a command line of `comet-rec` that must succeed, run without a shell.

    It spares the seconds that a new process needs to import PyTorch. One command of the README runs
    in a shell, as its reader starts it.
    """
    program, *words = shlex.split(command)
    assert program == "comet-rec"
    done = run_program("comet_rec", *words, where=where, seconds=60 * MINUTES)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def listed(lines: list[str]) -> list[str]:
    """Items of the lists in these lines: the word after a rank."""
    return [found[1] for line in lines if (found := _LISTED.match(line))]


def assert_alike(shown: list[str], printed: list[str]) -> None:
    """Same lines but for small differences of numbers and of lists; a line … is any lines."""
    if "…" in shown:
        cut = shown.index("…")
        shown, printed = shown[:cut], printed[:cut]
    assert len(shown) == len(printed), f"{shown}\n{printed}"
    items = listed(shown)
    assert len(set(items) & set(listed(printed))) >= len(items) / 2, f"{items}\n{printed}"
    for ours, theirs in zip(shown, printed, strict=True):
        if not _LISTED.match(ours):
            assert _NUMBER.sub("#", ours) == _NUMBER.sub("#", theirs)
        numbers = [
            [float(n.strip("±")) for n in _NUMBER.findall(line.split("  (")[0])]
            for line in (ours, theirs)
        ]
        assert numbers[0] == pytest.approx(numbers[1], abs=TOLERANCE, rel=2 * TOLERANCE)


@pytest.fixture
def clone(tmp_path):
    """A directory with the clone's examples, as the commands expect it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= 800


def test_first_screen_has_the_two_commands_that_set_everything_up():
    screen = README.read_text(encoding="utf-8").splitlines()[:30]
    assert [line.split()[1:3] for line in screen if line.startswith("$ ")] == [
        ["make", "demo"],
        ["make", "test"],
    ]


def test_links_lead_somewhere():
    text = README.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [target for target in targets if not (README.parent / target).exists()] == []


def test_python_prints_what_is_shown(clone):
    text = README.read_text(encoding="utf-8")
    (block,), (shown,) = blocks(text, "python"), blocks(text, "text")
    (clone / "readme.py").write_text(block, encoding="utf-8")
    printed = run([sys.executable, "-W", "error", "readme.py"], clone)
    assert_alike(shown.splitlines(), printed.splitlines())
    assert (clone / "runs" / "shop" / "manifest.json").is_file()


def console(text: str) -> list[tuple[str, list[str]]]:
    return [each for block in blocks(text, "console") for each in commands(block)]


def test_shell_prints_what_is_shown_for_the_small_log(clone):
    text = README.read_text(encoding="utf-8")
    small = [each for each in console(text) if "bikes" in each[0]]
    assert [command.split()[1] for command, _ in small] == [
        "train",
        "recommend",
        "update",
        "recommend",
        "recommend",
    ]
    for command, shown in small[:-1]:
        assert_alike(shown, run_alone(command, clone).splitlines())
    command, shown = small[-1]
    assert_alike(shown, run(["bash", "-c", command], clone).splitlines())
    serves_what_is_shown(text, clone)


def serves_what_is_shown(text: str, clone: Path) -> None:
    """Run the command that serves, on a free port, and send what the page sends."""
    served = re.search(r"^\$ comet-rec (serve .*)\n(.*)", text, re.MULTILINE)
    sent = re.search(r"^\$ curl --json '(.*)' localhost:8000(/\S+)$", text, re.MULTILINE)
    words = [sys.executable, "-m", "comet_rec", *served[1].split(), "--port", "0"]
    process = subprocess.Popen(words, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        line = process.stdout.readline().decode()
        port = re.search(r":(\d+) ", line)[1]
        assert line.strip() == served[2].replace(":8000", f":{port}")
        headers = {"content-type": "application/json"}
        address = f"http://127.0.0.1:{port}{sent[2]}"
        with urlopen(Request(address, sent[1].encode(), headers)) as answer:
            content = json.loads(answer.read())
        process.terminate()
    asked = json.loads(sent[1])
    assert content["lists"][0]["user_id"] == asked["user_ids"][0]
    assert len(content["lists"][0]["items"]) == asked["k"]


@pytest.mark.slow
def test_shell_prints_what_is_shown_for_movielens(clone):
    large = [each for each in console(README.read_text(encoding="utf-8")) if "bikes" not in each[0]]
    assert [command.split()[1] for command, _ in large] == ["data", "train"]
    for command, shown in large[:1]:
        assert shown == []
        run(["bash", "-c", command], clone)  # prints the folder
    for command, shown in large[1:]:
        assert_alike(shown, run(["bash", "-c", command], clone).splitlines())


def test_blocks_and_commands():
    left_out = "<!-- not run: why -->\n```console\n$ b\n```\n"
    text = f"```console\n$ a \\\n  1\nx\ny\n```\n\n{left_out}\n```console\n$ c\n```\n"
    assert console(text) == [("a 1", ["x", "y"]), ("c", [])]


def test_outputs_differ_by_little_or_not_at_all():
    shown = ["NDCG@10  0.41 ±0.01", "user 7", "   1   12    3.10  A (1990)", "…"]
    assert_alike(shown, ["NDCG@10  0.44 ±0.01", "user 7", "   1   12    3.21  A (1990)", "z"])
    for other in (
        ["NDCG@10  0.31 ±0.01", "user 7", "   1   12    3.10  A (1990)"],
        ["HR@10  0.41 ±0.01", "user 7", "   1   12    3.10  A (1990)"],
        ["NDCG@10  0.41 ±0.01", "user 7", "   1   13    3.10  B (1990)"],
    ):
        with pytest.raises(AssertionError):
            assert_alike(shown, other)


def test_verdict_on_the_paper_is_that_of_the_report():

    report = json.loads((ROOT / "results" / "reproduce" / "full.json").read_text("utf-8"))
    verdicts = report["verdicts"]["table2"]
    run_ = verdicts["reproduced"] + verdicts["better"] + verdicts["lower"]
    said = (
        f"{verdicts['reproduced']} of {run_} figures agree within error, {verdicts['better']} are "
        f"higher and {verdicts['lower']} lower"
    )
    assert said in README.read_text(encoding="utf-8")


def test_example_log_is_what_its_script_writes(tmp_path):
    script = tmp_path / "shop.py"
    script.write_text((ROOT / "examples" / "shop.py").read_text("utf-8"), encoding="utf-8")
    run([sys.executable, "shop.py"], tmp_path)
    for name in ("shop.csv", "next-day.csv"):
        assert (tmp_path / name).read_bytes() == (ROOT / "examples" / name).read_bytes()

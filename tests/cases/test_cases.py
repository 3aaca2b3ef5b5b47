"""The cases in plain text; `README.md` here says how they are written."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from comet_rec.cli.app import run

CASES = sorted(Path(__file__).parent.glob("*.txt"))


@dataclass
class Case:
    """A case: its files, its commands, and what the last command should do."""

    about: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    status: int = 0
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)


def parsed(text: str) -> Case:
    """The case that a text describes."""
    case = Case()
    about, *sections = re.split(r"^=== ", text, flags=re.MULTILINE)
    case.about = " ".join(about.split())
    for section in sections:
        title, _, body = section.partition("\n")
        kind, _, rest = title.partition(" ")
        if kind == "file":
            name, _, escaped = rest.partition(", ")
            case.files[name.strip()] = unescaped(body) if escaped == "escaped" else body.encode()
        elif kind == "command":
            case.commands = [line for line in body.splitlines() if line.strip()]
        elif kind == "exit":
            case.status = int(rest)
        elif kind in ("out", "err"):
            setattr(case, kind, [line for line in body.splitlines() if line.strip()])
        else:
            raise ValueError(f"=== {title}: no such section")
    return case


def unescaped(body: str) -> bytes:
    """Bytes of a file whose text has escapes; the line ends of the text itself do not count."""
    lines = [line.encode("raw_unicode_escape") for line in body.split("\n")]
    joined = b"".join(lines).decode("latin-1")
    return joined.encode("latin-1").decode("unicode_escape").encode("latin-1")


def missing(wanted: list[str], printed: str) -> str | None:
    """The first wanted line that does not occur after the one before it; None if all do."""
    lines = iter(" ".join(line.split()) for line in printed.splitlines())
    for line in wanted:
        parts = (re.escape(part) for part in " ".join(line.split()).split("..."))
        pattern = re.compile(".*".join(parts))
        if not any(pattern.search(each) for each in lines):
            return line
    return None


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::comet_rec.errors.CometWarning")
def test_case(path, tmp_path, monkeypatch, capfd):
    case = parsed(path.read_text(encoding="utf-8"))
    assert case.about, "a case begins with what it is about"
    assert case.commands, "a case has a command"
    assert case.out or case.err, "a case expects at least one line"
    for name, content in case.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for number, command in enumerate(case.commands, 1):
        capfd.readouterr()
        program, *words = shlex.split(command)
        assert program == "comet-rec"
        status = run(words)
        printed = capfd.readouterr()
        if number < len(case.commands):
            assert status == 0, f"{command}\n{printed.err}"
    assert status == case.status, printed.err
    assert missing(case.out, printed.out) is None, printed.out
    assert missing(case.err, printed.err) is None, printed.err


def test_a_line_that_is_not_printed_is_missing():
    assert missing(["one", "two ... four"], "zero one\n two  three four\n") is None
    assert missing(["two", "one"], "one\ntwo\n") == "one"
    assert missing(["five"], "one\ntwo\n") == "five"


def test_escapes_are_bytes():
    assert unescaped("a\\tb\\r\\n\n\\xe9\\\\\n") == b"a\tb\r\n\xe9\\"

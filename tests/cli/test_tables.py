"""Tables of the commands: within the terminal, nothing lost, plain text elsewhere."""

from __future__ import annotations

import random
import re

import pytest

from comet_rec.cli import terminal
from comet_rec.cli.tables import show_table
from comet_rec.text import width_of

COLUMNS = ["model", "HR@10", "full NDCG@10", "NDCG@10 against comet (95 %)", "seconds"]
ROWS = [
    ["comet", "0.5758 ± 0.0161", "0.1031", "", "1,213"],
    ["ease", "0.6758 ± 0.0161", "0.2031", "+0.0123 [+0.0050, +0.0200]", "12"],
]


def printed(capsys, columns, rows, **options) -> list[str]:
    show_table(columns, rows, **options)
    return capsys.readouterr().out.removesuffix("\n").split("\n")


@pytest.fixture
def on_terminal(monkeypatch):
    """Function that makes stdout a terminal of some columns."""

    def switch(columns: int) -> None:
        monkeypatch.setattr(terminal, "on_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")

    return switch


@pytest.fixture
def in_pipe(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


def test_in_a_pipe_a_table_is_plain_text_of_any_width(capsys, in_pipe):
    assert printed(capsys, COLUMNS, ROWS) == [
        "model            HR@10  full NDCG@10  NDCG@10 against comet (95 %)  seconds",
        "comet  0.5758 ± 0.0161        0.1031                                  1,213",
        "ease   0.6758 ± 0.0161        0.2031    +0.0123 [+0.0050, +0.0200]       12",
    ]
    long = printed(capsys, ["id", "n"], [["x" * 300, 1], ["y", 22]])
    assert [width_of(line) for line in long] == [304, 304, 304]
    assert printed(capsys, ["id", "n"], []) == ["id  n"]


def test_on_a_terminal_the_header_is_bold_and_has_a_rule_below(capsys, on_terminal, monkeypatch):
    on_terminal(80)
    header, rule, *rows = printed(capsys, COLUMNS, ROWS)
    assert "\x1b[1mmodel\x1b[0m" in header
    assert set(rule) == {"─"}
    assert width_of(rule) == width_of(rows[0])
    assert "\x1b" not in "".join(rows)
    monkeypatch.setenv("TERM", "dumb")
    assert not re.search("[─\x1b]", "".join(printed(capsys, COLUMNS, ROWS)))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("styled", [False, True])
def test_numbers_are_whole_and_names_folded_at_every_width(
    width, styled, capsys, on_terminal, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    if styled:
        on_terminal(width)
    rng = random.Random(width)
    name = "a model with a long name and no-blank-" + "x" * 70 + "日本" * 9
    rows = [
        [name if place == 2 else f"m{place}", *(f"{rng.random():+.6f} ± 0.01" for _ in range(9))]
        for place in range(4)
    ]
    lines = printed(capsys, ["model", *(f"a figure of column {n}" for n in range(9))], rows)
    lines = [re.sub("\x1b\\[[01]m", "", line) for line in lines]
    assert max(map(width_of, lines)) <= width
    shown = "\n".join(lines)
    for row in rows:
        assert all(cell in shown for cell in row[1:])
    parts = "".join(re.findall(r"x+|[日本]+", shown))
    blocks = shown.count("m0")
    assert parts.count("x") == 70 * blocks
    assert parts.count("日") == 9 * blocks


def test_cells_cannot_command_the_terminal(capsys, on_terminal):
    on_terminal(80)
    evil = "\x1b[31mred\u202e[bold]b[/bold] :smile:\nnext"
    *_, row = printed(capsys, ["id", "n"], [[evil, 1]])
    assert row.startswith("\\x1b[31mred\\u202e[bold]b[/bold] :smile:\\nnext")


def test_a_tuple_holds_the_lines_of_a_text(capsys, in_pipe):
    rows = [["a", ("first", "sec\nond")], ["b", ("third",)]]
    assert printed(capsys, ["name", "text"], rows, left=2) == [
        "name  text",
        "a     first",
        "      sec\\nond",
        "b     third",
    ]


def test_the_last_text_takes_the_room_that_the_others_leave(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    check = "a-long-name-of-a-check"
    rows = [["warning", check, "many words " * 20]]
    lines = printed(capsys, ["severity", "check", "finding"], rows, left=3)
    assert max(map(width_of, lines)) <= 60
    assert lines[1].startswith(f"warning   {check}  many words")
    assert " ".join(lines).count("many") == 20

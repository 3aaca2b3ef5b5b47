"""Text of others: escaped for a terminal, marking nothing up in Markdown, aligned by its width."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from comet_rec.data.tables import Table
from comet_rec.errors import (
    CometWarning,
    DataError,
    UnknownIdError,
    argument,
    did_you_mean,
    messages_for,
)
from comet_rec.text import (
    code,
    cropped,
    markdown,
    paragraph,
    printable,
    shortened,
    table,
    width_of,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edef", r"abc\u202edef"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("u1\ufe0f", r"u1\ufe0f"),
        ("\u3164", r"\u3164"),
        ("\ud800", r"\ud800"),
        ("\x00\x7f", r"\x00\x7f"),
        ("[red]x[/]", "[red]x[/]"),
        ("日本　語 Amélie\u00a0❤️ 🎬", "日本　語 Amélie\u00a0❤️ 🎬"),
        (7, "7"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text())
def test_no_text_reaches_a_terminal_unescaped_and_none_is_lost(text):
    shown = printable(text)
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in shown)
    assert not set(shown) & set("\u200b\u200d\u202a\u202e\u2066\u2069\u2028\u2029\ufeff")
    shown.encode()  # nothing that cannot be written
    if text.isascii() and text.isprintable():
        assert shown == text


@given(st.text(st.sampled_from("ab|`*_~<>&;#![]()\\\n\x1b-$ ")))
def test_a_name_in_a_table_of_markdown_stays_text_in_one_cell(name):
    page = f"| a | b |\n|---|---|\n| {markdown(name)} | end |\n"
    tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(page)
    cells = [t for t in tokens if t.type == "inline"][2:]
    assert len(cells) == 2
    assert {part.type for part in cells[0].children} <= {"text", "text_special"}
    shown = "".join(part.content for part in cells[0].children)
    assert shown == printable(name).strip()
    assert cells[1].content == "end"


@given(st.text(st.sampled_from("ab`\n|")).filter(str.strip))
def test_a_code_span_holds_any_text(text):
    (paragraph,) = [t for t in MarkdownIt("commonmark").parse(code(text)) if t.type == "inline"]
    assert [part.type for part in paragraph.children] == ["code_inline"]
    assert paragraph.children[0].content == printable(text)


def test_a_paragraph_keeps_its_own_marks_and_loses_tags():
    text = "what `best` does <script>alert(1)</script> with p < .001"
    assert paragraph(text) == "what `best` does &lt;script>alert(1)&lt;/script> with p < .001"


def test_tables_align_wide_letters():
    rows = [["日本", "1.0", "x" * 30], ["model", "🎬", "y"]]
    lines = table(["name", "figure", "note"], rows)
    assert {width_of(line) for line in lines} == {5 + 2 + 6 + 2 + 30}


def test_text_is_cut_by_its_width_and_says_so():
    assert cropped("日本語", 6) == "日本語"
    assert cropped("日本語", 5) == "日本…"
    assert width_of(cropped("日本語日本語", 6)) <= 6
    assert shortened("9" * 5000) == "9" * 30 + "…" + "9" * 29
    assert "digits" in shortened(10**5000)


def test_a_table_of_lists_shows_ids_escaped_and_keeps_them_in_its_files(tmp_path):
    ids = np.array(["\x1b[31mred", "=1+1", "日本"], dtype=object)
    lists = Table({"user_id": ids, "rank": np.arange(3)})
    shown = repr(lists)
    assert "\x1b" not in shown
    assert r"\x1b[31mred" in shown
    assert len({width_of(line) for line in shown.splitlines()[1:]}) == 1
    lists.write(str(tmp_path / "x.csv"), "csv")
    rows = (tmp_path / "x.csv").read_text().splitlines()
    assert rows[1:] == ["\x1b[31mred,0", "=1+1,1", "日本,2"]


def test_errors_and_warnings_show_what_they_name_escaped():
    assert str(DataError("a\x1b[2J.csv: no such file")) == r"a\x1b[2J.csv: no such file"
    assert str(UnknownIdError("unknown user 'x'\n")) == r"unknown user 'x'\n"
    with pytest.warns(CometWarning) as caught:
        warnings.warn(CometWarning("column '\u202ex'"), stacklevel=1)
    assert str(caught[0].message) == r"column '\u202ex'"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("raitng", "rating"), ("RATING", "rating"), ("itme", "item"), ("usr", "user"),
        ("--raitng", "rating"), ("tim", "time"), ("foo", None), ("title", None), ("date", None),
        ("genre", None), ("x", None), ("", None),
    ],
)  # fmt: skip
def test_only_a_near_name_is_suggested(name, near):
    hint = did_you_mean(name, ["user", "item", "time", "rating"])
    wanted = f"did you mean {near!r}?" if near else "known: user, item, time, rating"
    assert hint == wanted


def test_a_name_that_begins_another_is_near_and_long_lists_are_cut():
    assert did_you_mean("eval", ["train", "evaluate"]) == "did you mean 'evaluate'?"
    assert did_you_mean("zzz", [f"column {n}" for n in range(1000)]).endswith(" and 960 more")


def test_arguments_are_named_as_their_reader_gives_them():
    assert argument("figures", False) == "figures=False"
    with messages_for("shell"):
        assert argument("figures", False) == "--no-figures"

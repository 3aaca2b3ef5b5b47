"""Reports: cells as text; names of others mark nothing up in Markdown or HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from comet_rec.experiments.report import Report, as_html, as_markdown
from comet_rec.experiments.tables import Cell, Drawing, Section, Table

EVIL = "a|b`c\x1b[31m<script>alert(1)</script>\n| d | ![x](http://x/y) \u202e"


@pytest.fixture
def report() -> Report:
    table = Table(EVIL, ["user", "item"], [[EVIL, "1"], ["[red]", "2"]])
    section = Section("audit", "Audit", [f"Nothing was found in: {EVIL}."], [table])
    return Report("Title", ["note"], f"comet-rec reproduce --data {EVIL}", [section])


def test_names_break_no_table_of_markdown_and_bring_in_no_html(report):
    text = as_markdown(report, {})
    assert not {"\x1b", "\u202e"} & set(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = [token.type for token in tokens]
    assert kinds.count("table_open") == 1
    assert kinds.count("tr_open") == 3
    assert "html_block" not in kinds
    inside = [child for token in tokens for child in token.children or ()]
    assert "html_inline" not in {child.type for child in inside}
    start = kinds.index("table_open")
    cells = [token for token in tokens[start:] if token.type == "inline"]
    assert {c.type for token in cells for c in token.children} <= {"text", "text_special"}
    shown = "".join(child.content for child in cells[2].children)
    assert shown == r"a|b`c\x1b[31m<script>alert(1)</script>\n| d | ![x](http://x/y) \u202e"


def test_names_bring_no_element_into_the_page(report, tmp_path):
    found = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append(tag)

    text = as_html(report, {}, tmp_path)
    Elements().feed(text)
    assert not {"script", "img"} & set(found)
    assert found.count("td") == 4
    assert not {"\x1b", "\u202e"} & set(text)
    assert r"\x1b[31m&lt;script&gt;" in text


def test_a_page_shows_its_own_pictures_and_the_status_of_cells(tmp_path):
    (tmp_path / "a b.svg").write_text("<svg/>")
    rows = [
        ["COMET", Cell(0.706, 0.006, (), 0.730, "lower")],
        ["MF", Cell(None, paper=0.54, status="not run", note="too long")],
    ]
    table = Table("ML-1M", ["model", "HR@10"], rows)
    drawing = Drawing("a", "bars", "A <caption>", {})
    first = Section("table2", "Tables II & III", ["See ![x](secret.svg)."], [table], [drawing])
    second = Section("settings", "Settings", ["[a link](http://x/y)"])
    report = Report("Title", ["One.", "Two."], "command", [first, second], warning="Smoke.")
    text = as_html(report, {"a": "a b.svg"}, tmp_path)
    assert text.count("<img") == 1
    assert 'alt="A &lt;caption&gt;" src="data:image/svg+xml;base64,PHN2Zy8+"' in text
    assert '<td class="lower">.706 ± .006<small>paper .730, -0.024: lower</small></td>' in text
    assert '<td class="not">paper .540; not run: too long</td>' in text
    assert '<h2 id="table2">Tables II &amp; III</h2>' in text
    assert '<nav><a href="#table2">Tables II &amp; III</a><a href="#settings">' in text
    assert text.count('<p class="warn">Smoke.</p>') == 2
    assert 'href="http' not in text


def test_cells_say_their_number_their_error_and_what_the_paper_has():
    assert str(Cell(0.7064, 0.0058)) == ".706 ± .006"
    assert str(Cell(0.0418, 0.0012, note=" (2,000 users)", digits=4)) == (
        "0.0418 ± 0.0012 (2,000 users)"
    )
    assert str(Cell(0.706, 0.006, (), 0.730, "lower")) == ".706 ± .006; paper .730, -0.024: lower"
    other = Cell(0.706, 0.006, (), 0.730, "another log")
    assert str(other) == ".706 ± .006; paper .730: another log"
    assert other.difference is None
    assert str(Cell(None, paper=0.54, status="not run", note="why")) == "paper .540; not run: why"
    assert str(Cell(None, status="not run")) == "not run"

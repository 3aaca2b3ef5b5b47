"""Files of a report: report.json, report.md, report.html (one file, no network) and figures."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from comet_rec.experiments.plots import draw
from comet_rec.experiments.tables import NOT_RUN, STATUSES, Section, markdown_table
from comet_rec.files import write_text_whole
from comet_rec.text import code, markdown, paragraph, printable


@dataclass
class Report:
    """Report of a study: its sections, and facts about the study.

    Parameters
    ----------
    title : str
    note : list of str
        Paragraphs at the top, on the budget (sizes and seeds of the trainings) and its limits.
    command : str
        Command that made the report.
    sections : list of Section
    warning : str
        Warning below every section of the HTML page; empty for no warning.
    queue : list of dict
        Data of every training of the study, with its state and seconds.
    about : dict
        Versions of libraries, and the machine.
    """

    title: str
    note: Sequence[str]
    command: str
    sections: list[Section]
    warning: str = ""
    queue: Sequence[dict[str, Any]] = ()
    about: dict[str, Any] = field(default_factory=dict)


def write(report: Report, folder: Path, *, figures: bool = True) -> None:
    """Write the files of a report to `folder`, where they replace an earlier report.

    Parameters
    ----------
    report : Report
    folder : Path
    figures : bool
        Draw the figures (needs matplotlib).

    Raises
    ------
    ArtefactError, ConfigError
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        drawing.name: draw(drawing, folder)[0]
        for section in report.sections
        for drawing in (section.drawings if figures else ())
    }
    data = json.dumps(_data(report), indent=1, allow_nan=False)
    write_text_whole(folder / "report.json", f"{data}\n")
    write_text_whole(folder / "report.md", as_markdown(report, pictures))
    write_text_whole(folder / "report.html", as_html(report, pictures, folder))


def _data(report: Report) -> dict[str, Any]:
    """Content of ``report.json``."""
    return {
        "title": report.title,
        "note": "\n\n".join(report.note),
        "command": report.command,
        **report.about,
        "verdicts": {s.name: counts for s in report.sections if (counts := s.statuses_of())},
        "sections": {
            section.name: {
                "title": section.title,
                "text": section.text,
                "tables": [
                    {"title": t.title, "columns": t.columns, "rows": t.texts}
                    for t in section.tables
                ],
                "data": section.data,
            }
            for section in report.sections
        },
        "trainings": list(report.queue),
    }


def as_markdown(report: Report, pictures: Mapping[str, str]) -> str:
    """The report as Markdown.

    Parameters
    ----------
    report : Report
    pictures : mapping
        Name of a drawing → name of its file.
    """
    note = "\n>\n".join(f"> {paragraph(text)}" for text in report.note)
    blocks = [f"# {markdown(report.title)}", note, code(report.command)]
    for section in report.sections:
        blocks += [f"## {markdown(section.title)}", *map(paragraph, section.text)]
        blocks += map(markdown_table, section.tables)
        blocks += [
            f"![{markdown(drawing.caption)}]({quote(pictures[drawing.name])})"
            for drawing in section.drawings
            if drawing.name in pictures
        ]
    return "\n\n".join(blocks) + "\n"


def as_html(report: Report, pictures: Mapping[str, str], folder: Path) -> str:
    """The report as one HTML page that contains its figures, made from the report's Markdown.

    `pictures` maps the name of a drawing to the name of its file in `folder`.
    """
    # The library is imported here: no other command needs it.
    from markdown_it import MarkdownIt

    # Ids and names from a log may hold HTML or links; both must stay text.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink"])
    parser.add_render_rule("image", _figure(folder, {quote(name) for name in pictures.values()}))
    tokens = parser.parse(as_markdown(report, pictures))
    links = _link_headings(tokens, [section.name for section in report.sections])
    _mark_cells(tokens)
    body = parser.renderer.render(tokens, parser.options, {})
    body = body.replace("<blockquote>", '<blockquote class="warn">')
    body = body.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
    if report.warning:
        warning = f'<p class="warn">{_escaped(report.warning)}</p>\n'
        # The warning goes before every heading but the first, and to the end.
        body = body.replace("<h2", f"{warning}<h2").replace(warning, "", 1) + warning
    start = body.index("<h2") if "<h2" in body else len(body)
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    page = template.replace("{{title}}", _escaped(report.title))
    return page.replace("{{body}}", f"{body[:start]}<nav>{links}</nav>\n{body[start:]}")


def _link_headings(tokens: Sequence[Any], names: Sequence[str]) -> str:
    """Give the heading of each section an id from `names`.

    Returns links to the headings, for the top of the page.
    """
    links = []
    # The first heading is the title of the page.
    places = [n for n, token in enumerate(tokens) if token.type == "heading_open"][1:]
    for name, place in zip(names, places, strict=True):
        tokens[place].attrs["id"] = name
        title = "".join(child.content for child in tokens[place + 1].children)
        links.append(f'<a href="#{name}">{_escaped(title)}</a>')
    return "".join(links)


def _mark_cells(tokens: Sequence[Any]) -> None:
    """Colour table cells by status; put the text after a cell's first semicolon in small type."""
    from markdown_it.token import Token

    for place, token in enumerate(tokens):
        if token.type != "td_open":
            continue
        children = tokens[place + 1].children
        text = "".join(child.content for child in children)
        status = text.rpartition(": ")[2]
        if NOT_RUN in text:
            token.attrs["class"] = "not"
            continue
        first, semicolon, rest = text.partition("; ")
        if semicolon and status in STATUSES:
            token.attrs["class"] = status.split()[0]
        if semicolon:
            small = Token("html_inline", "", 0, content=f"<small>{_escaped(rest)}</small>")
            tokens[place + 1].children = [Token("text", "", 0, content=first), small]


def _figure(folder: Path, sources: Collection[str]) -> Any:
    """Rule that embeds the images in `sources` with captions; other images become text."""

    def render(renderer: Any, tokens: Any, place: int, options: Any, env: Any) -> str:
        caption = _escaped("".join(child.content for child in tokens[place].children or ()))
        source = str(tokens[place].attrs["src"])
        if source not in sources:
            return f"![{caption}]({_escaped(source)})"
        # An <img>, since the ids inside several inline SVGs would collide.
        data = b64encode((folder / unquote(source)).read_bytes()).decode("ascii")
        return (
            f'<span class="wide"><img alt="{caption}" src="data:image/svg+xml;base64,{data}">'
            f'</span><span class="caption">{caption}</span>'
        )

    return render


def _escaped(text: str) -> str:
    from markdown_it.common.utils import escapeHtml

    return str(escapeHtml(printable(text)))

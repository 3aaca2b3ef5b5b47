"""A report directory: report.json, report.md, report.html (one file, no network), figures."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from comet_rec.artefact.folder import write_text
from comet_rec.experiments.plots import draw
from comet_rec.experiments.sections import Section, Table, verdicts
from comet_rec.text import code, markdown, paragraph, printable

STYLE = """
:root { --ink: #1f2933; --soft: #5b6770; --line: #d9dee3; --page: #fff; --band: #f5f7f9;
        --reproduced: #2f6f4f; --better: #2b5c9e; --lower: #a8442a; --off: #7a6a3a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8eb; --soft: #a3adb5; --line: #3a444c; --page: #161b1f; --band: #1f262b;
          --reproduced: #7cc49c; --better: #86b3ec; --lower: #ec9479; --off: #cdb878; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; } .note { color: var(--soft); }
.warn { border-left: 4px solid var(--off); background: var(--band); padding: .6rem .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; }
a { color: var(--better); } code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; white-space: nowrap; }
th { border-bottom: 2px solid var(--line); font-weight: 600; }
td:first-child { white-space: normal; min-width: 8rem; max-width: 18rem; }
td { border-bottom: 1px solid var(--line); } td small { display: block; color: var(--soft); }
td.reproduced small { color: var(--reproduced); } td.better small { color: var(--better); }
td.lower small { color: var(--lower); } td.not { color: var(--off); white-space: normal; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .875rem; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
@media (max-width: 40rem) { body { font-size: 15px; } h1 { font-size: 1.35rem; }
  .wide img { max-width: none; width: 44rem; } }
"""


@dataclass
class Report:
    """What a study found.

    Parameters
    ----------
    title : str
    note : str
        What its figures are worth.
    command : str
        What made it.
    sections : list of Section
    warning : str
        What stands under every section; empty for nothing.
    queue : list of dict
        Every training, its state and seconds.
    about : dict
        Versions and machine.
    """

    title: str
    note: str
    command: str
    sections: list[Section]
    warning: str = ""
    queue: Sequence[dict[str, Any]] = ()
    about: dict[str, Any] = field(default_factory=dict)


def write(report: Report, folder: Path, *, figures: bool = True) -> None:
    """Write the report's files; those of an earlier report there are replaced.

    Parameters
    ----------
    report : Report
    folder : Path
    figures : bool
        Draw them (needs matplotlib).

    Raises
    ------
    ArtefactError, ConfigError
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        drawing.name: draw(drawing, folder)
        for section in report.sections
        for drawing in (section.drawings if figures else ())
    }
    write_text(folder / "report.json", json.dumps(_data(report), indent=1, allow_nan=False) + "\n")
    write_text(folder / "report.md", as_markdown(report, pictures))
    write_text(folder / "report.html", page(report, pictures, folder))


def _data(report: Report) -> dict[str, Any]:
    return {
        "title": report.title,
        "note": report.note,
        "command": report.command,
        **report.about,
        "verdicts": {s.name: verdicts(s) for s in report.sections if verdicts(s)},
        "sections": {
            section.name: {
                "title": section.title,
                "text": section.text,
                "tables": [
                    {"title": t.title, "columns": t.columns, "rows": t.rows} for t in section.tables
                ],
                "data": section.data,
            }
            for section in report.sections
        },
        "trainings": list(report.queue),
    }


def as_markdown(report: Report, pictures: dict[str, list[str]]) -> str:
    """The report as Markdown."""
    lines = [f"# {report.title}", "", f"> {report.note}", "", code(report.command)]
    for section in report.sections:
        lines += ["", f"## {section.title}"]
        for text in section.text:
            lines += ["", paragraph(text)]
        for table in section.tables:
            lines += ["", *markdown_table(table)]
        for drawing in section.drawings:
            if drawing.name in pictures:
                source = quote(pictures[drawing.name][0])
                lines += ["", f"![{markdown(drawing.caption)}]({source})"]
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> list[str]:
    """Lines of a table under its title."""
    title = [f"**{markdown(table.title)}**", ""] if table.title else []
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return [*title, *("| " + " | ".join(map(markdown, row)) + " |" for row in rows)]


def page(report: Report, pictures: dict[str, list[str]], folder: Path) -> str:
    """The report as one HTML file with its figures inside."""
    names = [(section.name, section.title) for section in report.sections]
    links = "".join(f'<a href="#{name}">{_escaped(title)}</a>' for name, title in names)
    body = [
        f"<h1>{_escaped(report.title)}</h1>",
        f'<p class="warn">{_escaped(report.note)}</p>',
        f'<p class="note"><code>{_escaped(report.command)}</code></p>',
        f"<nav>{links}</nav>",
    ]
    for section in report.sections:
        body.append(f'<section id="{section.name}"><h2>{_escaped(section.title)}</h2>')
        body += [f"<p>{_escaped(text)}</p>" for text in section.text]
        body += [_html_table(table) for table in section.tables]
        for drawing in section.drawings:
            if drawing.name in pictures:
                body.append(_figure(folder / pictures[drawing.name][0], drawing.caption))
        if report.warning:
            body.append(f'<p class="warn">{_escaped(report.warning)}</p>')
        body.append("</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(report.title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _figure(path: Path, caption: str) -> str:
    from base64 import b64encode

    # As a picture and not as inline SVG: several inline ones would share their ids.
    data = b64encode(path.read_bytes()).decode("ascii")
    text = _escaped(caption)
    source = f"data:image/svg+xml;base64,{data}"
    picture = f'<div class="wide"><img alt="{text}" src="{source}"></div>'
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_escaped(name)}</th>' for name in table.columns)
    rows = []
    for place, row in enumerate(table.rows):
        cells = [_cell(text, table.marks.get((place, at), "")) for at, text in enumerate(row)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    title = f"<h3>{_escaped(table.title)}</h3>" if table.title else ""
    return (
        f'{title}<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(text: str, mark: str) -> str:
    """A cell; what stands behind the first semicolon goes under it."""
    if mark == "not run" or text.startswith("not run"):
        return f'<td class="not">{_escaped(text)}</td>'
    first, _, rest = text.partition("; ")
    small = f"<small>{_escaped(rest)}</small>" if rest else ""
    kind = f' class="{mark}"' if mark else ""
    return f"<td{kind}>{_escaped(first)}{small}</td>"

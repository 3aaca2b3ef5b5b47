"""Write docs/paper-to-code.md: which symbol implements which part of the paper.

Docstrings are the source: wherever one names an equation, table, figure or section of the paper,
or says "Choice:" where the paper leaves something open, a row appears. Modules are parsed, not
imported.

    python docs/paper_to_code.py            # write the page
    python docs/paper_to_code.py --check    # exit status 1 if the page is out of date
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper-to-code.md"
SOURCE = ROOT / "src"

ROMAN = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"]
EXPECTED = [
    *(("Eq.", number) for number in range(1, 10)),
    *(("Table", number) for number in range(1, 6)),
    *(("Figure", number) for number in range(3, 7)),
]
COMPUTED = [
    ("2, 3", "embedding maps, rows of a table", "embedding_maps", "cross_features"),
    (
        "4, 5",
        "c = [ReLU(W_l ∗ E + b_l)] over widths",
        "direct_cross_features",
        "cross_features",
    ),
    ("6, 7", "MLP of the cross features", "Perceptron.forward", "Tower.forward"),
    ("8", "hᵀ(z_u ⊙ z_i)", "COMET.score", "COMET.score_of_pairs"),
    ("9", "binary cross-entropy", "binary_cross_entropy", ""),
]
"""Equation, its content, the function that computes it plainly, and the one that a step calls."""
SETTINGS = [
    ("embedding size K", "128", "CometConfig.embedding_dim"),
    ("cap of a history", "50", "CometConfig.history_length"),
    ("filter widths H", "1, 8, 32, 128", "CometConfig.widths"),
    ("channels of a filter", "8", "CometConfig.channels"),
    ("dropout", "0.3", "CometConfig.dropout"),
    ("embeddings start", "uniform; scale not said", "CometConfig.init_scale"),
    ("negatives of a positive", "4, anew each epoch", "TrainConfig.negatives"),
    ("learning rate of Adam", "tried 5e-5, 1e-4, 5e-4, 1e-3, 5e-3", "TrainConfig.learning_rate"),
    ("regularisation", "tried 1e-6, 5e-6, 1e-5, 5e-5", "TrainConfig.weight_decay"),
    ("end of training", "convergence", "TrainConfig.patience"),
    ("test item", "the latest of each user", "ProtocolConfig.split"),
    ("candidates beside it", "99 at random", "ProtocolConfig.negatives"),
]

_NUMBER = r"(?:\d+|[IVX]+)\b"
_MENTION = re.compile(
    r"(?<!\d{4}, )\b(Eq|Table|Figure|Section)s?\.?\s+"  # not those of another paper, "2017, Eq. 9"
    rf"({_NUMBER}(?:\s*(?:,|–|-|and)\s*{_NUMBER})*)"
)
_FIELD = re.compile(r"(\w+(?:, \w+)*) : ")
_CHOICE = re.compile(r"Choice: (.+?)(?:(?<!Eq)\.(?=\s|$)|$)")


class Text(NamedTuple):
    """One documented symbol: its dotted name, its file, what its docstring says."""

    symbol: str
    file: str
    text: str


def number_of(text: str) -> int:
    """Value of an Arabic or Roman numeral; 0 for a Roman one above ten."""
    if text.isdigit():
        return int(text)
    return ROMAN.index(text) if text in ROMAN else 0


def mentions(text: str) -> set[tuple[str, int]]:
    """All parts of the paper that a text names, e.g. ``{("Eq.", 4), ("Eq.", 5)}``."""
    found = set()
    for kind, numbers in _MENTION.findall(" ".join(text.split())):
        label = "Eq." if kind == "Eq" else kind
        for first, last in re.findall(rf"({_NUMBER})(?:\s*[–-]\s*({_NUMBER}))?", numbers):
            start = number_of(first)
            found |= {(label, n) for n in range(start, number_of(last or first) + 1) if n}
    return found


def docstrings(source: Path) -> Iterator[Text]:
    """Every docstring under a source folder; a class's parameters each get an entry."""
    for path in sorted(source.rglob("*.py")):
        file = path.relative_to(source.parent).as_posix()
        dotted = path.relative_to(source).with_suffix("").as_posix().replace("/", ".")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if text := ast.get_docstring(tree):
            yield Text(dotted.removesuffix(".__init__"), file, text)
        yield from _inside(tree, "", file)


def files_of_other_papers(source: Path) -> set[str]:
    """Files whose first line cites another paper by its year: their equations are its own."""
    found = set()
    for path in source.rglob("*.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or " "
        if re.search(r"\b(19|20)\d\d\)", text.splitlines()[0]):
            found.add(path.relative_to(source.parent).as_posix())
    return found


def _inside(parent: ast.AST, prefix: str, file: str) -> Iterator[Text]:
    before: ast.stmt | None = None
    for node in getattr(parent, "body", []):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            symbol = prefix + node.name
            text = ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                for name, part in _by_parameter(text):
                    yield Text(f"{symbol}.{name}" if name else symbol, file, part)
                yield from _inside(node, f"{symbol}.", file)
            else:
                yield Text(symbol, file, text)
        elif (name := _assigned(before)) and isinstance(node, ast.Expr):
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield Text(prefix + name, file, inspect.cleandoc(value.value))
        before = node


def _assigned(node: ast.stmt | None) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if isinstance(targets[0], ast.Name) else ""


def _by_parameter(text: str) -> list[tuple[str, str]]:
    """Split a numpydoc text at its parameters; what belongs to none has the name ""."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        if match := _FIELD.match(line):
            parts.append((match[1], []))
        elif re.match(r"\S", line):
            parts.append(("", []))
        parts[-1][1].append(line)
    return [(name, "\n".join(lines)) for name, lines in parts if lines]


def defaults(source: Path) -> dict[str, str]:
    """Default of every class field that has one, by ``Class.field``, as it is written."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for line in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(line, ast.AnnAssign) and line.value is not None:
                    found[f"{node.name}.{_assigned(line)}"] = ast.unparse(line.value)
    return found


def _computed(row: tuple[str, str, str, str], texts: list[Text]) -> str:
    """A row of the table of functions."""
    name, content, *symbols = row
    cells = [name, content]
    for symbol in symbols:
        files = [text.file for text in texts if text.symbol == symbol]
        place = f"`{symbol}`, `{files[0]}`" if files else "not yet"
        cells.append(place if symbol else "")
    return f"| {' | '.join(cells)} |"


def page(source: Path) -> str:
    """The page's Markdown."""
    texts = list(docstrings(source))
    where: dict[tuple[str, int], dict[str, list[str]]] = {part: {} for part in EXPECTED}
    others = files_of_other_papers(source)
    for entry in texts:
        for part in mentions(entry.text):
            if part[0] == "Eq." and entry.file in others:
                continue
            where.setdefault(part, {}).setdefault(entry.file, []).append(entry.symbol)
    order = {"Eq.": 0, "Table": 1, "Figure": 2, "Section": 3}
    lines = [
        "# From the paper to the code",
        "",
        "Written by `python docs/paper_to_code.py` from the docstrings; a test keeps it up to",
        "date. The paper is [arXiv 2007.14129v1](https://arxiv.org/abs/2007.14129v1).",
        "",
        "## The functions that compute the equations",
        "",
        "| equation | content | plain form | fast form |",
        "|---|---|---|---|",
        *(_computed(row, texts) for row in COMPUTED),
        "",
        "The fast form of Eqs. 2 to 5 is a product for each frequency of a Fourier transform",
        "([0014](decisions/0014-frequency-form.md)); tests compare both forms.",
        "",
        "## Every mention of equations, tables, figures",
        "",
        "| in the paper | symbol | file |",
        "|---|---|---|",
    ]
    for (kind, number), places in sorted(
        where.items(), key=lambda pair: (order[pair[0][0]], pair[0][1])
    ):
        name = f"{kind} {ROMAN[number] if kind == 'Table' else number}"
        for file in sorted(places, key=lambda file: (not file.endswith("models/comet.py"), file)):
            symbols = ", ".join(f"`{symbol}`" for symbol in sorted(places[file]))
            lines.append(f"| {name} | {symbols} | `{file}` |")
        lines += [] if places else [f"| {name} | not yet | |"]
    values = defaults(source)
    lines += ["", "## Settings that the paper states", ""]
    lines += ["| setting | in the paper | symbol | default |", "|---|---|---|---|"]
    for name, said, symbol in SETTINGS:
        default = f"`{values[symbol]}`" if symbol in values else "not yet"
        lines.append(f"| {name} | {said} | `{symbol}` | {default} |")
    lines += ["", "## Settings that the paper leaves open", ""]
    lines += ["| setting | default | choice |", "|---|---|---|"]
    for entry in texts:
        for choice in _CHOICE.findall(" ".join(entry.text.split())):
            default = f"`{values[entry.symbol]}`" if entry.symbol in values else ""
            lines.append(f"| `{entry.symbol}` | {default} | {choice.replace('|', '/')} |")
    lines += ["", "The reasons are in the [decisions](decisions/index.md).", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/paper-to-code.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    text = page(given.source)
    if not given.check:
        given.page.write_text(text, encoding="utf-8")
        return 0
    if given.page.is_file() and given.page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{given.page.name} is out of date; run: python docs/paper_to_code.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""The code of docs' pages for users runs; docs/index.md shows what README shows."""

import csv
import re
import sys
from pathlib import Path

import pytest

from tests.docs.test_readme import README, blocks, run

DOCS = Path(__file__).parents[2] / "docs"


def test_home_page_shows_a_part_of_the_readme():
    front, home = README.read_text(encoding="utf-8"), (DOCS / "index.md").read_text("utf-8")
    for kind in ("python", "text"):
        (shown,), (part,) = blocks(front, kind), blocks(home, kind)
        assert set(part.splitlines()) <= set(shown.splitlines())


@pytest.mark.slow
def test_quickstart_runs(tmp_path):
    page = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    write_log(tmp_path / "log.csv")
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("comet-rec")]
    assert len(commands) == 5
    for command in commands:
        run(["bash", "-c", command], tmp_path)
    assert (tmp_path / "lists.csv").is_file()

    (tmp_path / "python").mkdir()
    write_log(tmp_path / "python" / "log.csv")
    (tmp_path / "python" / "page.py").write_text("\n".join(blocks(page, "python")), "utf-8")
    printed = run([sys.executable, "page.py"], tmp_path / "python")
    assert re.fullmatch(r"0\.\d+ 0\.\d+\n", printed)
    assert (tmp_path / "python" / "runs" / "live" / "manifest.json").is_file()


@pytest.mark.slow
def test_python_of_lists_and_comparing_runs(tmp_path):
    start = """
import comet_rec as cr

items = [50, 242, 302, *range(1000, 1012)]
rows = [(u, i) for u in [42, 196, *range(20)] for i in items[u % 5 : u % 5 + 6]]
split = cr.leave_one_out(cr.read(rows), negatives=5)
model = cr.FISM(epochs=2).fit(split)
"""
    pages = [(DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("lists", "comparing")]
    code = "\n".join([start, *(block for page in pages for block in blocks(page, "python"))])
    (tmp_path / "pages.py").write_text(code, encoding="utf-8")
    assert run([sys.executable, "pages.py"], tmp_path)


def write_log(path: Path) -> None:
    """A log with the columns and ids that the page names."""
    users = ["alice", "bob", *(f"user-{n}" for n in range(30))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "sku", "ts"])
        for n, user in enumerate(users):
            for step in range(8):
                item = (7 * n + step * (n % 3 + 1)) % 25
                writer.writerow([user, f"sku-{item}", 1_700_000_000 + 1000 * step + n])

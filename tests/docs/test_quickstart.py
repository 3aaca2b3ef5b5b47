"""The code of docs' pages for users runs; docs/index.md shows what README shows."""

import csv
import re
import shutil
import sys
from datetime import date
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
    (tmp_path / "today.csv").write_text("uid,sku,ts\ncarol,sku-7,1800000000\n", encoding="utf-8")
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("comet-rec")]
    assert len(commands) == 4
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
def test_updates_page_runs(tmp_path):
    page = (DOCS / "updates.md").read_text(encoding="utf-8")
    (tmp_path / "logs").mkdir()
    write_log(tmp_path / "logs" / "first.csv")
    new_rows = "uid,sku,ts\nalice,sku-20,1800000000\ncarol,sku-7,1800000000\nbob,new,1800000001\n"
    (tmp_path / "logs" / "monday.csv").write_text(new_rows, encoding="utf-8")
    items = [f"sku-{n},{'lamp' if n % 2 else 'desk'}" for n in range(26)]  # sku-25 has no row
    (tmp_path / "items.csv").write_text("\n".join(["sku,title", *items, ""]), encoding="utf-8")

    shell, python = "\n".join(blocks(page, "bash")), "\n".join(blocks(page, "python"))
    run(["bash", "-e", "-c", shell], tmp_path)
    run([sys.executable, "-c", python], tmp_path)
    assert {"alice", "carol"} <= set(users_of_lists(tmp_path / "lists.csv"))

    # The script for cron, on the day of its log.
    shutil.copy(tmp_path / "logs" / "monday.csv", tmp_path / "logs" / f"{date.today()}.csv")
    run(["bash", "nightly.sh"], tmp_path)
    assert (tmp_path / "runs" / "newest").resolve().name == f"{date.today()}"
    assert (tmp_path / "lists.parquet").is_file()


@pytest.mark.slow
def test_python_of_pages_about_a_trained_model_runs(tmp_path):
    start = """
import comet_rec as cr

items = [50, 242, 302, *range(1000, 1012)]
rows = [(u, i) for u in [42, 196, *range(20)] for i in items[u % 5 : u % 5 + 6]]
split = cr.leave_one_out(cr.read(rows), negatives=5)
model = cr.FISM(epochs=2).fit(split)
model.save("runs/films")
"""
    names = ("lists", "filters", "explain", "comparing")
    pages = [(DOCS / f"{name}.md").read_text(encoding="utf-8") for name in names]
    code = "\n".join([start, *(block for page in pages for block in blocks(page, "python"))])
    (tmp_path / "pages.py").write_text(code, encoding="utf-8")
    assert run([sys.executable, "pages.py"], tmp_path)


def users_of_lists(path: Path) -> list[str]:
    """User of each row of a CSV file of lists."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row["user_id"] for row in csv.DictReader(file)]


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

"""The pages of figures say what results/ holds."""

import json
import subprocess
import sys
from pathlib import Path

from comet_rec.experiments.tables import Table, markdown_table

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "figures.py"


def test_pages_and_results_agree():
    command = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_of_the_reproduction_has_every_table_of_its_results():
    for name, page in (("full", "reproduction"), ("ties", "reproduction-ties")):
        results = ROOT / "results" / "reproduce" / f"{name}.json"
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        sections = json.loads(results.read_text(encoding="utf-8"))["sections"].values()
        tables = [table for section in sections for table in section["tables"]]
        assert len(tables) > 2
        for table in tables:
            shown = markdown_table(Table(table["title"], table["columns"], table["rows"]))
            assert shown in text, table["title"]

"""Add to a comparison's JSON what made it: a title, the command, the machine.

python runs/annotate.py results/compare-ml-100k.json --title "MovieLens-100K" --command "bash …"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from comet_rec.artefact.provenance import machine, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--command", required=True)
    given = parser.parse_args()
    found = json.loads(given.file.read_text(encoding="utf-8"))
    about = {"title": given.title, "command": given.command}
    found = {"versions": versions(), "machine": machine()} | found | about
    given.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

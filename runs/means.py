"""Comparisons on one protocol with several training seeds as one: every figure becomes its mean.

Standard errors become means of those of one training. The means themselves are not tested.

python runs/means.py a-0.json a-1.json a-2.json --title TITLE --command COMMAND --out a.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from comet_rec.artefact.provenance import machine, versions


def mean(values: list[Any]) -> Any:
    """Mean of numbers, place by place of dicts; what is no number stays if all agree."""
    if isinstance(values[0], dict):
        assert all(value.keys() == values[0].keys() for value in values)
        return {key: mean([value[key] for value in values]) for key in values[0]}
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return values[0] if len(set(values)) == 1 else statistics.mean(values)
    return values[0] if all(value == values[0] for value in values) else values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    found = [json.loads(file.read_text(encoding="utf-8")) for file in given.files]
    assert len({one["protocol"]["hash"] for one in found}) == 1
    models = []
    for same in zip(*(one["models"] for one in found), strict=True):
        # A p-value is no mean: each training has its own.
        tests = [one.pop("against_reference", None) for one in same]
        about = mean([{k: v for k, v in one.items() if v is not None} for one in same])
        about["full NDCG@10 of each training"] = [one["full"]["NDCG@10"] for one in same]
        models.append(about | ({"against_reference": tests} if tests[0] else {}))
    result = {
        "title": given.title, "command": given.command, "versions": versions(),
        "machine": machine(), "trainings": len(found), "reference": found[0]["reference"],
        "protocol": found[0]["protocol"], "models": models,
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

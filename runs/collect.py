"""Results of finished runs as one small JSON object: what was run, on what, and what came out.

python runs/collect.py --command "bash runs/ml-100k.sh" runs/local/ml-100k-* > results/ml-100k.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from machine import machine


def of_run(folder: Path) -> dict[str, Any]:
    """What one run's files say."""
    manifest = json.loads((folder / "manifest.json").read_text())
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = ("model", "preset", "seed", "epochs", "config", "protocol", "versions")
    return {
        **{key: manifest[key] for key in kept},
        "metrics": json.loads((folder / "metrics.json").read_text()),
        "validation": max(x["validation"]["NDCG@10"] for x in lines if x["stage"] == "validation"),
        "train_seconds": round(sum(x["train_seconds"] for x in lines), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--command", required=True, help="what made the runs")
    given = parser.parse_args()
    runs = [of_run(folder) for folder in given.runs]
    means = {}
    for kind in ("sampled", "full"):
        for name in runs[0]["metrics"][kind]:
            values = [run["metrics"][kind][name] for run in runs]
            means[f"{kind} {name}"] = {
                "mean": statistics.mean(values),
                "deviation over seeds": statistics.stdev(values) if len(values) > 1 else None,
                "standard error over users": statistics.mean(
                    run["metrics"][f"{kind}_se"][name] for run in runs
                ),
            }
    result = {"command": given.command, "means": means, "machine": machine(), "runs": runs}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

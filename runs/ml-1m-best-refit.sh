#!/usr/bin/env bash
# MovieLens-1M, preset best as it is: bash runs/ml-1m-best-refit.sh LOG → results/ml-1m-best-refit.json
set -euo pipefail
log=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run=runs/local/ml-1m-best-refit
rm -rf "$run"
time .venv/bin/comet-rec train "$log" --preset best --out "$run"
.venv/bin/python runs/collect.py --command "bash runs/ml-1m-best-refit.sh LOG" "$run" \
  > results/ml-1m-best-refit.json

#!/usr/bin/env bash
# MovieLens-1M, preset blended (best in version 0.2), three training seeds: bash runs/ml-1m-best.sh LOG → results/ml-1m-best.json
# `time` and each run's log.jsonl say what the clock says; with nothing beside it, that is.
set -euo pipefail
log=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for seed in 0 1 2; do
  run=runs/local/ml-1m-best-$seed
  rm -rf "$run"
  time .venv/bin/comet-rec train "$log" --preset blended --set train.matmul_precision=medium --seed $seed --out "$run"
done
.venv/bin/python runs/collect.py --command "bash runs/ml-1m-best.sh LOG" runs/local/ml-1m-best-[012] \
  > results/ml-1m-best.json

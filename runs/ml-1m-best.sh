#!/usr/bin/env bash
# MovieLens-1M, preset best without its taste, three training seeds: bash runs/ml-1m-best.sh LOG → results/ml-1m-best.json
# Without a refit; one with it takes twice the time.
set -euo pipefail
log=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for seed in 0 1 2; do
  run=runs/local/ml-1m-best-$seed
  rm -rf "$run"
  .venv/bin/comet-rec train "$log" --preset best --set model.taste_dim=0 --no-refit --out "$run" --seed $seed
done
.venv/bin/python runs/collect.py --command "bash runs/ml-1m-best.sh LOG" runs/local/ml-1m-best-[012] \
  > results/ml-1m-best.json

#!/usr/bin/env bash
# MovieLens-100K, default settings, three training seeds on the one protocol → results/ml-100k.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for seed in 0 1 2; do
  run=runs/local/ml-100k-$seed
  rm -rf "$run"
  .venv/bin/comet-rec train ml-100k --out "$run" --seed $seed
done
.venv/bin/python runs/collect.py --command "bash runs/ml-100k.sh" runs/local/ml-100k-[012] \
  > results/ml-100k.json

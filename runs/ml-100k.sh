#!/usr/bin/env bash
# MovieLens-100K, preset blended without a refit (the default of version 0.2), three training seeds on the one protocol → results/ml-100k.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for seed in 0 1 2; do
  run=runs/local/ml-100k-$seed
  rm -rf "$run"
  .venv/bin/comet-rec train ml-100k --preset blended --no-refit --out "$run" --seed $seed
done
.venv/bin/python runs/collect.py --command "bash runs/ml-100k.sh" runs/local/ml-100k-[012] \
  > results/ml-100k.json

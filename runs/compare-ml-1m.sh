#!/usr/bin/env bash
# The baselines on MovieLens-1M: bash runs/compare-ml-1m.sh LOG → results/compare-ml-1m.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OMP_NUM_THREADS=1 .venv/bin/comet-rec compare "$1" --preset paper \
  --models mf,popularity,itemknn,ease,gmf,mlp,neumf-p,svdpp,fism --out results/compare-ml-1m.json
.venv/bin/python runs/annotate.py results/compare-ml-1m.json \
  --title "MovieLens-1M, the baselines on one split" --command "bash runs/compare-ml-1m.sh LOG"

#!/usr/bin/env bash
# MLP and NeuMF on MovieLens-1M: bash runs/compare-ml-1m-mlp.sh LOG → results/compare-ml-1m-mlp.json
# Epochs are capped where the trials in docs/log.md were flat: a refit doubles them.
set -euo pipefail
log=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OMP_NUM_THREADS=1 .venv/bin/comet-rec compare "$log" --preset paper --models mlp,gmf,neumf-p \
  --set mlp:train.epochs=14 --set neumf-p:train.epochs=8 --set neumf-p:train.patience=2 \
  --out results/compare-ml-1m-mlp.json
.venv/bin/python runs/annotate.py results/compare-ml-1m-mlp.json \
  --title "MovieLens-1M, MLP and NeuMF with wider layers" --command "bash runs/compare-ml-1m-mlp.sh LOG"

#!/usr/bin/env bash
# All models on MovieLens-100K, one split → results/compare-ml-100k.json. ConvNCF gets one epoch after
# its pre-training: a pair costs 3 MFLOP, a hundred times what the others cost. With a refit, so that all models know the
# validation rows at the test, and not those alone that are shown histories.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
.venv/bin/comet-rec compare ml-100k \
  --set convncf-p:train.epochs=1 --set convncf-p:train.patience=0 \
  --models comet,random,popularity,itemknn,ease,mf,svdpp,fism,gmf,mlp,neumf,neumf-p,convncf-p \
  --out results/compare-ml-100k.json
.venv/bin/python runs/annotate.py results/compare-ml-100k.json \
  --title "MovieLens-100K, default settings, all models on one split" --command "bash runs/compare-ml-100k.sh"

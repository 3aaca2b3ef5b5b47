#!/usr/bin/env bash
# Settings of the algorithms on one log, ten minutes each: bash runs/search-log.sh NAME LOG [MODELS] → results/search/NAME.journal
set -euo pipefail
log=$(realpath "$2") name=$1
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OMP_NUM_THREADS=1 .venv/bin/comet-rec tune "$log" --journal "results/search/$name.journal" \
  --models "${3:-itemknn,ease,mf,gmf,svdpp,fism,mlp}" --seconds 600 --set train.matmul_precision=medium --threads 1

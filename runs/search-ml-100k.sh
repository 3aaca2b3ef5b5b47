#!/usr/bin/env bash
# Settings of the baselines on MovieLens-100K, the same wall time each → results/search/ml-100k.journal
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OMP_NUM_THREADS=1 .venv/bin/comet-rec tune ml-100k --journal results/search/ml-100k.journal \
  --models mf,gmf,mlp,neumf,fism,svdpp,itemknn,ease,convncf --seconds 90 --preset paper

#!/usr/bin/env bash
# Settings of algorithms searched on one log → results/search/NAME.journal; seconds are those of each model:
# bash runs/search-log.sh NAME LOG MODELS SECONDS [--search KEY=VALUES]… [--set KEY=VALUE]
# So far:
#   amazon-beauty AMAZON-BEAUTY-LOG itemknn,ease,mf,gmf,svdpp,fism,mlp 600
#   amazon-beauty-decay AMAZON-BEAUTY-LOG mf,gmf,svdpp,fism 200 --search train.weight_decay=5e-6,1e-5 \
#     --search model.embedding_dim=64,128 --set train.learning_rate=0.005
#   ml-1m-closed ML-1M-LOG itemknn,ease 300
#   amazon-cds AMAZON-CDS-LOG mf 1200 --search train.weight_decay=5e-7,2e-6,5e-6,1e-5 \
#     --search model.embedding_dim=64,128 --set train.learning_rate=0.005
#   amazon-cds AMAZON-CDS-LOG itemknn 240
#   amazon-cds-rate AMAZON-CDS-LOG mf 600 --search train.learning_rate=0.001,0.002 \
#     --search train.weight_decay=5e-7,1e-6 --set model.embedding_dim=128
#   amazon-cds-low AMAZON-CDS-LOG mf 480 --search train.weight_decay=0,1e-7,2e-7 \
#     --search train.learning_rate=0.002,0.005 --set model.embedding_dim=128
#   amazon-cds-ease AMAZON-CDS-LOG ease 1500
# By figures over the whole catalogue, of Beauty and of CDs:
#   amazon-beauty-full AMAZON-BEAUTY-LOG ease 3000 --search model.l2=5,10,20,50,100,200 --set train.selection_metric=full
#   amazon-beauty-full AMAZON-BEAUTY-LOG itemknn 300 --set train.selection_metric=full
set -euo pipefail
name=$1 log=$(realpath "$2") models=$3 seconds=$4
shift 4
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OMP_NUM_THREADS=1 .venv/bin/comet-rec tune "$log" --journal "results/search/$name.journal" --models "$models" --preset paper \
  --seconds "$seconds" --set train.matmul_precision=medium --threads 1 "$@"

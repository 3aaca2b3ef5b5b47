#!/usr/bin/env bash
# Orders of equal times: bash runs/ties.sh ML-1M-RATINGS-WITH-TIMES → results/reproduce/ties.json and records;
# what is recorded is not trained again.
set -euo pipefail
log=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=runs/local/ties
mkdir -p "$out/records"
.venv/bin/python runs/records.py merge results/reproduce/records "$out/records"
.venv/bin/comet-rec reproduce ties --budget full --data "ml-1m-times=$log" --out "$out"
.venv/bin/python runs/records.py merge "$out/records" results/reproduce/records
bash runs/keep-report.sh "$out" ties reproduction-ties "bash runs/ties.sh ML-1M-RATINGS-WITH-TIMES"

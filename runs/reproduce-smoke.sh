#!/usr/bin/env bash
# Every table and figure on MovieLens-100K, small: proves the machinery → results/reproduce/smoke.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
.venv/bin/comet-rec reproduce all --budget smoke \
  --journal results/search/ml-100k.journal --out runs/local/reproduce-smoke
bash runs/keep-report.sh runs/local/reproduce-smoke smoke "bash runs/reproduce-smoke.sh"

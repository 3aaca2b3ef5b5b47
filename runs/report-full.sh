#!/usr/bin/env bash
# The report of budget full from the records alone, nothing trained:
# bash runs/report-full.sh ML-1M-LOG AMAZON-BEAUTY-LOG AMAZON-CDS-LOG → results/reproduce/full.json
set -euo pipefail
one=$(realpath "$1") two=$(realpath "$2") three=$(realpath "$3")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=runs/local/report-full
rm -rf "$out" && mkdir -p "$out"
cp -r results/reproduce/records "$out/records"
journals=()
for journal in results/search/{ml-1m,amazon}*.journal; do journals+=(--journal "$journal"); done
.venv/bin/comet-rec reproduce table1 table2 table3 table4 table5 figure3 figure4 figure5 figure6 beyond ablation \
  falsification falsification-best reliability --budget full --seeds 3 --recorded --quiet \
  --data "ml-1m=$one" --data "amazon-beauty=$two" --data "amazon-cds=$three" --data amazon-movies \
  "${journals[@]}" --out "$out"
rm -f docs/_static/full-*.svg
bash runs/keep-report.sh "$out" full reproduction "bash runs/report-full.sh ML-1M-LOG AMAZON-BEAUTY-LOG AMAZON-CDS-LOG"

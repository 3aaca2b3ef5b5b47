#!/usr/bin/env bash
# Budget full, as far as time allows: bash runs/reproduce-full.sh ML-1M-LOG CDS-LOG PART…
# → results/reproduce/full.json and records; trainings recorded there are not repeated. Two of these at
# once, each with parts of its own and another FOLDER in the environment, use two cores better than one.
set -euo pipefail
one=$(realpath "$1") two=$(realpath "$2")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${FOLDER:-runs/local/reproduce-full}
mkdir -p "$out/records" results/reproduce/records
cp -rn results/reproduce/records/. "$out/records/"
keep() { cp -rn "$out/records/." results/reproduce/records/; }
trap keep EXIT
.venv/bin/comet-rec reproduce "$@" --budget full --data "ml-1m=$one" --data "amazon-cds=$two" \
  --journal results/search/ml-1m-histories.journal --out "$out"
bash runs/keep-report.sh "$out" full "bash runs/reproduce-full.sh ML-1M-LOG CDS-LOG $*"

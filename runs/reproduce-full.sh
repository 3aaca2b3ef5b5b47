#!/usr/bin/env bash
# Budget full, as far as time allows: bash runs/reproduce-full.sh ML-1M-LOG AMAZON-BEAUTY-LOG AMAZON-CDS-LOG
# PART… [--only MODEL…]
# → results/reproduce/full.json and records; trainings recorded there are not repeated. With a FOLDER in
# the environment only the records are kept: two of these at once, each with a folder and parts of its
# own, use two cores better than one; a last one without FOLDER then writes the report of all parts.
set -euo pipefail
one=$(realpath "$1") two=$(realpath "$2") three=$(realpath "$3")
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${FOLDER:-runs/local/reproduce-full}
mkdir -p "$out/records" results/reproduce/records
.venv/bin/python runs/records.py merge results/reproduce/records "$out/records"
keep() { .venv/bin/python runs/records.py merge "$out/records" results/reproduce/records; }
trap keep EXIT
journals=()
for journal in results/search/{ml-1m,amazon}*.journal; do journals+=(--journal "$journal"); done
.venv/bin/comet-rec reproduce "$@" --budget full --data "ml-1m=$one" --data "amazon-beauty=$two" --data "amazon-cds=$three" \
  "${journals[@]}" --out "$out"
[[ -n ${FOLDER:-} ]] || bash runs/keep-report.sh "$out" full reproduction "bash runs/reproduce-full.sh ML-1M-LOG AMAZON-BEAUTY-LOG AMAZON-CDS-LOG $*"

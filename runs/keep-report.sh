#!/usr/bin/env bash
# Keep a report: keep-report.sh FOLDER NAME COMMAND → results/reproduce/NAME.json, docs/_static/NAME-*.svg
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p results/reproduce
cp "$1/report.json" "results/reproduce/$2.json"
.venv/bin/python runs/annotate.py "results/reproduce/$2.json" \
  --title "COMET reproduced, budget $2" --command "$3"
shopt -s nullglob
for figure in "$1"/*.svg; do
  cp "$figure" "docs/_static/$2-$(basename "$figure")"
done
.venv/bin/python docs/figures.py

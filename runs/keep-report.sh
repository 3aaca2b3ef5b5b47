#!/usr/bin/env bash
# Keep a report: keep-report.sh FOLDER NAME PAGE COMMAND → results/reproduce/NAME.json, docs/PAGE.md, docs/_static/NAME-*.svg
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p results/reproduce
cp "$1/report.json" "results/reproduce/$2.json"
.venv/bin/python runs/annotate.py "results/reproduce/$2.json" \
  --title "COMET reproduced, budget $2" --command "$4"
shopt -s nullglob
for figure in "$1"/*.svg; do
  cp "$figure" "docs/_static/$2-$(basename "$figure")"
done
# The report is the page; only its pictures lie in another folder.
sed "s|^\(!\[.*\](\)\([^)]*\.svg)\)$|\1_static/$2-\2|" "$1/report.md" > "docs/$3.md"
.venv/bin/python docs/figures.py

#!/usr/bin/env bash
# Split by time (quantile .9, every later row in turn) of MovieLens-100K and latest-small, one seed:
#   bash runs/time-split.sh ML-LATEST-SMALL → results/time-split-ml-100k.json, …-ml-latest-small.json
# The log of latest-small is a file with the columns user_id, item_id and timestamp. The validation
# items chose the days of the popularity: of 1, 3, 7, 14, 30, 90, 365 and 1,000.
set -euo pipefail
latest=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-.venv/bin}
compare() {  # log, name of the result, title, days
  local out=results/time-split-$2.json
  "$bin/comet-rec" compare "$1" --split time=0.9,target=successive,validation=0.9 \
    --models comet,ease,fism,popularity,popularity-days --set "popularity-days:model.days=$4" --out "$out"
  "$bin/python" runs/annotate.py "$out" --title "$3, split by time, default settings" \
    --command "bash runs/time-split.sh ML-LATEST-SMALL"
}
compare ml-100k ml-100k "MovieLens-100K" 30
compare "$latest" ml-latest-small "MovieLens latest-small" 365

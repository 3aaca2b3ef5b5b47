#!/usr/bin/env bash
# Split by time (quantile .9), full and sampled ranking, three training seeds:
#   bash runs/time-split.sh ML-LATEST-SMALL ML-1M-RATINGS → results/time-split-*.json
# ML-LATEST-SMALL has the columns user_id, item_id and timestamp; ML-1M-RATINGS holds the first
# 487,650 rows of ratings.dat. On the two small logs each later row is a test item in turn; on
# MovieLens-1M only each user's last one is, as in the published figures. The validation items of
# the small logs chose the days of the popularity, of 1, 3, 7, 14, 30, 90, 365 and 1,000;
# MovieLens-1M has those of MovieLens-100K.
set -euo pipefail
latest=$(realpath "$1") ratings=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-.venv/bin}
seeds=${SEEDS:-0 1 2}
compare() {  # log, name of the result, title, target, days, options of the log
  local log=$1 name=$2 title=$3 target=$4 days=$5 parts=()
  shift 5
  mkdir -p runs/local
  for seed in $seeds; do
    parts+=("runs/local/time-split-$name-$seed.json")
    "$bin/comet-rec" compare "$log" --split "time=0.9,target=$target,validation=0.9" --seed "$seed" "$@" \
      --models comet,sasrec,ease,popularity,popularity-days --set "popularity-days:model.days=$days" \
      --out "${parts[-1]}"
  done
  "$bin/python" runs/means.py "${parts[@]}" --title "$title" --out "results/time-split-$name.json" \
    --command "bash runs/time-split.sh ML-LATEST-SMALL ML-1M-RATINGS"
}
compare ml-100k ml-100k "MovieLens-100K" successive 30
compare "$latest" ml-latest-small "MovieLens latest-small" successive 365
compare "$ratings" ml-1m-dated "MovieLens-1M, its first 487,650 rows" last 30

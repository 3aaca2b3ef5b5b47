#!/usr/bin/env bash
# From nothing to a list of films: fetch MovieLens-100K, train COMET, recommend to one user.
# Run by `make demo`, which puts the project's own `comet-rec` on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

run=runs/local/demo
rm -rf "$run"
mkdir -p runs/local

comet-rec data fetch ml-100k
comet-rec train ml-100k --out "$run" --seed 0
comet-rec recommend "$run" --user 196 -k 10

#!/usr/bin/env bash
# The service and its page on MovieLens-100K, after `make demo`: COMET beside EASE.
# Run by `make serve-demo`, which puts the project's own `comet-rec` on the PATH.
# PORT=8001 chooses another port.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

comet=runs/local/demo
ease=runs/local/demo-ease
if [ ! -d "$comet" ]; then
  echo "run 'make demo' first: it trains the model that is shown" >&2
  exit 2
fi
if [ ! -d "$ease" ]; then
  comet-rec train ml-100k --model ease --out "$ease" --quiet
fi
exec comet-rec serve "$comet" --compare "$ease" --port "${PORT:-8000}" --open --quiet

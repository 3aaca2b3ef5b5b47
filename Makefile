# `make setup` once; every other target does it when pyproject.toml or constraints.txt changed.
# PYTHON=python3.12 chooses the interpreter. PIP_ARGS="--extra-index-url …" goes to pip: it names the
# index of torch's CPU build, which torch's installation page shows.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.stamp
PEERS := .venv-peers
DIST := .venv-dist

.PHONY: setup demo test slow lint bench bench-peers docs check dist check-dist
.DEFAULT_GOAL := check

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "comet-rec needs Python 3.11 or newer as $(PYTHON); try: make setup PYTHON=python3.12" >&2; \
	  exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade "pip>=25.1"
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt \
	  -e ".[ann,export,mlflow,plot,tensorboard,tune]" --group test --group lint --group docs --group dist
	touch $@

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# A process a core, each with one thread: faster than one process with a thread a core.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $(ARGS)

slow: $(STAMP)
	$(BIN)/pytest -m slow $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
	  .github/ISSUE_TEMPLATE/fault.yml .github/ISSUE_TEMPLATE/wish.yml

bench: $(STAMP)
	$(BIN)/python benchmarks/throughput.py $(ARGS)

# Other libraries, in an environment of their own.
bench-peers: $(STAMP) $(PEERS)/.stamp
	$(BIN)/python benchmarks/peers.py $(ARGS)

$(PEERS)/.stamp: benchmarks/peers-requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --upgrade "pip>=25.1"
	$(PEERS)/bin/python -m pip install $(PIP_ARGS) -r benchmarks/peers-requirements.txt
	touch $@

docs: $(STAMP)
	$(BIN)/python docs/paper_to_code.py
	$(BIN)/python docs/figures.py
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

check: lint test docs

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build

# The wheel in an environment of its own, away from the sources: does it train and recommend?
check-dist: dist
	rm -rf $(DIST)
	$(PYTHON) -m venv $(DIST)
	$(DIST)/bin/python -m pip install --upgrade "pip>=25.1"
	$(DIST)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt dist/*.whl
	cd $(DIST) && bin/comet-rec train ../examples/shop.csv --user customer --item product \
	  --time bought_on --all --out run && bin/comet-rec recommend run --user ada -k 3

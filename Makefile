# `make setup` once; every other target does it when pyproject.toml or constraints.txt changed.
# PYTHON=python3.12 chooses the interpreter. PIP_ARGS="--extra-index-url …" goes to pip: it names the
# index of torch's CPU build, which torch's installation page shows.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.stamp
PEERS := .venv-peers
DIST := .venv-dist
SUPPLY := .venv-supply

.PHONY: setup demo serve-demo test slow verify fuzz mutants lint bench bench-peers docs check dist check-dist supply image check-image
.DEFAULT_GOAL := check

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "comet-rec needs Python 3.11 or newer as $(PYTHON); try: make setup PYTHON=python3.12" >&2; \
	  exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade "pip>=25.1"
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt \
	  -e ".[ann,export,mlflow,plot,serve,tensorboard,tune]" --group test --group lint --group docs --group dist
	touch $@

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# The page of the service, on what `make demo` trained.
serve-demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/serve-demo.sh

# Compiled code is kept, also where the environment says otherwise: else each of the many processes
# of the tests would compile it anew.
test slow verify: export PYTHONDONTWRITEBYTECODE :=

# A process a core, each with one thread: faster than one process with a thread a core.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $(ARGS)

slow: $(STAMP)
	$(BIN)/pytest -m slow $(ARGS)

# The fast tests with each fast computation repeated by its slow form, and with slow forms alone.
verify: $(STAMP)
	COMET_VERIFY=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $(ARGS)
	COMET_SLOW=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal \
	  tests/models tests/training tests/evaluation tests/retrieval tests/estimators $(ARGS)

# Damaged inputs of every kind, N of each; what fails is kept in fuzz-found/.
N ?= 10000
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.reliability.fuzz --tries $(N) \
	  --seed $$(date +%s) $(ARGS)

# Small faults in the code that tests must find; it goes on where it was stopped.
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt --group mutation
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.reliability.mutants \
	  --out results/reliability/mutants.json $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
	  .github/ISSUE_TEMPLATE/fault.yml .github/ISSUE_TEMPLATE/wish.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec examples/compose.yml
	$(BIN)/hadolint Dockerfile

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

# What the wheel brings along: requirements with digests and a bill of materials beside it in dist/,
# and a search for known vulnerabilities, which needs the internet.
supply: dist $(SUPPLY)/.stamp
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed $(PIP_ARGS) -c constraints.txt \
	  --report dist/report.json dist/*.whl
	$(BIN)/python .ci/hashed_requirements.py dist/report.json > dist/requirements.txt
	rm dist/report.json
	$(SUPPLY)/bin/cyclonedx-py requirements dist/requirements.txt --pyproject pyproject.toml \
	  --output-format JSON --output-file dist/comet-rec.cdx.json
	$(SUPPLY)/bin/pip-audit --strict --disable-pip --requirement dist/requirements.txt || { \
	  echo "make supply: vulnerable, or not audited; dist/ has the other files" >&2; exit 1; }

$(SUPPLY)/.stamp:
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --upgrade "pip>=25.1"
	$(SUPPLY)/bin/python -m pip install $(PIP_ARGS) cyclonedx-bom==7.5.0 pip-audit==2.10.1
	touch $@

image:
	docker build --pull --build-arg PIP_ARGS="$(PIP_ARGS)" --tag comet-rec .

# Does the image train, serve and stop? The volume and the container are those of this check alone.
check-image: image
	-docker rm --force comet-rec-check
	-docker volume rm --force comet-rec-check
	docker run --rm --volume comet-rec-check:/runs --volume "$(CURDIR)/examples:/examples:ro" \
	  comet-rec train /examples/shop.csv --user customer --item product --time bought_on \
	  --all --out shop
	docker run --detach --name comet-rec-check --read-only --tmpfs /tmp --cap-drop ALL \
	  --volume comet-rec-check:/runs:ro comet-rec serve /runs/shop --host 0.0.0.0
	timeout 120 sh -c 'until docker inspect --format "{{.State.Health.Status}}" comet-rec-check \
	  | grep -qx healthy; do sleep 1; done'
	docker stop -t 20 comet-rec-check
	docker inspect --format "{{.State.ExitCode}}" comet-rec-check | grep -qx 0
	docker rm comet-rec-check
	docker volume rm comet-rec-check

# make run    an answer from a fresh clone        make test   everything that is checked
# make serve  the page to try models on, at http://localhost:9001
# make setup  the environment alone               make check  lint, and the quick tests of what a change touches
# make bench  figures into benchmarks/results/    make lint   style, types, import directions, known weaknesses
# make docs   what is generated in docs/ and README.md
PYTHON ?= python3
VENV := .venv
# Which build of PyTorch: cpu takes the one without GPU packages, from PyTorch's index https://download.pytorch.org/whl/cpu; default what pip finds.
TORCH ?= $(or $(shell cat $(VENV)/torch 2>/dev/null),cpu)
BIN := $(VENV)/bin

# Any Python 3 can read it, so that an old one says what is wrong instead of pip.
define CHECK_PYTHON
import sys
found, oldest = sys.version_info[:3], (3, 11)
if found < oldest:
    sys.exit("florence2 needs Python %d.%d or newer, and $(PYTHON) is %d.%d.%d. Name another one: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" % (oldest + found))
endef
export CHECK_PYTHON

.PHONY: setup run serve test check lint bench demo docs dist environments constraints clean

setup: $(VENV)/all-$(TORCH).installed

# Two stamps: running needs no test tools, so a first answer does not wait for them.
$(VENV)/all-$(TORCH).installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@$(BIN)/python -c "$$CHECK_PYTHON" 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@rm -f $(VENV)/*.installed
	$(BIN)/python .ci/torch_build.py $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@echo $(TORCH) > $(VENV)/torch
	touch $@

$(VENV)/dev-$(TORCH).installed: $(VENV)/all-$(TORCH).installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

run: setup
	$(BIN)/python examples/run.py

# Ctrl-C ends it.
serve: setup
	$(BIN)/florence2 serve

# The client that users have today, in an environment of its own: its pins clash with ours. A browser, for the page. PostgreSQL and Redis, for keys.
test: $(VENV)/dev-$(TORCH).installed
	$(BIN)/python -m tests.compatibility.install
	$(BIN)/python -m tests.playground.install
	$(BIN)/python -m tests.server.accounts.install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

# While a change is written: style, import directions, the types of its files, and the quick tests of the rooms that it touches.
check: $(VENV)/dev-$(TORCH).installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@files=$$($(BIN)/python -m tests.changed --files) && { test -z "$$files" || $(BIN)/pyright $$files; }
	@tests=$$($(BIN)/python -m tests.changed) && { test -z "$$tests" || $(BIN)/python -m pytest -m 'not slow' --numprocesses auto --maxprocesses 4 $$tests; }

lint: $(VENV)/dev-$(TORCH).installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src .ci
	$(BIN)/python .ci/deploy.py
	$(BIN)/python .ci/audit.py

bench: $(VENV)/dev-$(TORCH).installed
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.roofline
	$(BIN)/python -m benchmarks.precisions
	$(BIN)/python -m benchmarks.precision_logits
	$(BIN)/python -m benchmarks.parity_full
	$(BIN)/python -m benchmarks.demo_accuracy
	$(BIN)/python -m benchmarks.fine_tune
	$(BIN)/python -m benchmarks.http
	$(BIN)/python -m benchmarks.streaming
	$(BIN)/python -m benchmarks.load_test
	$(BIN)/python -m benchmarks.neighbours
	$(BIN)/python -m benchmarks.tiles
	$(BIN)/python -m benchmarks.label
	$(BIN)/python -m benchmarks.label_kill
	$(BIN)/python -m benchmarks.engine_process
	$(BIN)/python -m benchmarks.engine_kill
	$(BIN)/python -m benchmarks.soak --minutes 10
	$(BIN)/python -m benchmarks.hang_ups
	$(BIN)/python -m benchmarks.drain
	$(BIN)/python -m benchmarks.cluster_ingress
	$(BIN)/python -m benchmarks.cluster_bound
	$(BIN)/python -m benchmarks.cluster_scaling
	$(BIN)/python -m benchmarks.cluster_failures
	$(BIN)/python -m benchmarks.cluster_zero
	$(BIN)/python -m benchmarks.cluster_update
	$(BIN)/python -m benchmarks.cluster_routing
	$(BIN)/python -m benchmarks.cluster_label

# Trains florence-2-demo in runs/demo, or goes on with it; large tensors stay mapped between steps. MIXED=--mixed: see decision 0008.
demo: setup
	MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000 $(BIN)/python -m florence2.training.demo $(MIXED)

docs: $(VENV)/dev-$(TORCH).installed
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/screenshots.py
	$(BIN)/python -m docs.notebooks
	$(BIN)/python -m docs.generate

# What is uploaded, checked: the source archive, a wheel for every system, and with compilers wheels with compiled routines: decision 0023.
dist: $(VENV)/dev-$(TORCH).installed
	rm -rf dist
	FLORENCE2_NATIVE_BUILD=0 $(BIN)/uv build --quiet --out-dir dist .
	$(BIN)/uv build --quiet --wheel --out-dir dist .
	@for machine in aarch64 x86_64; do if command -v $$machine-linux-gnu-g++ > /dev/null && test $$machine != $$(uname -m); then \
		FLORENCE2_NATIVE_BUILD=$$machine $(BIN)/uv build --quiet --wheel --out-dir dist . || exit 1; fi; done
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/check-wheel-contents dist/*.whl
	@grep -q '^repository = ""' pyproject.toml && echo 'dist/ has no URLs: before it is published, set "repository" in pyproject.toml' || true

# The wheel in fresh environments: at the lowest versions, and without a compiler. All: ENVIRONMENTS='lowest pinned newest no-compiler --keep'.
ENVIRONMENTS ?= lowest
environments: dist
	$(BIN)/python -m tests.environments $(ENVIRONMENTS) --wheel dist

# The newest versions of everything, for every system; torch stays at the version that it has there. Commit it once the tests pass.
constraints: $(VENV)/dev-$(TORCH).installed
	grep '^torch==' constraints.txt > $(VENV)/torch-pin.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--constraint $(VENV)/torch-pin.txt --no-annotate --no-header --output-file constraints.txt

clean:
	rm -rf $(VENV) .venv-sdk build dist examples/out examples/out-*

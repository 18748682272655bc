# make run    an answer from a fresh clone        make test   everything that is checked
# make setup  the environment alone               make lint   style, types, import directions
# make bench  figures into benchmarks/results/    make docs   what is generated in docs/ and README.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Any Python 3 can read it, so that an old one says what is wrong instead of pip.
define CHECK_PYTHON
import sys
found, oldest = sys.version_info[:3], (3, 11)
if found < oldest:
    sys.exit("florence2 needs Python %d.%d or newer, and $(PYTHON) is %d.%d.%d. Name another one: make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" % (oldest + found))
endef
export CHECK_PYTHON

.PHONY: setup run test lint bench demo docs clean

setup: $(VENV)/all.installed

# Two stamps: running needs no test tools, so a first answer does not wait for them.
$(VENV)/all.installed: pyproject.toml
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@$(BIN)/python -c "$$CHECK_PYTHON" 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

$(VENV)/dev.installed: $(VENV)/all.installed
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	touch $@

run: setup
	$(BIN)/python examples/run.py

# The client that users have today, in an environment of its own: its pins clash with ours.
test: $(VENV)/dev.installed
	$(BIN)/python -m tests.compatibility.install
	$(BIN)/python -m pytest

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/dev.installed
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.roofline
	$(BIN)/python -m benchmarks.precisions
	$(BIN)/python -m benchmarks.parity_full
	$(BIN)/python -m benchmarks.demo_accuracy
	$(BIN)/python -m benchmarks.fine_tune
	$(BIN)/python -m benchmarks.http
	$(BIN)/python -m benchmarks.neighbours

# Trains florence-2-demo in runs/demo, or goes on with it; large tensors stay mapped between steps. MIXED=--mixed: see decision 0008.
demo: setup
	MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000 $(BIN)/python -m florence2.training.demo $(MIXED)

docs: $(VENV)/dev.installed
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) .venv-sdk build dist examples/out examples/out-*

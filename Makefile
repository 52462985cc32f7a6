# Two commands do everything: `make serve` and `make test`. Both build .venv first, and again when pyproject.toml changed.

# Debian's own Python where it is new enough: it is built with profile-guided optimization, which is worth about a fifth of
# the speed beside an interpreter compiled without (pyenv's default). Another one: make PYTHON=python3.13 ...
SYSTEM_PYTHON := $(shell /usr/bin/python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
                   2>/dev/null && echo /usr/bin/python3)
PYTHON ?= $(or $(SYSTEM_PYTHON),python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help serve test test-full lint check bench bench-full bench-plots fuzz fuzz-full peers peers-full wheel clean

help:
	@echo "make serve       install into .venv and start the scanner on its defaults (ARGS='--listen 0.0.0.0:1344')"
	@echo "make test        format, lint, types, import contract and all tests (PYTEST_ARGS='-k codings')"
	@echo "make test-full   the same with the heavy tests"
	@echo "make bench       a benchmark beside its peers, under 10 minutes; bench-full: the long one, more than an hour"
	@echo "make bench-plots the pictures of docs/benchmarks.md from results (FILES='benchmarks/results/TIME.json ...')"
	@echo "make fuzz        fuzz every decoder for 20 s each (ARGS='zip tar --seconds 60'); fuzz-full: 30 minutes each"
	@echo "make lint        format, lint, types and import contract only"
	@echo "make clean       remove .venv, caches and build results"

# --- environments ------------------------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "icapscan needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@

# Debian's packages of the real peers, as root; then the foreign client that is built against one of them.
peers: $(VENV)/.installed-dev
	@.ci/peers $(BIN)/python

peers-full: $(VENV)/.installed-dev
	@.ci/peers $(BIN)/python full

# --- run ---------------------------------------------------------------------------------------------------------------

serve: $(VENV)/.installed
	$(BIN)/icapscan serve $(ARGS)

# --- check -------------------------------------------------------------------------------------------------------------

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

test: peers lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not full" $(PYTEST_ARGS)

test-full: peers-full lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

bench: peers
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-full: peers
	$(BIN)/python -m benchmarks.run --full $(ARGS)

bench-plots: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.plots $(FILES)

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz.run $(ARGS)

fuzz-full: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz.run --seconds 1800 $(ARGS)

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache benchmarks/build
	find icapscan tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

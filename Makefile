# Everything a newcomer needs: `make demo` and `make test`. PIP_ARGS reaches pip.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STORE ?= store
# One thread a process: trials fill the cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test lint docs format clean

help:
	@echo "make demo    set up, then run a real sweep on the embedded data set"
	@echo "make test    set up, then run the whole test suite"
	@echo "make lint    ruff, mypy, import contracts, and docs in step with the code"
	@echo "make docs    regenerate results/README.md and the tables of README.md"
	@echo "make format  format the code"
	@echo "make clean   remove $(VENV)"

demo: $(VENV)/.installed
	$(BIN)/sweeps run demo --store $(STORE)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/docs.py --check

docs: $(VENV)/.installed-dev
	$(BIN)/python .ci/docs.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; give PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

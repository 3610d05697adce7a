# Everything a newcomer needs: `make demo` and `make test`. PIP_ARGS reaches pip.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STORE ?= store
# One thread a process: trials fill the cores.
export OMP_NUM_THREADS ?= 1

# BENCH_ARGS reaches the benchmarks: names, --device, --repeats, --data.
BENCH_ARGS ?=

# Tests of one file stay together: they share what is dear to make. The heavy ones come first.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# How often `make chaos` kills, and the seed of its instants.
CHAOS_KILLS ?= 100
CHAOS_SEED ?= 0

.PHONY: help demo test test-long cluster-test chaos bench bench-gpu lint docs format clean

help:
	@echo "make demo    set up, then run a real sweep on the embedded data set"
	@echo "make test    set up, then run the test suite, the long tests aside"
	@echo "make test-long  set up, then run the long tests: up to an hour"
	@echo "make cluster-test  set up, then run all tests of clusters, the long ones too: an hour"
	@echo "make chaos   set up, then kill a sweep's processes a hundred times and compare its rows"
	@echo "make bench   set up, then measure all but whole sweeps on CIFAKE and add rows to results/benchmarks"
	@echo "make bench BENCH_ARGS=sweeps  whole sweeps against plain Ray Tune: some four hours"
	@echo "make bench-gpu  the same for training on a GPU"
	@echo "make lint    ruff, mypy, import contracts, and docs in step with the code"
	@echo "make docs    regenerate results/README.md and the tables of README.md"
	@echo "make format  format the code"
	@echo "make clean   remove $(VENV)"

demo: $(VENV)/.installed
	$(BIN)/sweeps run demo --store $(STORE)

test: $(VENV)/.installed-dev $(VENV)/.chromium $(VENV)/.latex $(VENV)/.slurm $(VENV)/.sshd
	$(BIN)/python -m pytest -m "not long" $(PARALLEL)

test-long: $(VENV)/.installed-dev $(VENV)/.slurm $(VENV)/.sshd
	$(BIN)/python -m pytest -m long

cluster-test: $(VENV)/.installed-dev $(VENV)/.slurm $(VENV)/.sshd
	$(BIN)/python -m pytest tests/cluster

chaos: $(VENV)/.installed-dev
	CHAOS_KILLS=$(CHAOS_KILLS) CHAOS_SEED=$(CHAOS_SEED) $(BIN)/python -m pytest -s tests/sweeps/test_chaos.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

bench-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m tests.benchmarks training --device cuda $(BENCH_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases -p tests.benchmarks
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

# What drives the report's page; who is not root, or has no apt, is told, and those tests are skipped.
$(VENV)/.chromium: | $(VENV)/bin/python
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  apt-get install -y -qq chromium; } >/dev/null 2>&1 || \
	  echo "no chromium: tests of the page in a browser are skipped; apt-get install chromium"
	@touch $@

# What compiles the report's tables, in the same way.
$(VENV)/.latex: | $(VENV)/bin/python
	@command -v pdflatex >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends texlive-latex-recommended; } >/dev/null 2>&1 || \
	  echo "no LaTeX: tests that compile tables are skipped; apt-get install texlive-latex-recommended"
	@touch $@

# A Slurm for its launcher, in the same way; what belongs to root is not on every PATH.
$(VENV)/.slurm: | $(VENV)/bin/python
	@test -x /usr/sbin/slurmctld || { test "$$(id -u)" = 0 && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends slurmctld slurmd munge; } >/dev/null 2>&1 || \
	  echo "no Slurm: tests of its jobs are skipped; apt-get install slurmctld slurmd munge"
	@touch $@

# Machines to be reached by ssh, which are namespaces of this one, in the same way.
$(VENV)/.sshd: | $(VENV)/bin/python
	@{ test -x /usr/sbin/sshd && command -v ip && command -v rsync; } >/dev/null || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends openssh-server openssh-client iproute2 \
	  procps rsync; } >/dev/null 2>&1 || \
	  echo "no sshd, ip or rsync: tests of clusters by ssh or in a cloud are skipped;" \
	  "apt-get install openssh-server iproute2 rsync"
	@touch $@

# `make reproduce` and `make test` are the two commands of the README; `make help` lists all.
PROFILE ?= demo
STUDY ?= core
CLUSTER ?=
CORES ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install reproduce test bench lab docs lint notebooks clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo 'Python 3.11 or newer is needed: make PYTHON=python3.11 ...' && exit 1)
	@$(PYTHON) tools/install.py $(VENV) dev
	@touch $@

install: $(VENV)/.installed ## make .venv with the exact versions

reproduce: $(VENV)/.installed ## run the study: PROFILE=demo (default), eyepacs_mini, idrid_mini, paper; STUDY=core (default), all; CORES=n; CLUSTER=cluster/slurm
	@$(BIN)/drstudy reproduce --profile $(PROFILE) --study $(STUDY) $(if $(CLUSTER),--cluster $(CLUSTER),--cores $(CORES))

test: $(VENV)/.installed ## all tests, the notebooks included; then the fast ones as an AVX2 processor
	@$(BIN)/python -m pytest -n 2 --dist loadscope tests
	@$(BIN)/python tests/run_nbval.py
	@$(BIN)/python tests/processors.py --if-possible avx2

bench: $(VENV)/.installed ## measure every claim of speed, side by side with what people use today: BENCH="--quick", or script names
	@$(PYTHON) tools/install.py $(VENV) dev,bench
	@$(BIN)/python benchmarks/run_all.py $(BENCH)

lab: $(VENV)/.installed ## open the notebooks in JupyterLab, at their list of contents
	@$(BIN)/drstudy lab

docs: $(VENV)/.installed ## the pages and the executed notebooks as one site in build/site; no notebook runs again
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . build/site
	@echo 'open build/site/README.html'

notebooks: $(VENV)/.installed ## execute all notebooks, keep their outputs, measure the expected numbers (for maintainers)
	@$(BIN)/python tests/execute_notebooks.py
	@$(BIN)/python tests/expectations.py

lint: $(VENV)/.installed ## style and notebook structure
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python -m pytest -q tests/notebooks/test_structure.py

clean: ## remove results, stores (images, features, trained models), the phantom and caches of this clone, not data sets
	rm -rf results data/phantom data/images data/features data/models .pytest_cache .ruff_cache

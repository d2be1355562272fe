# `make quickstart` and `make test` install what they need into .venv, once. A second run installs
# nothing and needs no network. After an edit of requirements.txt, of packaging/detectron2 or of
# pyproject.toml only that step is installed again.
#
#   make PYTHON=python3.12 setup        another Python
#   make test ARGS="-k mask_iou -x"     arguments for pytest (or for scripts/quickstart.py)
#   make test JOBS=0 ARGS=--pdb         in one process; JOBS=8 on a large machine

PYTHON ?= python3
ARGS ?=
JOBS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# A stamp is written after its step has succeeded, so an interrupted install is taken up again.
STAMPS := $(VENV)/.stamps

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv setup quickstart test test-slow lint format clean distclean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

venv: $(STAMPS)/venv  ## Make an empty virtual environment in .venv

setup: $(STAMPS)/msr_d2  ## Install torch, a pure-Python detectron2 and this package into .venv

quickstart: setup  ## Generate the shapes, train Mask Scoring R-CNN on the CPU, evaluate, draw
	$(PY) scripts/quickstart.py $(ARGS)

test: setup  ## Run the tests
	$(PY) -m pytest -n $(JOBS) --durations=15 $(ARGS)

test-slow: setup  ## Run the slow tests too (they may need the network)
	$(PY) -m pytest -n $(JOBS) -m "not gpu" --durations=15 $(ARGS)

lint: setup  ## Check style and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: setup  ## Fix style and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## Remove caches and build products; keeps .venv, datasets and output
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## The same, and remove .venv
	rm -rf $(VENV)

# The steps of the installation. `|`: in this order, but one does not make the next one run again.

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "torch 2.11 needs Python 3.10 \
	or newer, and $(PYTHON) is " + sys.version.split()[0] + ": choose one by make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(@D) && touch $@

$(STAMPS)/requirements: requirements.txt | $(STAMPS)/venv
	$(PIP) install -r requirements.txt
	@touch $@

$(STAMPS)/detectron2: $(wildcard packaging/detectron2/pyproject.toml packaging/detectron2/*/*.py)
$(STAMPS)/detectron2: | $(STAMPS)/requirements
	$(PIP) install --constraint requirements.txt ./packaging/detectron2
	@touch $@

$(STAMPS)/msr_d2: pyproject.toml setup.py | $(STAMPS)/detectron2
	$(PIP) install --constraint requirements.txt --editable '.[dev]'
	@touch $@

# Targets for people: demo and test set everything up by themselves. `make` lists them all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
# Package index of the torch build to take: the CPU one or a CUDA one of PyTorch's install page.
# Empty takes pip's default, which on Linux may bring gigabytes of CUDA packages.
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format types pytest test-slow test-realtime test-gpu test-ray clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(STAMP) ## create .venv and install the project with everything it can use

# The stamp is younger than the files that say what to install, or the installation runs again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "onebeat needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo absent)." \
	    "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot create virtual environments: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing into $(VENV), 2 GB: a minute or two with a fast connection"
	@test -z "$(TORCH_INDEX)" || $(PIP) --extra-index-url "$(TORCH_INDEX)" torch
	@$(PIP) -e '.[all,dev]'
	@touch $@

demo: setup ## data, training, serving, a run in real time, fine-tuning, report
	@$(BIN)/onebeat demo

test: lint types pytest ## what must pass before anything is merged

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## apply ruff's fixes and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: setup ## mypy --strict over the packages
	@$(BIN)/mypy

pytest: setup ## the tests of the default suite, in two processes
	@$(BIN)/pytest -q -n 2

test-slow: setup ## tests that take minutes
	@$(BIN)/pytest -q -m slow

test-realtime: setup ## tests of this machine's punctuality; leave it idle meanwhile
	@$(BIN)/pytest -q -m realtime

test-gpu: setup ## tests that need CUDA
	@$(BIN)/pytest -q -m gpu

test-ray: setup ## tests that start a Ray on this machine
	@$(BIN)/pytest -q -m ray

clean: ## remove the environment and caches; runs stay
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find controller sim policies tests -name __pycache__ -prune -exec rm -rf {} +

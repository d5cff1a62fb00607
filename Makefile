# Needs Python >= 3.11, make and a package index; everything else is installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
# Further words for pip, e.g. PIP_ARGS="--index-url https://...": see "Installing" in CONTRIBUTING.md.
PIP_ARGS ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test test-slow lint format docs install clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: install  ## install, then let a model live its whole life: about 4 minutes on 2 cores
	$(BIN)/alignlab experiment=lifecycle

# The tests' tensors are tiny: more threads than one only wait for each other.
test test-slow: export OMP_NUM_THREADS ?= 1

test: install  ## install, then the tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not gpu"

test-slow: install  ## the tests that take minutes
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow and not gpu"

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy alignlab plugins

format: install  ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## write docs/config.md and docs/metrics.md again
	$(BIN)/python docs/reference.py

VERDICTS := $(BIN)/alignlab verify --json .alignlab
verified: install  ## train every method to its end, and write docs/verified.md again
	mkdir -p .alignlab
	$(VERDICTS)/all.json --all
	for one in objective=truncated_importance stage=cispo stage=dapo stage=dr_grpo stage=gspo; do \
		$(VERDICTS)/with-$$one.json $$one advantage=kl_in_reward || exit 1; done
	$(BIN)/python docs/verified.py .alignlab/all.json .alignlab/with-*.json

install: $(STAMP)  ## a virtual environment in .venv with the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "alignlab needs Python >= 3.11, and '$(PYTHON)' is older; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) --constraint constraints.txt --editable ".[dev]"
	@touch $@

clean:  ## remove the environment and all caches; runs and .alignlab stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

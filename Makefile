# The two commands of the README, and the one that CI runs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: quickstart test check lint format sandbox clean

quickstart: $(VENV)/train.stamp sandbox  ## Set up, then train the calculator policy.
	$(BIN)/agentrl train tasks/calculator/train.yaml name=quickstart-$$(date +%Y%m%d-%H%M%S)

test: $(VENV)/dev.stamp sandbox  ## Set up, then run every test.
	$(BIN)/python -m pytest

check: lint test  ## What CI runs.

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sandbox:
	@.ci/sandbox

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/train.stamp: pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	@echo "installing agentrl with torch, transformers and the Docker client into $(VENV)"
	$(PIP) -e '.[train,docker]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/train.stamp
	@echo "installing the test tools into $(VENV)"
	$(PIP) -e '.[train,docker,server,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

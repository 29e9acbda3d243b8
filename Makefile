# Every command that people and CI use. Each target makes .venv by itself; nothing is activated.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell scripts/find-python)
ARGS ?=
# Tests wait more than they work; what needs the machine to itself says so (the marker `alone`).
EVERY_TEST := --numprocesses 3 --dist loadfile
MUTANT ?=

.PHONY: help demo up test check fix faults mutants bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## start everything, send 2,000 messages, print what became of them (ARGS="--messages 5000")
	@$(BIN)/pipeline demo $(ARGS)

up: $(STAMP) ## run every stage on this machine until Ctrl-C
	@$(BIN)/pipeline up $(ARGS)

test: $(STAMP) ## every test, about 10 minutes (ARGS="tests/unit -k accept": only these)
	@$(BIN)/pytest $(if $(ARGS),$(ARGS),$(EVERY_TEST))

check: $(STAMP) ## style, types, imports, catalogue, schemas against the released ones; edits nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python scripts/check_schemas.py
	@$(BIN)/pytest -q tests/test_architecture.py tests/unit/test_topology.py

fix: $(STAMP) ## format, and repair what can be repaired by itself
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

faults: $(STAMP) ## kill, stop and cut everything under load for 25 minutes (MUTANT=name plants a bug)
	@$(BIN)/python -m tests.faults.run $(if $(MUTANT),--mutant $(MUTANT)) $(ARGS)

mutants: $(STAMP) ## the bugs that `make faults MUTANT=name` can plant, and the guarantee each breaks
	@$(BIN)/python -m tests.faults.run --list-mutants

bench: $(STAMP) ## measure each stage against a bare loop
	@$(BIN)/python -m bench $(ARGS)

lock: $(STAMP) ## pin the newest versions that pyproject.toml allows, and the Java servers' jars
	@scripts/lock $(BIN)

clean: ## remove everything that these commands made here
	rm -rf $(VENV) build dist .pipeline .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml requirements/dev.txt requirements/uv.txt scripts/install
	@scripts/install "$(PYTHON)" $(VENV)
	@touch $@

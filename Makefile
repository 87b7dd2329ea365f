# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help install fmt check test test-fast verify demo constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## make .venv with everything in it

.venv/.installed: pyproject.toml constraints.txt scripts/install.py
	$(PYTHON) scripts/install.py

demo: install ## make a tiny model and data, fine-tune with LoRA, QLoRA and full, compare (three to four minutes on two cores)
	$(BIN)/python examples/demo/demo.py

test: install check ## run every test that this machine can run
	$(BIN)/python -m pytest -m ""

test-fast: install ## run the tests that take seconds
	$(BIN)/python -m pytest

check: install ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: install ## format and repair what can be repaired
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

verify: install ## regenerate what is generated; fails when anything differs
	$(BIN)/python scripts/generate.py
	git diff --exit-code

constraints: install ## write the installed versions into constraints.txt
	$(BIN)/python scripts/constraints.py

clean: ## remove what was made here
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis demo

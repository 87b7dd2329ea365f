# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
SMOKE := manifests gpu_scheduling disruption gang smoke
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help install fmt check test test-fast kind-smoke verify demo constraints images image-sbom clean

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

kind-smoke: install ## prove everything on a real cluster: two kind nodes, an S3 server, our images (needs docker, kind, kubectl, helm)
	$(BIN)/python -m pytest -m e2e $(SMOKE:%=tests/e2e/test_%.py)

verify: install ## regenerate what is generated; fails when anything differs
	$(BIN)/python scripts/generate.py
	git diff --exit-code

constraints: install ## write the installed versions into constraints.txt
	$(BIN)/python scripts/constraints.py

images: ## build the images for CPUs and for the gate; prints what each layer weighs (docs/images.md has the others)
	$(PYTHON) scripts/images.py build

image-sbom: ## write the images' bills of materials into dist/sbom
	$(PYTHON) scripts/images.py sbom

clean: ## remove what was made here
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis demo dist

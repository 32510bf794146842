# Every target sets up what it needs in .venv first; done once, that costs nothing (deploy/bootstrap.sh).

BIN := .venv/bin
# Two processes share the tests by file (tests/distribution.py), each beside an engine of its own: with one thread each
# they do not fight for cores.
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest --numprocesses 2 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup:
	@bash deploy/bootstrap.sh

demo: setup  ## Start a node, send briefs, tune, swap policies, roll back; writes demo/
	@$(BIN)/coloq demo

test: setup  ## Run the tests
	@$(PYTEST)

check: setup  ## Everything CI checks: format, lint, types, import layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

clean:  ## Remove .venv, caches and the demo's results; a node's data in .coloq stays
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find service agent trainer rewards tests -name __pycache__ -type d -prune -exec rm -rf {} +

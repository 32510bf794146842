# Every target sets up what it needs in .venv first; done once, that costs nothing (deploy/bootstrap.sh).

BIN := .venv/bin
# Tests run beside engines and trainers of their own: a bounded pool keeps them from fighting for cores.
TEST_ENV := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2}

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup:
	@bash deploy/bootstrap.sh

demo: setup  ## Start a node, send briefs, tune, swap policies, roll back; writes demo/
	@$(BIN)/coloq demo

test: setup  ## Run the tests
	@$(TEST_ENV) $(BIN)/pytest

check: setup  ## Everything CI checks: format, lint, types, import layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TEST_ENV) $(BIN)/pytest

clean:  ## Remove .venv, caches and the demo's results; a node's data in .coloq stays
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find service agent trainer rewards tests -name __pycache__ -type d -prune -exec rm -rf {} +

# `make help` lists what there is. Every target fills .venv by itself; the second time that takes no time.
PY := .venv/bin/python
BOOT := python3 infra/bootstrap.py
# Most tests wait: for leases, for processes, for engines. A file's tests stay together, they share what it started.
SPREAD := -n 3 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check fix bench fuzz clean

help: ## print this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## fill .venv from the hash-pinned locks (PENSTOCK_PROFILE=cpu|gpu|base to choose)
	@$(BOOT)

demo: setup ## run a file of real requests through broker, consumer and engine; leaves nothing running
	@$(PY) -m producer.demo

test: setup ## every test, against a real nats-server and a real vLLM
	@$(PY) -m pytest -q $(SPREAD)

test-fast: setup ## the tests that need neither vLLM nor minutes
	@$(PY) -m pytest -q $(SPREAD) -m "not engine and not chaos"

check: setup ## format, lint, types, import contracts
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/basedpyright --level error
	@.venv/bin/lint-imports --no-cache > .check.log || (cat .check.log; exit 1)

fix: setup ## format and mend what can be mended
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --fix --quiet .

bench: setup ## the quick benches; `penstock bench NAME` for one
	@.venv/bin/penstock bench throughput --quick

fuzz: setup ## 10,000 mutated bodies, and many requests of every route that /openapi.json describes
	@PENSTOCK_MUTATIONS=10000 PENSTOCK_FUZZ=60 $(PY) -m pytest -q tests/integration/gateway/test_mutations.py tests/integration/gateway/test_described.py

clean: ## remove what was built; keeps .venv
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis .check.log .penstock

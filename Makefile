# `make demo` shows it, `make test` proves it; both need Python 3.11 (to 3.13) and make, no more.
# `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first Python of a supported version; `make PYTHON=/path/to/python3.11 …` overrides it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	  && { echo "$$p"; break; }; done)
BIN := .venv/bin
OUT ?= out/demo
BENCH ?= --shapes smollm2-135m
GENERATED := README.md targets/README.md docs/reference/cli.md docs/performance.md docs/compression.md \
  docs/mil.md docs/targets/coreml.md docs/targets/qnn.md

.PHONY: help env demo check test bench lint types floors docs docs-check fast slow format models \
  transcript constraints clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

env: ## make or update .venv (nothing outside this folder; see .ci/setup_env.py)
	@test -n "$(PYTHON)" || { echo "error[environment]: no Python 3.11, 3.12 or 3.13 on PATH" >&2; \
	  echo "  next: install one, or say where it is: make PYTHON=/path/to/python3.11 env" >&2; exit 5; }
	@"$(PYTHON)" .ci/setup_env.py

demo: env ## build, verify, time and talk to the embedded model; writes a report
	@sh .ci/demo.sh "$(OUT)"

test: check slow ## everything that needs no vendor SDK, phone or network

check: env lint types floors docs-check fast ## what every change passes: style, types, floors, docs, fast tests

bench: env ## measure against llama.cpp (BENCH="--peers … --shapes …" for more; benchmarks/README.md)
	$(BIN)/python -m benchmarks.run --out out/benchmarks.json $(BENCH)

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: env
	$(BIN)/mypy

floors: env
	$(BIN)/lint-imports

docs-check: env
	$(BIN)/cog --check -I docs $(GENERATED)

fast: env
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow and not sdk and not device"

slow: env
	$(BIN)/pytest -q -m "slow and not sdk and not device"

format: env ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: env ## write the generated parts of README and docs again
	$(BIN)/cog -r -I docs $(GENERATED)

models: env ## check every family and write docs/models.md
	$(BIN)/python -m tests.matrix

transcript: env ## run the demo and put what it prints into README.md
	$(BIN)/python .ci/transcript.py

constraints: env ## pin the newest versions that pyproject.toml allows
	@sed -n '/^#/p' constraints.txt > constraints.new
	PATH="$(CURDIR)/.venv-tools/bin:$$PATH" uv pip compile --quiet --upgrade --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links \
	  $(if $(UV_FIND_LINKS),,--torch-backend=cpu) --python $(BIN)/python --group dev \
	  pyproject.toml > constraints.all
	sed 's/+cpu$$//' constraints.all >> constraints.new
	rm constraints.all && mv constraints.new constraints.txt

clean: ## remove what these commands made
	rm -rf out build dist .venv .venv-tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

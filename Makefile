# Targets for people and for .ci/run. `make` alone lists them.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/set-up
PACKAGES := sdks/python smsctl

# The first Python on the PATH that is new enough, or one that is clearly faster; looked for once.
# `make PYTHON=/path/to/python3.12 …` names another one.
PYTHON ?= $(eval PYTHON := $$(FOUND))$(PYTHON)
FOUND = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	$$python local/python_speed.py 2>/dev/null; \
	done | awk 'NR == 1 || $$1 < 0.9 * best { best = $$1; path = $$2 } END { print path }')

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

# Runs a step that may take minutes, and says how long it took.
TIMED = started=$$(date +%s); $(1) || exit; echo "  took $$(($$(date +%s) - started)) s"

.PHONY: help
help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## install everything into .venv, and a Temporal server; no network when done before
	@$(BIN)/python -m local temporal

# Named by what it depends on, so that a changed lock file installs again. The folder is made
# afresh only where there is none or where its Python is gone.
$(READY): requirements-dev.lock $(wildcard $(addsuffix /pyproject.toml,$(PACKAGES)))
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer is needed, and none was found on your PATH."; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; \
		exit 1; \
	fi
	@$(BIN)/python -c '' 2>/dev/null || { \
		echo "· making $(VENV) with $(PYTHON)"; \
		$(PYTHON) -m venv --clear $(VENV) || { \
			echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; \
			exit 1; \
		}; \
	}
	@echo "· installing $$(grep -c '^[a-z]' requirements-dev.lock) packages, each checked by its hash; a minute or more"
	@$(call TIMED,$(PIP) install --require-hashes -r requirements-dev.lock)
	@set -e; for package in $(PACKAGES); do \
		if [ -f $$package/pyproject.toml ]; then \
			echo "· installing $$package, editable"; \
			$(call TIMED,$(PIP) install --no-deps --no-build-isolation -e ./$$package); \
		fi; \
	done
	@touch $@

.PHONY: demo
demo: setup ## the main job through the REST API, on the embedded stack; about two minutes
	@$(BIN)/python -m local demo

.PHONY: run
run: setup ## the embedded stack, left running until Ctrl-C
	@$(BIN)/python -m local run

.PHONY: test
test: setup ## every test, some 15 minutes on two cores; ARGS="-n 0 tests/smpp -k bind" runs some, in one process
	@$(BIN)/python -m pytest -n 4 --dist loadfile $(ARGS)

.PHONY: lint
lint: setup ## style: ruff; identifiers that standard terms have replaced
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m local.retired_terms

.PHONY: types
types: setup ## types: mypy, strict
	@$(BIN)/mypy
	@$(BIN)/mypy worker.py
	@MYPYPATH=sdks/python/src:smsctl/src $(BIN)/mypy -p smsgateway -p smsctl

.PHONY: contracts
contracts: setup ## check which package may import which, with import-linter
	@$(BIN)/lint-imports

.PHONY: bench
bench: setup ## the figures, into build/bench.json; ONLY=name runs one, EMBEDDED=1 spares the real server
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(EMBEDDED),--embedded-only)

COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header $(if $(UPGRADE),--upgrade) pyproject.toml

.PHONY: lock
lock: setup ## write the lock files anew from pyproject.toml; UPGRADE=1 takes newer versions
	@$(COMPILE) --extra smsctl -o requirements.lock
	@$(COMPILE) --extra dev -o requirements-dev.lock

.PHONY: pin-images
pin-images: ## pin the images of Docker to their digests; needs Docker and its registry
	@sh deploy/pin-images.sh

.PHONY: compose-test
compose-test: setup ## docs/deployment.md on a real Docker, as root on Debian; some 12 minutes, the first time 30
	@bash tests/deploy/compose_test.sh

.PHONY: reset
reset: setup ## forget all messages, keys and workflows of `make run`
	@$(BIN)/python -m local reset

.PHONY: clean
clean: ## remove what was built and cached; the data of `make run` stays
	@rm -rf dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find build -mindepth 1 -maxdepth 1 ! -name stack ! -name 'run.*' -exec rm -rf {} + 2>/dev/null || true
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

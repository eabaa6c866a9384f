# `make help` lists the verbs. Every verb does its own setup first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run
DEV := $(VENV)/.dev

.PHONY: help run test soak install lint format bench image manifests release docs screenshots lock clean

help: ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: $(RUN) ## set up everything and serve locally, with a phone page
	@$(BIN)/smsd serve --dev

test: $(DEV) ## set up everything and pass all tests
	@.ci/need memcached chromium openssl
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

soak: $(DEV) ## ten minutes of faults; SOAK_SECONDS and SOAK_SEED change them
	@.ci/need memcached
	@$(BIN)/python -m pytest tests/faults/soak.py -s

install: $(RUN) ## make .venv/bin/smsd

lint: $(DEV) ## ruff, mypy, import-linter, shellcheck, hadolint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache
	@git ls-files -z | xargs -0 grep -lE '^#!.*\b(ba)?sh$$' | xargs $(BIN)/shellcheck
	@$(BIN)/hadolint Dockerfile

format: $(DEV) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(DEV) ## measure the cost of a message against a bare handler and other servers
	@tests/bench/run

image: $(DEV) ## build the image and test it as operators run it
	@tests/container/run

manifests: $(DEV) ## check the manifests, the alerts and the release
	@tests/manifests/run

docs: $(DEV) ## refresh listings and tables in the pages, and build the site
	@$(BIN)/python -m docs.tools.refresh
	@$(BIN)/python -m docs.tools.site .artefacts/site

screenshots: $(DEV) ## take the pictures of the documentation
	@.ci/need chromium npm
	@$(BIN)/python -m docs.tools.pictures

release: $(DEV) ## build sdist, wheel and bill of materials into dist/; publish nothing
	@.ci/release dist

lock: $(DEV) ## resolve the dependencies again
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile -q -U --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q -U --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	@echo 'hatchling>=1.27,<2' | $(BIN)/uv pip compile -q -U --universal --generate-hashes --no-header --no-annotate \
	  --python-version 3.11 - -o deploy/build.lock

clean: ## remove what the verbs created
	@rm -rf $(VENV) .artefacts .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist ./*.egg-info

$(VENV)/bin/python:
	@.ci/need $(PYTHON)
	@$(PYTHON) -m venv $(VENV)

$(RUN): requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing smsd into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	@echo "Installing the development tools into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

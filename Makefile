# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Every one of them sets up first what it needs.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST_ARGS ?=
DEMO_ARGS ?=

# An environment of other ROS wheels, if one is active, must not leak into ours.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# One thread per numerical library: the simulated cell shares two cores with the graph.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: help demo test setup setup-dev lint format type arrows unit docs lock clean

# Checks run one after the other, also under `make -j`.
.NOTPARALLEL:

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: setup ## run the simulated cell: five episodes of each task, with a report under out/
	@$(BIN)/vla-rl-ros demo $(DEMO_ARGS)

test: lint type arrows ## lint, types, import arrows and all tests that need no robot
	@echo "== tests without processes, two at a time"
	@$(BIN)/pytest -n 2 --dist loadfile -m "not hardware and not gpu" test/unit $(PYTEST_ARGS)
	@echo "== tests that measure time, alone"
	@$(BIN)/pytest -m "not hardware and not gpu" test/contract test/node $(PYTEST_ARGS)
	@echo "== tests of whole graphs, in a process that has had no other participants"
	@$(BIN)/pytest -m "not hardware and not gpu" test/graph test/cell $(PYTEST_ARGS)

setup: ## install what `make demo` needs
	@scripts/setup.sh runtime

setup-dev: ## install what `make test` needs
	@scripts/setup.sh dev

lint: setup-dev ## ruff, rules and format
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup-dev ## let ruff repair what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

type: setup-dev ## mypy, strict
	@echo "== mypy"
	@$(BIN)/mypy

arrows: setup-dev ## which folder may import which
	@echo "== import arrows"
	@$(BIN)/lint-imports --no-cache --no-logo

unit: setup-dev ## only the fast tests without ROS
	@$(BIN)/pytest test/unit test/contract $(PYTEST_ARGS)

docs: setup-dev ## write the generated reference pages again
	@$(BIN)/vla-rl-ros docs

lock: ## pin the requirements of setup.py again
	@scripts/lock.sh

clean: ## remove caches, build products and out/, keep .venv
	@rm -rf build install log out dist *.egg-info .coverage .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

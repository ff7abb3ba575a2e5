# The two commands of the README, and their parts. `make help` lists them.

PYTHON ?= python3
# A pinned version, so that a CPU build kept on this machine can serve. See the README for GPUs.
TORCH ?= torch==2.13.0
TENSORFLOW ?= tensorflow-cpu==2.21.0

BIN := .venv/bin
RUN := .venv/.run-$(shell printf '%s' '$(PYTHON) $(TORCH) $(TENSORFLOW)' | cksum | cut -d' ' -f1)
DEV := .venv/.dev

PYTEST := $(BIN)/python -m pytest
# Tests that wait (for hosts, for Slurm) run beside tests that compute; those that time run alone.
# WORKERS=0 runs all of them one by one.
WORKERS ?= 2
SIDE_BY_SIDE = -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.PHONY: help demo check test test-all equality lint build docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: build  ## build Horovod, train on 1 and 2 ranks under each engine, write a report
	$(BIN)/hvdtools bench run demo

check: build $(DEV) lint  ## lint, types, and the tests that start no ranks
	$(PYTEST) $(SIDE_BY_SIDE) -m 'unit and not slow'

test: build $(DEV) lint  ## check, and tests of every kind with real ranks, hosts and Slurm
	$(PYTEST) -m 'timed and not slow'
	$(PYTEST) $(SIDE_BY_SIDE) -m 'not timed and not slow'

# What passed is kept for as long as nothing changes, so that an interrupted run can go on.
STATE = .cache/slow/$(shell { git rev-parse HEAD && git diff HEAD; } | cksum | cut -d' ' -f1)
SLOW = $(sort $(shell grep -rl 'mark\.slow' tests --include='test_*.py'))

test-all: $(STATE)/test.passed $(SLOW:%=$(STATE)/%.passed) $(STATE)/reversed.passed  ## test, and what takes minutes by nature; can be interrupted and resumed

$(STATE)/test.passed:
	$(MAKE) test
	mkdir -p $(@D) && touch $@

$(STATE)/reversed.passed:
	$(PYTEST) tests/ranks -m 'ranks and not slow' -k 'torch- or tensorflow-' --reverse-checks
	mkdir -p $(@D) && touch $@

$(STATE)/%.passed:
	$(PYTEST) -m slow $*
	mkdir -p $(@D) && touch $@

equality: build $(DEV)  ## print how far N ranks are from one process, for every optimizer and precision
	PYTHONPATH=tests/support:tests/ranks/programs $(BIN)/python tests/support/equality_table.py

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DEV)  ## build the documentation into build/docs; a broken link is an error
	$(BIN)/mkdocs build --strict -f docs/mkdocs.yml

build: $(RUN)  ## make .venv and build Horovod into it (once; the wheel is kept)
	$(BIN)/hvdtools build

$(RUN): setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install '$(TORCH)' '$(TENSORFLOW)' --editable '.[mpi,build,demo]'
	touch $@

$(DEV): $(RUN)
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@

clean:  ## remove .venv, caches and results (the built wheel in ~/.cache/hvdtools stays)
	rm -rf .venv .cache results build dist *.egg-info

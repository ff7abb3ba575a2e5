# The two commands of the README, and their parts. `make help` lists them.

PYTHON ?= python3
# A pinned version, so that a CPU build kept on this machine can serve. See the README for GPUs.
TORCH ?= torch==2.13.0
TENSORFLOW ?= tensorflow-cpu==2.21.0

BIN := .venv/bin
RUN := .venv/.run-$(shell printf '%s' '$(PYTHON) $(TORCH) $(TENSORFLOW)' | cksum | cut -d' ' -f1)
DEV := .venv/.dev

.PHONY: help demo test equality lint build clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: build  ## build Horovod, train on 1 and 2 ranks under each engine, write a report
	$(BIN)/hvdtools bench run demo

test: build $(DEV) lint  ## lint, types, and all tests with real ranks on the CPU
	$(BIN)/python -m pytest

equality: build $(DEV)  ## print how far N ranks are from one process, for every optimizer and precision
	PYTHONPATH=tests/support:tests/ranks/programs $(BIN)/python tests/support/equality_table.py

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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

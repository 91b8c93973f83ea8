# Everything that is done in this repository has a name here; each makes what it needs in .venv.
#
#   make demo      train a small GPT, kill it, resume it, let it write, inspect and prove it
#   make test      the tests
#   make lint      ruff: rules and formatting        make types     mypy --strict
#   make floors    imports go down the floors only
#   make plugins   types and tests of the packages in plugins/, each with the real library
#   make ckptstore-bytes   those of one package alone
#   make bench     save, load and stall against the machine's limits and peers, in 15 minutes
#   make bench-quick   the same in two, with an eighth of the bytes and fewer peers
#   make bench-sync    sync beside rclone and the AWS command line, in five minutes
#   make docs      write docs/cli.md, what --help says, and the pictures in docs/screens
#   make fuzz      hostile bytes for every reader, SECONDS=600 in all
#   make faults    kill, stop, cut off and race real saves: 1,000 kills on disk, 200 on each server
#   make runs      kill whole training runs: histories, tiers, trainings, ranks, sharded saves
#   make clean     remove .venv and what tools left behind; checkpoints stay

PYTHON ?= python3
# More than there are cores, since many tests wait for servers and for other processes.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() + 2, 8))')
SECONDS ?= 600

BIN := .venv/bin
PIP := python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt
INSTALL := $(BIN)/$(PIP)
INSTALL_BESIDE := plugins/.venv/bin/$(PIP)
PLUGINS := $(sort $(patsubst plugins/%/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
BESIDE := plugins/.venv/bin
STATED := pyproject.toml constraints.txt

# Hundreds of tests start Python, which must not compile everything anew each time.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint types floors plugins plugins/.venv $(PLUGINS) docs bench bench-quick bench-sync fuzz faults runs clean

help:
	@sed -n 's/^#   \{0,1\}//p' Makefile

demo: .venv/demo
	@$(BIN)/python examples/demo.py

test: .venv/test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests

lint: .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/lint
	$(BIN)/mypy --strict ckptstore

floors: .venv/lint
	$(BIN)/lint-imports --no-cache

MYPY_BESIDE = $(BESIDE)/mypy --strict --ignore-missing-imports --follow-imports silent
TYPED := $(patsubst plugins/%/py.typed,plugins/%,$(wildcard plugins/*/*/py.typed))

# Some packages are tried at once, for each waits now and then for servers and other processes.
# Their types are looked at before, by one mypy: two at once spoil each other's cache.
plugins: plugins/.venv
	$(MYPY_BESIDE) $(TYPED)
	@$(MAKE) --no-print-directory -k TYPED= $(if $(filter output-sync,$(.FEATURES)),-j3 -Otarget) $(PLUGINS)

# One is installed after the other, since they share an environment.
plugins/.venv:
	@$(MAKE) --no-print-directory -j1 $(addprefix plugins/.venv/,$(PLUGINS))

$(PLUGINS): ckptstore-%: plugins/.venv/ckptstore-%
	$(if $(filter plugins/$@/%,$(TYPED)),$(MYPY_BESIDE) plugins/$@/$(subst -,_,$@))
	$(BESIDE)/python -m pytest plugins/$@/tests

docs: .venv/test
	$(BIN)/python -m tests.docs.cli --write
	$(BIN)/python -m tests.docs.screens

bench: .venv/bench
	$(BIN)/python -m benchmarks.checksums
	$(BIN)/python -m benchmarks.speed
	@if [ -f benchmarks/gpt.py ]; then $(BIN)/python -m benchmarks.gpt; fi

bench-quick: .venv/bench
	$(BIN)/python -m benchmarks.speed --quick

bench-sync: .venv/bench
	$(BIN)/python -m benchmarks.sync

fuzz: .venv/fuzz
	$(BIN)/python -m benchmarks.fuzz --seconds $(SECONDS)

faults: .venv/test
	$(BIN)/python -m benchmarks.faults

runs: .venv/test
	$(BIN)/python -m benchmarks.runs

clean:
	rm -rf .venv plugins/.venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each of these files says that an installation into .venv was finished, and which.

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit("ckptstore needs Python 3.10 or newer, $(PYTHON) is " \
	  + sys.version.split()[0] + "; say which with make PYTHON=..." if sys.version_info < (3, 10) else 0)'
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/demo: .venv/python $(STATED)
	@echo "installing ckptstore into .venv (PyTorch is large: this can take minutes, once)"
	@$(INSTALL) -e .
	@touch $@

.venv/test: .venv/python $(STATED)
	@echo "installing ckptstore and what the tests need into .venv (minutes, once)"
	@$(INSTALL) -e '.[test]'
	@touch $@ .venv/demo

.venv/lint: .venv/test
	@echo "installing ruff, mypy and import-linter into .venv"
	@$(INSTALL) -e '.[lint]'
	@touch $@

.venv/fuzz: .venv/demo
	@echo "installing the fuzzer into .venv"
	@$(INSTALL) -e '.[fuzz]'
	@touch $@

.venv/bench: .venv/demo
	@echo "installing what the benchmarks compare with into .venv"
	@$(INSTALL) -e '.[bench]'
	@touch $@

# The packages in plugins/ have an environment of their own, so that what ckptstore itself is
# tested with is what ckptstore itself asks for.

plugins/.venv/ckptstore: $(STATED)
	@echo "making plugins/.venv, with ckptstore and what its test kits need (minutes, once)"
	@$(PYTHON) -m venv plugins/.venv
	@$(INSTALL_BESIDE) -e '.[test,lint]'
	@touch $@

# What is written for Hugging Face is made of safetensors' files, and of nanoGPT's in its tests.
plugins/.venv/ckptstore-huggingface: plugins/.venv/ckptstore-safetensors plugins/.venv/ckptstore-nanogpt

plugins/.venv/ckptstore-%: plugins/.venv/ckptstore plugins/ckptstore-%/pyproject.toml
	@echo "installing ckptstore-$* and what its tests need into plugins/.venv"
	@$(INSTALL_BESIDE) -e './plugins/ckptstore-$*[test]'
	@touch $@

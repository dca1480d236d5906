# Everything a newcomer types: make demo, make demo-classify, make demo-train, make test, make lint, make bench. Each sets up its environment by itself, which
# takes no time when it is there already. PYTHON=python3.12 picks another interpreter (any from 3.10 on).

PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
BIN := $(VENV)/bin
NEEDS := pyproject.toml constraints.txt
# Processes of `make test`; each takes whole files, in their order: else those with one long test come last, alone.
JOBS ?= 2

.PHONY: help demo demo-classify demo-train test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        find faces in photographs with a trained Caffe net in two worker processes, and draw them"
	@echo "make demo-classify  score photographs with another net"
	@echo "make demo-train  train LeNet on handwritten digits, score it and draw its curves"
	@echo "make test        lint, type-check and run the whole test suite (TESTS=tests/layers for a part)"
	@echo "make lint        lint and type-check only"
	@echo "make bench       every speed and memory claim of README, with its peers in the same run; hours (QUICK=1: minutes)"
	@echo "make clean       remove the environments and caches"

# Three stamps for one environment: the first demo needs only the first, which is small; training adds torch, tests the
# tools.
# A stamp is touched last, so that an interrupted set-up is taken up again.
$(VENV)/.base: $(NEEDS)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'pycaffe needs Python 3.10 or later; try make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[images]"
	@touch $@

$(VENV)/.train: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[images,train,plot]"
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[full,draw,dev]"
	@touch $@

# OpenCV 5 has no Caffe importer; the peer is the last release that has one.
$(BENCH)/.bench: $(NEEDS)
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[full,cluster,openvino,bench]" "opencv-python-headless<5"
	@touch $@

demo: $(VENV)/.base
	$(BIN)/python scripts/demo

demo-classify: $(VENV)/.base
	$(BIN)/python scripts/demo_classify

demo-train: $(VENV)/.train
	$(BIN)/python scripts/demo_train

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src/pycaffe

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

bench: $(BENCH)/.bench
	@set -e; for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BENCH)/bin/python $$script $(if $(QUICK),--quick); done
	$(BENCH)/bin/python benchmarks/plot.py benchmarks/files/inference.png

clean:
	rm -rf $(VENV) $(BENCH) .mypy_cache .pytest_cache .ruff_cache .hypothesis

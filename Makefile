# `make test` and `make demo` need only Python >= 3.10 and make: they set up .venv on first use and reuse it after.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.installed

.PHONY: help setup test test-slow lint demo clean

help:
	@echo "make demo       fine-tune the packaged model with GeoConv, score it, write runs/demo/index.html"
	@echo "make test       lint and the fast tests"
	@echo "make test-slow  the long tests too"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-slow: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

demo: $(READY)
	$(BIN)/python scripts/demo.py --output runs/demo

clean:
	rm -rf $(VENV) build *.egg-info

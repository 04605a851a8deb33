# make train: install and run the main job; make test: install and run the tests. ARGS= goes to the command.
PYTHON ?= python3
BIN = .venv/bin

train: .venv/installed  ## train (ARGS="model=resnet18 data=fashion_mnist")
	$(BIN)/python src/train.py $(ARGS)

test: .venv/installed   ## the default tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

test-all: .venv/installed  ## the slow ones too
	$(BIN)/python -m pytest $(ARGS)

faults: .venv/installed  ## a fault in every file operation, phase and file of a run, not only in a sample; an hour
	RESLAB_ALL_FAULTS=1 $(BIN)/python -m pytest tests/faults -n 2 --dist worksteal $(ARGS)

check: .venv/installed  ## lint, types, and which package imports which
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/mypy

tensorboard: .venv/installed  ## look at every run
	$(BIN)/tensorboard --logdir outputs

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: train test test-all faults check tensorboard help

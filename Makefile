# make train: install and run the main job, with the options that follow (make train model=resnet18); make test: install
# and run the tests. ARGS= goes to the command, and flags only so: make train seed=1,2 ARGS=-m.
# make gpu: on a machine with an NVIDIA GPU, the tests that need one and then the measurements, for 7.5 minutes; the next
# call continues. PART=tests|speed|recipes|fidelity|disk: only that. PYTHON_GPU=python3: with the packages that this
# machine has and those in the folder packages/, where nothing can be installed (benchmarks/README.md).
PYTHON ?= python3
BIN = .venv/bin
PYTHON_GPU ?= $(BIN)/python
# The name=value arguments of make itself, each in quotes for the shell. Make writes a blank in one as "\ ", and $ as $$.
OWN = $(filter-out ARGS=% PART=% PYTHON=% PYTHON_GPU=%,$(subst $$$$,$$,$(subst \ ,@blank@,$(MAKEOVERRIDES))))
OPTIONS = $(subst @blank@, ,$(foreach option,$(OWN),'$(subst ','\'',$(option))'))

train: .venv/installed  ## train (make train model=resnet18 data=fashion_mnist)
	$(BIN)/python src/train.py $(OPTIONS) $(ARGS)

test: .venv/installed   ## the default tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal $(ARGS)

test-all: .venv/installed  ## the slow ones too
	$(BIN)/python -m pytest $(ARGS)

faults: .venv/installed  ## a fault in every file operation, phase and file of a run, and more kills, not only a sample; an hour
	RESLAB_ALL_FAULTS=1 $(BIN)/python -m pytest tests/faults tests/commands/test_resume.py -n 2 --dist worksteal $(ARGS)

gpu: $(if $(filter $(BIN)/python,$(PYTHON_GPU)),.venv/installed)  ## test and measure on a GPU (PART=speed PYTHON_GPU=python3)
	PYTHONPATH=$(CURDIR)/packages:$$PYTHONPATH $(PYTHON_GPU) benchmarks/gpu.py $(PART) $(ARGS)

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

.PHONY: train test test-all faults gpu check tensorboard help

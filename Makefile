# Every target sets up what it needs: a virtual environment in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# uv is faster than pip, and does not read its settings. It is told pip's index, and to trust what
# the system trusts, as pip does; where that is not enough, it gives up soon, and pip goes on.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV = index="$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2> /dev/null)}"; \
  export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}" UV_SYSTEM_CERTS=true UV_HTTP_RETRIES=1; \
  $$(command -v uv || echo $(BIN)/uv) pip install --quiet --python $(BIN)/python
# The scripts import report.py and inside.py from notebooks.
SCRIPT = PYTHONPATH="$(CURDIR)/notebooks" "$(CURDIR)/$(BIN)/python" "$(CURDIR)/notebooks/scripts"
# More for papermill, as in: make run ARGS="-f parameters.yaml"
ARGS ?=
# Of the page to draw on: a recipe, or the folder of a run.
weights = steady
# Also with `make -C`, the folder it was called from: a run_dir is relative to that. Shells set PWD.
CALLER := $(or $(PWD),$(CURDIR))

.DEFAULT_GOAL := help
.PHONY: help run test check lint colab draw weights record tables clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-10s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY)  ## train on MNIST: minutes, or half a minute with recipe=fast
	@cd "$(CALLER)" && $(SCRIPT)/tools.py run $(ARGS)

test: $(READY)  ## the tests; neither network nor MNIST needed
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# One thread, as the recorded run: the same bits on a machine that rounds alike.
check: $(READY)  ## retrain on all of MNIST and compare with the committed notebooks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m full tests/notebooks/test_full.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval --nbval-cell-timeout=14400 notebooks

lint: $(READY)  ## check style and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

colab: $(READY)  ## self-contained notebooks to upload to Colab
	$(SCRIPT)/tools.py colab

draw: $(READY)  ## one page to draw a digit on, for any browser; weights=FOLDER for your own run
	@cd "$(CALLER)" && $(SCRIPT)/tools.py draw --weights "$(weights)"

weights: $(READY)  ## train recorded seeds again: the library's weights, and each seed's mistakes
	$(SCRIPT)/weights.py

record: $(READY)  ## execute the committed notebooks in place and keep the run
	OMP_NUM_THREADS=1 $(SCRIPT)/tools.py record

tables: $(READY)  ## write the tables of the README files from the records
	$(SCRIPT)/tools.py tables

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.13")'
	@echo "Setting up $(VENV): 3 GB to download and 6 GB of disk, some silent minutes"
	@$(PYTHON) -m venv $(VENV)
	@command -v uv > /dev/null || $(PIP) uv || true
	@$(UV) --editable . || { echo "uv failed: trying pip, which takes longer"; $(PIP) --editable .; }
	@mkdir -p runs  # papermill makes no folders
	@touch $@

clean:  ## remove .venv and what was built
	rm -rf $(VENV) $(VENV)-oldest dist build *.egg-info .pytest_cache .ruff_cache .import_linter_cache

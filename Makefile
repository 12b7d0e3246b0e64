PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo check test tests journeys generated lint ui clean

# Tests start many processes: what the first one compiles of the packages, the others must find.
# What nothing imports is never compiled (--no-compile), which spares a minute of the installation.
unexport PYTHONDONTWRITEBYTECODE

$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV); PyTorch is large, this takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	@echo "installing into $(VENV); PyTorch is large, this takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $(VENV)/.installed $@

demo: $(VENV)/.installed  ## install, run the quickstart, print its scores
	$(BIN)/fomo run quickstart

check: lint  ## what to run while working: lint, types, import layers, fast tests
	$(BIN)/pytest -m "not slow and not kill and not gpu" --durations 5 --durations-min 1

test: $(VENV)/.installed-dev  ## lint, types, import layers, all tests but journeys
	@$(MAKE) --no-print-directory --jobs 2 lint tests

# Beside the linting, and once: else all processes of the tests compile the same at the same time.
# What cannot be collected is said when the tests are run.
$(VENV)/.compiled: $(VENV)/.installed-dev
	@$(BIN)/python -c "import open_clip, fomo_dagster.cli.running, fomo_dagster.graph.work.stage"
	@$(BIN)/pytest --collect-only -n 0 > /dev/null || true
	touch $@

tests: $(VENV)/.compiled
	$(BIN)/pytest -m "not journey"

journeys: $(VENV)/.compiled  ## the longest tests, some five minutes
	$(BIN)/pytest -m journey

generated: $(VENV)/.installed-dev  ## write what follows from the code: schema, lists in guides, a picture
	$(BIN)/python docs/generated.py
	$(BIN)/python docs/schedules.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(VENV)/.installed  ## Dagster's UI on this machine
	$(BIN)/fomo ui

clean:  ## remove what was installed; what was made stays in .fomo/
	rm -rf $(VENV)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# A worker that crashes ends the run: xdist 3.8 then waits for ever for the tests of the file that it was in.
PARALLEL := --numprocesses 2 --dist loadfile --max-worker-restart 0
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet

.PHONY: help demo test quick lint figures format build lock clean

help:  ## List these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## Open the page on http://127.0.0.1:7860
	$(BIN)/python app.py

# Browser tests run one at a time: a page that waits for a processor looks like one that hangs.
test: $(VENV)/.installed  ## Run all tests; both parts run, and both are reported, also where the first fails
	@unit=passed; browser=passed; \
	$(PYTEST) $(PARALLEL) -m "not browser" || unit=FAILED; \
	$(PYTEST) -m browser || browser=FAILED; \
	echo "Unit tests: $$unit. Browser tests: $$browser."; \
	test "$$unit$$browser" = passedpassed

quick: $(VENV)/.installed  ## Run the tests that take no longer than a second or two each
	$(PYTEST) $(PARALLEL) -m "not slow and not real and not browser"

lint: $(VENV)/.installed  ## Check style, types and which folder imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

figures: $(VENV)/.installed  ## List the commands of the published figures, and run those that are not recorded yet
	$(BIN)/python scripts/figures.py

format: $(VENV)/.installed  ## Format the code and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: $(VENV)/.installed  ## Build the wheel and the source archive in dist/
	$(BIN)/python -m build

lock:  ## Rewrite requirements.lock: the newest versions that requirements.txt and pyproject.toml allow
	$(PYTHON) -m venv .venv-lock
	PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-lock/bin/pip install --quiet --constraint requirements.txt --editable '.[dev]'
	{ grep '^#' requirements.lock; .venv-lock/bin/pip freeze --all --exclude-editable \
		| grep -v -e '^pip==' -e ' @ ' | sed 's/+.*//'; } > .venv-lock/requirements.lock
	mv .venv-lock/requirements.lock requirements.lock
	rm -r .venv-lock

clean:  ## Remove the environment and what was built
	rm -rf $(VENV) build dist

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# A worker that crashes ends the run: xdist 3.8 then waits for ever for the tests of the file that it was in.
TWO_AT_ONCE := --numprocesses 2 --max-worker-restart 0
PARALLEL := $(TWO_AT_ONCE) --dist loadfile
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet

.PHONY: help demo test test-all quick coverage lint figures format docs build lock audit clean

help:  ## List these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## Open the page on http://127.0.0.1:7860
	$(BIN)/python app.py

# Files in the order of tests/conftest.py, slow ones first; xdist's own begins with those of many tests.
IN_ORDER := --no-loadscope-reorder
# Browser tests wait for a page most of the time: two at once take three quarters of the time.
test: CHOSEN := and not long
test-all: CHOSEN :=
test: $(VENV)/.installed  ## Run the tests, in some twelve minutes; both parts run and are reported, also where the first fails
test-all: $(VENV)/.installed  ## The same with those that take more than four seconds each and are guarded in part by others
test test-all:
	@unit=passed; browser=passed; \
	$(PYTEST) $(PARALLEL) $(IN_ORDER) -m "not browser $(CHOSEN)" || unit=FAILED; \
	$(PYTEST) $(TWO_AT_ONCE) --dist load -m "browser $(CHOSEN)" tests/real || browser=FAILED; \
	echo "Unit tests: $$unit. Browser tests: $$browser."; \
	test "$$unit$$browser" = passedpassed

quick: $(VENV)/.installed  ## Run the tests that take no longer than a second or two each
	$(PYTEST) $(PARALLEL) -m "not slow and not long and not real and not browser"

coverage: $(VENV)/.installed  ## Run the tests but those in a browser, and say which lines they run, in htmlcov/ too
	$(PYTEST) $(PARALLEL) $(IN_ORDER) -m "not browser and not long" --cov --cov-report=term --cov-report=html

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

# In an environment of its own, without the package: the reference is read from the sources. With --quiet, MkDocs would not
# count the warnings.
docs:  ## Make the documentation a site in site/; any warning is an error
	@test -d .venv-docs || $(PYTHON) -m venv .venv-docs
	@PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-docs/bin/pip install -qq --requirement docs/requirements.txt
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# Also in an environment of its own, so that a release needs neither torch nor the lock.
build:  ## Build the wheel, its CycloneDX bill of materials in it, and the source archive in dist/
	@test -d .venv-build || $(PYTHON) -m venv .venv-build
	@PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-build/bin/pip install -qq 'build>=1.3' 'cyclonedx-bom>=7' 'twine>=6.2' 'wheel>=0.45'
	rm -f dist/wbc_hf-*
	.venv-build/bin/python -m build
	.venv-build/bin/python .ci/bill_of_materials.py dist/*.whl
	.venv-build/bin/twine check --strict dist/wbc_hf-*

lock:  ## Rewrite requirements.lock: the newest versions that requirements.txt and pyproject.toml allow
	$(PYTHON) -m venv .venv-lock
	PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-lock/bin/pip install --quiet --constraint requirements.txt --editable '.[dev]'
	{ grep '^#' requirements.lock; .venv-lock/bin/pip freeze --all --exclude-editable \
		| grep -v -e '^pip==' -e ' @ ' | sed 's/+.*//'; } > .venv-lock/requirements.lock
	mv .venv-lock/requirements.lock requirements.lock
	rm -r .venv-lock

# In an environment of its own: what looks at the locked versions must not change them.
audit:  ## List what is locked (CycloneDX, dist/requirements.cdx.json), and look for known vulnerabilities in it
	@test -d .venv-audit || $(PYTHON) -m venv .venv-audit
	@PIP_DISABLE_PIP_VERSION_CHECK=1 .venv-audit/bin/pip install -qq 'cyclonedx-bom>=7' 'pip-audit>=2.9'
	@mkdir -p dist
	@.venv-audit/bin/cyclonedx-py requirements --output-reproducible --output-file dist/requirements.cdx.json requirements.lock
	@.venv-audit/bin/python .ci/audit.py

clean:  ## Remove the environment and what was built
	rm -rf $(VENV) .venv-audit .venv-build .venv-docs build dist htmlcov site
